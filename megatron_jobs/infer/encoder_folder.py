"""What a folder must hold to be a sentence encoder; looked at without torch."""

import json
from pathlib import Path
from typing import Any, Literal

Pooling = Literal["mean", "cls"]
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
MODULES = ("Transformer", "Pooling", "Normalize")
"""Of sentence-transformers: those whose work is done here too."""


def encoder_problem(folder: Path) -> str:
    """What keeps a folder from being an encoder of Hugging Face form; "" for nothing."""
    config = _read(folder / "config.json")
    if not config.get("model_type"):
        return f"{folder} has no config.json with a model_type; must be an encoder's folder"
    if config.get("is_encoder_decoder"):
        return f"{folder} is a {config['model_type']} with a decoder; must be an encoder alone"
    for kind, names in (("weights", WEIGHTS), ("tokenizer", TOKENIZERS)):
        if not any((folder / name).is_file() for name in names):
            return f"{folder} has no {kind}; must hold one of {', '.join(names)}"
    return _layer_problem(folder)


def pooling_of(folder: Path) -> Pooling:
    """How states become one vector: their mean, unless 1_Pooling/config.json says the first."""
    return (
        "cls" if _read(folder / "1_Pooling/config.json").get("pooling_mode_cls_token") else "mean"
    )


def _layer_problem(folder: Path) -> str:
    """Layers of sentence-transformers beyond the encoder that are not known here."""
    layers = _read(folder / "modules.json")
    kinds = [str(layer.get("type")).rpartition(".")[2] for layer in layers.get("", [])]
    unknown = [kind for kind in kinds if kind not in MODULES]
    if unknown:
        return f"{folder} has a layer {unknown[0]}; known are {', '.join(MODULES)}"
    modes = _read(folder / "1_Pooling/config.json")
    chosen = [name for name, on in modes.items() if name.startswith("pooling_mode_") and on is True]
    if chosen and chosen not in (["pooling_mode_mean_tokens"], ["pooling_mode_cls_token"]):
        return f"{folder} pools by {', '.join(chosen)}; known are mean_tokens and cls_token"
    return ""


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file, a list under ""; empty where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {"": found}
