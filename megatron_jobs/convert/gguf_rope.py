"""Rotary angles in GGUF and in config.json: their base, the share of columns, and their scaling.

D columns of a head. llama3's scaling lies in GGUF as a tensor of D / 2 factors, nothing else of it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.convert.gguf_names import FACTORS
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.errors import DataError, UserError

Floats = NDArray[np.float32]
BASE = 10000.0
"""Where the metadata says nothing; of Gemma 3's layers with a window always."""
LOW, HIGH = 1.0, 4.0
"""llama3's bounds. Factors know them up to a common factor of all three lengths, so these do."""
LENGTHS = [2**power for power in range(3, 24)]
"""Original lengths that a table of factors is compared with."""
LLAMA3, LONG, SHORT = FACTORS


def llama3_factors(rope: Mapping[str, Any], head: int) -> Floats:
    """What llama3's scaling divides each angle by: fp32 [D / 2].

    Source: Llama 3.1's own code (apply_scaling).
    """
    lengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head, 2) / head)
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope.get("low_freq_factor", LOW), rope.get("high_freq_factor", HIGH)
    share = np.clip((original / lengths - low) / (high - low), 0, 1)
    factors: Floats = (1 / ((1 - share) / factor + share)).astype(np.float32)
    return factors


def rope_of(
    metadata: Mapping[str, Any],
    prefix: str,
    tensors: Mapping[str, Matrix],
    head: int,
    where: str,
) -> dict[str, Any]:
    """config.json's rope_parameters of a file.

    Raises: UserError for a scaling that has no words there; DataError when it lacks a part.
    """
    rope: dict[str, Any] = {"rope_type": "default"}
    rope["rope_theta"] = metadata.get(f"{prefix}.rope.freq_base", BASE)
    scaling = f"{prefix}.rope.scaling."
    kind = metadata.get(scaling + "type", "none")
    original = metadata.get(scaling + "original_context_length")
    if LONG in tensors and SHORT in tensors:
        return rope | _longrope(tensors, metadata, scaling)
    if LLAMA3 in tensors:
        factors = tensors[LLAMA3].array().reshape(-1).astype(np.float32)
        return rope | _llama3(factors, rope["rope_theta"], head, where)
    if kind == "none":
        return rope
    if kind not in ("linear", "yarn") or scaling + "factor" not in metadata:
        raise UserError(f"{where}: {scaling}type {kind!r}: linear, or yarn, with a factor are read")
    rope |= {"rope_type": kind, "factor": metadata[scaling + "factor"]}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = original
        for name in ("beta_fast", "beta_slow"):
            if scaling + f"yarn_{name}" in metadata:
                rope[name] = metadata[scaling + f"yarn_{name}"]
    if kind == "yarn" and original is None:
        raise DataError(f"{where}: {scaling}original_context_length is missing; yarn has it")
    return rope


def _llama3(factors: Floats, theta: float, head: int, where: str) -> dict[str, Any]:
    if (factors == 1).all():
        return {}
    found: dict[str, Any] = {"rope_type": "llama3", "factor": float(str(factors.max()))}
    found |= {"low_freq_factor": LOW, "high_freq_factor": HIGH}
    for length in LENGTHS if len(factors) == head // 2 else ():
        tried = found | {"original_max_position_embeddings": length}
        if np.allclose(llama3_factors(tried | {"rope_theta": theta}, head), factors, 1e-3, 0):
            return tried
    raise UserError(f"{where}: {LLAMA3}: its factors are not those of llama3's scaling")


def _longrope(
    tensors: Mapping[str, Matrix], metadata: Mapping[str, Any], scaling: str
) -> dict[str, Any]:
    long, short = (
        [float(str(number)) for number in tensors[name].array().reshape(-1)]
        for name in (LONG, SHORT)
    )
    found = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    attention = metadata.get(scaling + "attn_factor")
    original = metadata.get(scaling + "original_context_length")
    length = metadata.get(scaling.partition(".")[0] + ".context_length")
    if not isinstance(original, int) or not isinstance(length, int) or attention is None:
        return found
    if math.isclose(attention, longrope_attention(length, original), rel_tol=1e-6):
        return found
    return found | {"attention_factor": attention}


def longrope_attention(length: int, original: int) -> float:
    """What longrope multiplies cosine and sine by. Source: arXiv:2402.13753, section 3.2."""
    return math.sqrt(1 + math.log(max(1.0, length / original)) / math.log(original))


def rope_metadata(
    config: Mapping[str, Any], prefix: str, head: int
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """(metadata, tensors) of the rotary angles of a config.json.

    Raises: UserError for a scaling that llama.cpp does not know.
    """
    rope = rope_in(config)
    kind = rope["rope_type"]
    share = rope.get("partial_rotary_factor", 1.0)
    turned = int(head * share)
    found: dict[str, Any] = {f"{prefix}.rope.dimension_count": np.uint32(turned)}
    found[f"{prefix}.rope.freq_base"] = np.float32(rope["rope_theta"])
    scaling = f"{prefix}.rope.scaling."
    if kind == "default":
        return found, {}
    if kind == "llama3":
        return found, {LLAMA3: llama3_factors(rope, head)}
    if kind == "longrope":
        return found | _longrope_metadata(config, rope, scaling), {
            name: np.asarray(rope[key], np.float32)
            for name, key in ((LONG, "long_factor"), (SHORT, "short_factor"))
        }
    if kind not in ("linear", "yarn"):
        raise UserError(f"config.json: rope_type {kind!r}: GGUF has linear, llama3, longrope, yarn")
    found |= {scaling + "type": kind, scaling + "factor": np.float32(rope["factor"])}
    if kind == "yarn":
        length = rope.get("original_max_position_embeddings")
        length = length or config["max_position_embeddings"] / rope["factor"]
        found[scaling + "original_context_length"] = np.uint32(length)
        for name in ("beta_fast", "beta_slow"):
            if rope.get(name) is not None:
                found[scaling + f"yarn_{name}"] = np.float32(rope[name])
    return found, {}


def _longrope_metadata(
    config: Mapping[str, Any], rope: Mapping[str, Any], scaling: str
) -> dict[str, Any]:
    length, original = config["max_position_embeddings"], original_length(config)
    factor = rope.get("attention_factor") or longrope_attention(length, original)
    return {
        scaling + "original_context_length": np.uint32(original),
        scaling + "attn_factor": np.float32(factor),
    }


def original_length(config: Mapping[str, Any]) -> int:
    """The longest sequence of the first training."""
    found = rope_in(config).get("original_max_position_embeddings")
    found = found or config.get("original_max_position_embeddings")
    return int(found or config["max_position_embeddings"])


def rope_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """rope_parameters, however old the config.json is; of Gemma 3 those of layers without window.

    `rope_type`, `rope_theta` are always there.
    """
    rope: dict[str, Any] = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "full_attention" in rope:
        rope = dict(rope["full_attention"])
    kind = rope.get("rope_type", rope.get("type", "default"))
    base = config.get("rope_theta", config.get("rotary_emb_base", BASE))
    share = config.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
    own = {"rope_theta": float(rope.get("rope_theta") or base)}
    own["partial_rotary_factor"] = float(rope.get("partial_rotary_factor") or share)
    return rope | own | {"rope_type": "longrope" if kind == "su" else kind}
