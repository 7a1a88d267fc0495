"""DeepSeek's latent attention in GGUF (`deepseek2`): what its metadata says, and kv_b_proj in two.

H heads, N columns of a head without angles, V columns of its value, L of the latent vector.
llama.cpp multiplies queries with the keys' half: it keeps attn_k_b [H, L, N], turned, and attn_v_b
[H, V, L], where Hugging Face has [H (N + V), L] (and GGUF files of before May 2025 too).
Source: conversion/deepseek.py, src/models/deepseek2.cpp.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.gguf_names import LAYERS
from megatron_jobs.convert.matrix import Array, Converted, Matrix, Ordered
from megatron_jobs.errors import DataError, UserError

BOTH, KEYS, VALUES = "attn_kv_b.weight", "attn_k_b.weight", "attn_v_b.weight"
GATES = {"softmax": 1, "sigmoid": 2}
"""config.json's scoring_func -> expert_gating_func."""
NOTHING_SQUEEZED = (26, 27)
"""Layers of the models whose queries llama.cpp knows not to be squeezed, V2-Lite's."""
LOG_MULTIPLIER = "rope.scaling.yarn_log_multiplier"


class TurnedGroups(Matrix):
    """Matrices [G, R, C] one after the other, each turned: [G, C, R]; one is read at a time."""

    __slots__ = ("base", "height")

    def __init__(self, base: Matrix, groups: int) -> None:
        assert base.rows % groups == 0, f"{base.rows} rows in {groups} groups"
        self.base, self.height, self.dtype = base, base.rows // groups, base.dtype
        self.shape = (groups, base.columns, self.height)

    def read(self, start: int, stop: int) -> Iterator[Array]:
        """Pieces that are made, of one group each."""
        width = self.base.columns
        for group in range(start // width, -(-stop // width)):
            made = np.empty((width, self.height), self.dtype)
            at, first = 0, group * self.height
            for piece in self.base.read(first, first + self.height):
                made[:, at : at + len(piece)] = piece.T
                at += len(piece)
            yield made[max(0, start - group * width) : stop - group * width]


@lru_cache(maxsize=8)
def _band(groups: int, height: int, start: int, stop: int) -> NDArray[np.int64]:
    """Rows start..stop of each of `groups` groups; all layers share one array."""
    rows = np.arange(groups * height).reshape(groups, height)[:, start:stop]
    return np.ascontiguousarray(rows.reshape(-1))


@lru_cache(maxsize=8)
def _meshed(groups: int, keys: int, values: int) -> NDArray[np.int64]:
    """Rows of all keys, then of all values -> each head's keys and its values."""
    first = np.arange(groups * keys).reshape(groups, keys)
    second = np.arange(groups * values).reshape(groups, values) + groups * keys
    return np.concatenate([first, second], axis=1).reshape(-1)


def apart(tensors: Mapping[str, Matrix], config: Mapping[str, Any]) -> dict[str, Matrix]:
    """Tensors of a table, with attn_kv_b as the two that llama.cpp reads.

    Raises: DataError when its rows are not those of config.json's heads.
    """
    found: dict[str, Matrix] = {}
    for name, matrix in tensors.items():
        if not name.endswith("." + BOTH):
            found[name] = matrix
            continue
        heads, keys, values = _sizes(config)
        if matrix.rows != heads * (keys + values):
            rule = f"not those of {heads} heads of {keys} + {values}"
            raise DataError(f"{name}: {matrix.rows} rows, {rule}")
        latent, all_ = matrix.columns, keys + values
        upper = Ordered([matrix], _band(heads, all_, 0, keys), (heads * keys, latent))
        block = name.removesuffix(BOTH)
        found[block + KEYS] = TurnedGroups(upper, heads)
        lower = _band(heads, all_, keys, all_)
        found[block + VALUES] = Ordered([matrix], lower, (heads, values, latent))
    return found


def together(tensors: Mapping[str, Matrix], config: Mapping[str, Any]) -> dict[str, Matrix]:
    """The way back; files that hold attn_kv_b are as they are.

    Raises: DataError when one of the two is missing, or not of config.json's heads.
    """
    found = dict(tensors)
    for name in tensors:
        if LAYERS.match(name) and name.endswith(("." + KEYS, "." + VALUES)):
            block = name.removesuffix(KEYS).removesuffix(VALUES)
            del found[name]
            if block + BOTH not in found:
                found[block + BOTH] = _joined(tensors, block, config)
    return found


def _joined(tensors: Mapping[str, Matrix], block: str, config: Mapping[str, Any]) -> Matrix:
    heads, keys, values = _sizes(config)
    latent = int(config["kv_lora_rank"])
    parts = []
    for name, shape in ((KEYS, (heads, latent, keys)), (VALUES, (heads, values, latent))):
        part = tensors.get(block + name)
        if part is None:
            raise DataError(f"{block}{name}: missing")
        if part.shape != shape:
            rule = f"its metadata ask for {list(shape)}"
            raise DataError(f"{block}{name}: found {list(part.shape)}, {rule}")
        parts.append(part)
    upper, lower = parts
    if upper.dtype != lower.dtype:
        upper, lower = (Converted(part, np.dtype(np.float32)) for part in parts)
    order = _meshed(heads, keys, values)
    return Ordered([TurnedGroups(upper, heads), lower], order, (len(order), latent))


def _sizes(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """H, N, V."""
    heads = config["num_attention_heads"]
    return int(heads), int(config["qk_nope_head_dim"]), int(config["v_head_dim"])


def latent_config(
    metadata: Mapping[str, Any], config: Mapping[str, Any], rope: dict[str, Any]
) -> dict[str, Any]:
    """What config.json says that follows from more than one value.

    Args:
        rope: rope_parameters so far; gets what yarn scales scores by.
    """
    turned = config["qk_rope_head_dim"]
    # files from before attn_kv_b lay in two say the sizes of a head where others say the latent's
    keys, values = (
        metadata.get(f"deepseek2.attention.{name}_length_mla",
                     metadata.get(f"deepseek2.attention.{name}_length"))
        for name in ("key", "value")
    )  # fmt: skip
    if keys is None or values is None or keys <= turned:
        raise ValueError(f"key_length_mla {keys}, value_length_mla {values}, {turned} turned")
    multiplier = metadata.get("deepseek2." + LOG_MULTIPLIER)
    if rope["rope_type"] == "yarn" and multiplier:
        rope["mscale"] = rope["mscale_all_dim"] = float(f"{10 * multiplier:.6g}")
    groups = metadata.get("deepseek2.expert_group_count", 1)
    own = {
        "q_lora_rank": config.get("q_lora_rank"),
        "qk_nope_head_dim": keys - turned,
        "v_head_dim": values,
        "num_key_value_heads": config["num_attention_heads"],
        "n_group": groups,
        "topk_group": metadata.get("deepseek2.expert_group_used_count", 1),
        "moe_layer_freq": 1,
        "rope_parameters": rope,
        "rope_theta": rope["rope_theta"],
    }
    if config["model_type"] == "deepseek_v3":
        own |= {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "rope_interleave": True}
        return own
    method = "group_limited_greedy" if groups > 1 else "greedy"
    return own | {"scoring_func": "softmax", "topk_method": method}


def latent_metadata(config: Mapping[str, Any], rope: Mapping[str, Any]) -> dict[str, Any]:
    """The way back, but for what a table of settings says.

    Raises: UserError for angles that llama.cpp turns in another way.
    """
    _, keys, values = _sizes(config)
    turned, latent = config["qk_rope_head_dim"], config["kv_lora_rank"]
    gate = "sigmoid" if config["model_type"] == "deepseek_v3" else "softmax"
    numbers = {
        "attention.head_count_kv": 1,  # what is kept of each token is read by all heads
        "attention.key_length": latent + turned,
        "attention.value_length": latent,
        "attention.key_length_mla": keys + turned,
        "attention.value_length_mla": values,
        "expert_gating_func": GATES[gate],
    }
    if _groups(config) > 1:
        numbers |= {
            "expert_group_count": _groups(config),
            "expert_group_used_count": config["topk_group"],
        }
    found: dict[str, Any] = {f"deepseek2.{k}": np.uint32(n) for k, n in numbers.items()}
    return found | _scaling(rope)


def _groups(config: Mapping[str, Any]) -> int:
    """Groups of experts of which some are chosen first; 1: none."""
    limited = config["model_type"] == "deepseek_v3"
    limited = limited or config.get("topk_method") == "group_limited_greedy"
    return int(config.get("n_group") or 1) if limited else 1


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any]:
    kind, here = rope["rope_type"], "config.json: rope_parameters"
    if kind == "default":
        return {}
    if kind != "yarn":
        raise UserError(f"{here}: rope_type {kind!r}: in GGUF a deepseek2 has default and yarn")
    one, all_ = rope.get("mscale"), rope.get("mscale_all_dim")
    if not all_ or one != all_:
        rule = "llama.cpp takes both to be one number, not 0"
        raise UserError(f"{here}: mscale {one!r}, mscale_all_dim {all_!r}: {rule}")
    return {"deepseek2." + LOG_MULTIPLIER: np.float32(0.1 * all_)}


def latent_remarks(config: Mapping[str, Any]) -> list[str]:
    """Where llama.cpp computes otherwise than this model: a sentence each."""
    said = []
    if config["model_type"] == "deepseek_v2" and _groups(config) > 1:
        rule = "by the sum of the best two scores in each, where this model takes the best"
        said.append(f"llama.cpp chooses groups of experts {rule}")
    layers = config["num_hidden_layers"]
    if (config.get("q_lora_rank") is None) != (layers in NOTHING_SQUEEZED):
        known = " or ".join(map(str, NOTHING_SQUEEZED))
        rule = f"only those of {known} layers to be without q_lora_rank; this one has {layers}"
        said.append(f"llama.cpp takes {rule}, and may not load it")
    return said
