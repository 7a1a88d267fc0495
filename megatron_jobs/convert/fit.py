"""Whether a model of ours can be told in the config.json of an architecture."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.settings import Settings
from megatron_jobs.errors import UserError

SIZES = frozenset(
    {
        "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab_size", "pad_vocab_to",
        "seq_len", "rope_base", "norm_eps", "tied", "init_std", "dropout", "attention_dropout",
        "experts_per_token", "balance_loss", "expert_ffn", "router",
        "relative_buckets", "relative_distance",
    }
)  # fmt: skip
"""Settings that every architecture has, and such as mean nothing without another that it lacks."""


def unusual(
    model: Settings, fixed: Mapping[str, object] | None = None, *, free: frozenset[str] = SIZES
) -> str:
    """The first setting, with its value, that an architecture cannot have; nothing if none.

    Args:
        fixed: settings that have one value there; all others must have their default, so that a
            setting which is new to `ModelConfig` fits no architecture until it says so.
        free: settings of which config.json tells any value.
    """
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        wanted = (fixed or {}).get(name, field.default)
        if name not in free and value != wanted:
            return f"{name} {value}"
    return ""


def only(config: Mapping[str, Any], **known: object) -> None:
    """UserError, naming the key, when config.json gives one of them another value than ours.

    A key that is missing or null has the value that we know.
    """
    for key, value in known.items():
        found = config.get(key)
        if found is not None and found != value:
            raise UserError(f"config.json: {key} {found!r}: only {value!r} can be computed")
