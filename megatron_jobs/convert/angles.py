"""What config.json says of rotary angles, read and written."""

from collections.abc import Collection, Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.errors import UserError

BASE = 10000
"""Where config.json gives none."""
STRETCHES = ("linear", "llama3", "yarn", "longrope")
NUMBERS = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "mscale": "mscale",
    "mscale_all_dim": "mscale_all_dim",
    "truncate": "truncate",
    "attention_factor": "attention_factor",
    "short_factor": "short_factors",
    "long_factor": "long_factors",
}
"""Their key -> our setting."""
USED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (
        "factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
        "attention_factor",
    ),
    "longrope": ("factor", "short_factor", "long_factor", "attention_factor"),
}  # fmt: skip
"""Keys that each kind reads."""
ORIGINAL = "original_max_position_embeddings"
KNOWN = {*NUMBERS, ORIGINAL, "rope_type", "type", "rope_theta", "partial_rotary_factor"}
HARMLESS = {"finetuned"}
"""Said by some models, read by nothing."""


def read_angles(
    config: Mapping[str, Any], *, kinds: Collection[str] = STRETCHES, partly: bool = False
) -> dict[str, Any]:
    """`rope_base`, `rope_share` and `rope_scaling` of a config.json of any age.

    Args:
        kinds: those that the architecture has.
        partly: whether its angles may turn a share of a head's columns only.
    Raises: UserError for what we cannot compute.
    """
    angles = said_angles(config)
    odd = sorted(set(angles) - KNOWN - HARMLESS)
    if odd:
        raise UserError(f"config.json: rope_parameters.{odd[0]}: unknown, and may change angles")
    theta = angles.get("rope_theta") or config.get("rope_theta") or BASE
    share = angles.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    if share != 1 and not partly:
        raise UserError(f"config.json: partial_rotary_factor {share}: 1 only, in this architecture")
    found = {"rope_base": whole_base(theta), "rope_share": float(share)}
    kind = kind_of(angles)
    if kind == "default":
        return found
    if kind not in kinds:
        known = ", ".join(("default", *kinds))
        raise UserError(f"config.json: rope_type {kind!r}: {known} only")
    return found | {"rope_scaling": read_scaling(angles, kind, config)}


def said_angles(config: Mapping[str, Any]) -> dict[str, Any]:
    """Newer files have all in `rope_parameters`; where `rope_scaling` stands too, it wins."""
    return dict(config.get("rope_scaling") or config.get("rope_parameters") or {})


def kind_of(angles: Mapping[str, Any]) -> str:
    """How angles are stretched; `default` is not at all."""
    return str(angles.get("rope_type") or angles.get("type") or "default")


def whole_base(theta: float) -> int:
    """The base as an integer; UserError where it is none."""
    if theta != int(theta):
        raise UserError(f"config.json: rope_theta {theta!r}: only whole numbers can be computed")
    return int(theta)


def read_scaling(angles: Mapping[str, Any], kind: str, config: Mapping[str, Any]) -> RopeScaling:
    """Our settings of one kind; UserError when a number is missing that it needs."""
    values: dict[str, Any] = {
        NUMBERS[key]: angles[key] for key in USED[kind] if angles.get(key) is not None
    }
    if kind != "linear":
        original = config.get(ORIGINAL) or angles.get(ORIGINAL)
        values["original_seq_len"] = original or config["max_position_embeddings"]
    scaling = RopeScaling(kind=kind, **values)  # type: ignore[arg-type]
    for name, sentence in scaling.problems():
        raise UserError(f"config.json: rope_parameters: {name} {sentence}")
    return scaling


def told_angles(model: ModelConfig) -> dict[str, Any]:
    """The way back, in the words of newer readers and of older ones."""
    theta, stretch = float(model.rope_base), told_scaling(model.rope_scaling)
    share = {"partial_rotary_factor": model.rope_share} if model.rope_share != 1 else {}
    return {
        "rope_parameters": {"rope_type": "default"} | stretch | {"rope_theta": theta} | share,
        "rope_scaling": stretch or None,
        "rope_theta": theta,
        **share,
    }


def told_scaling(scaling: RopeScaling | None) -> dict[str, Any]:
    """What their dictionary says of a scaling; empty where there is none."""
    if scaling is None:
        return {}
    found: dict[str, Any] = {"rope_type": scaling.kind}
    for key in USED[scaling.kind]:
        value = getattr(scaling, NUMBERS[key])
        if value is not None:
            found[key] = list(value) if isinstance(value, tuple) else value
    if scaling.kind != "linear":
        found[ORIGINAL] = scaling.original_seq_len
    return found
