"""A model of transformers made of a GGUF file.

transformers reads a few architectures itself, and of those no scaled angles: such files are read by
it, as another reader than ours. Of all others it gets our reading, as a folder of its own.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from megatron_jobs.checkpoint.proof import open_theirs
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.files import FilePlan, Item, write_files
from megatron_jobs.convert.gguf_in import OpenedGGUF, open_gguf
from megatron_jobs.convert.hugging_face import CONFIG
from megatron_jobs.convert.matrix import Converted
from megatron_jobs.convert.safetensors import plan_safetensors

READ_BY_THEM = ("llama", "qwen2", "qwen3")
HEADS = ("token_head", "sentence_head", "pooler", "output_bias")


def without_heads(model: ModelConfig) -> ModelConfig:
    """A model as GGUF holds it: of an encoder no head."""
    if model.kind != "encoder":
        return model
    return model.model_copy(update=dict.fromkeys(HEADS, False))


def open_gguf_model(place: Path, model: ModelConfig, beside: Path) -> Any:
    """The model of transformers in fp32, with plain attention.

    Args:
        place: a file, one of several, or their folder.
        model: our settings of it, without the heads that GGUF lacks.
        beside: folder in which it may lie in fp32 until it is read.
    """
    opened = open_gguf(place)
    if _is_read_by_them(opened):
        return _their_reading(opened.file.path)
    with TemporaryDirectory(dir=beside, prefix=".proof-") as made:
        folder = Path(made) / "model"
        dtype = np.dtype(np.float32)
        tensors = {name: Converted(matrix, dtype) for name, matrix in opened.tensors.items()}
        config = FilePlan(CONFIG, [Item(json.dumps(opened.config).encode())])
        write_files([*plan_safetensors(tensors), config], folder, key=lambda: "proof")
        return open_theirs(folder, model)


def _is_read_by_them(opened: OpenedGGUF) -> bool:
    scaled = opened.config.get("rope_parameters", {}).get("rope_type") != "default"
    known = opened.config["model_type"] in READ_BY_THEM
    return known and not scaled and not opened.file.further


def _their_reading(file: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
    )
