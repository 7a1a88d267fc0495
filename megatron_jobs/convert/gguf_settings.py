"""GGUF's metadata of a model and Hugging Face's config.json: a table for each, read both ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from megatron_jobs.errors import DataError, UserError

Number = Literal["whole", "real", "bool"]


@dataclass(frozen=True)
class Setting:
    """One value under two names; GGUF's stands after `ARCHITECTURE.`."""

    gguf: str
    theirs: str
    number: Number = "whole"
    default: Any = None
    """Where metadata or config.json lacks it; None: see `needed`."""
    needed: bool = True


def _optional(gguf: str, theirs: str, number: Number = "whole", default: Any = None) -> Setting:
    return Setting(gguf, theirs, number, default, needed=False)


_SIZES = (
    Setting("block_count", "num_hidden_layers"),
    Setting("context_length", "max_position_embeddings"),
    Setting("embedding_length", "hidden_size"),
    Setting("feed_forward_length", "intermediate_size"),
    Setting("attention.head_count", "num_attention_heads"),
)
_GROUPS = (_optional("attention.head_count_kv", "num_key_value_heads"),)
_RMS = (Setting("attention.layer_norm_rms_epsilon", "rms_norm_eps", "real"),)
_HEAD = (_optional("attention.key_length", "head_dim"),)
_WINDOW = (_optional("attention.sliding_window", "sliding_window"),)
_BASE = (*_SIZES, *_GROUPS, *_RMS)
_EXPERTS = (
    Setting("expert_count", "num_experts"),
    Setting("expert_used_count", "num_experts_per_tok"),
    Setting("expert_feed_forward_length", "moe_intermediate_size"),
)
_SOFTCAPS = (
    _optional("attn_logit_softcapping", "attn_logit_softcapping", "real"),
    _optional("final_logit_softcapping", "final_logit_softcapping", "real"),
)
_DEEPSEEK2 = (
    *(*_SIZES, *_RMS),
    _optional("attention.q_lora_rank", "q_lora_rank"),
    Setting("attention.kv_lora_rank", "kv_lora_rank"),
    Setting("rope.dimension_count", "qk_rope_head_dim"),
    Setting("leading_dense_block_count", "first_k_dense_replace", default=0),
    Setting("expert_count", "n_routed_experts"),
    Setting("expert_used_count", "num_experts_per_tok"),
    Setting("expert_shared_count", "n_shared_experts", default=0),
    Setting("expert_feed_forward_length", "moe_intermediate_size"),
    Setting("expert_weights_scale", "routed_scaling_factor", "real", 1.0),
    Setting("expert_weights_norm", "norm_topk_prob", "bool", default=False),
)
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "llama": (*_BASE, *_HEAD),
    "mistral": (*_BASE, *_HEAD, *_WINDOW),
    "mixtral": (
        *(*_BASE, *_HEAD, *_WINDOW),
        Setting("expert_count", "num_local_experts"),
        Setting("expert_used_count", "num_experts_per_tok"),
    ),
    "qwen2": _BASE,
    "qwen3": (*_BASE, *_HEAD),
    "qwen2_moe": (
        *(*_BASE, *_EXPERTS),
        Setting("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
    ),
    "qwen3_moe": (*_BASE, *_HEAD, *_EXPERTS),
    "gemma2": (*_BASE, *_HEAD, *_WINDOW, *_SOFTCAPS),
    "gemma3_text": (*_BASE, *_HEAD, *_WINDOW, _SOFTCAPS[1]),
    "phi3": (*_BASE, *_WINDOW),
    "olmo2": _BASE,
    "gpt2": (
        Setting("block_count", "n_layer"),
        Setting("context_length", "n_positions"),
        Setting("embedding_length", "n_embd"),
        Setting("feed_forward_length", "n_inner"),
        Setting("attention.head_count", "n_head"),
        Setting("attention.layer_norm_epsilon", "layer_norm_epsilon", "real"),
    ),
    "gpt_neox": (
        *_SIZES,
        Setting("attention.layer_norm_epsilon", "layer_norm_eps", "real"),
        Setting("use_parallel_residual", "use_parallel_residual", "bool"),
    ),
    "deepseek_v2": _DEEPSEEK2,
    "deepseek_v3": _DEEPSEEK2,
    "bert": (
        *_SIZES,
        Setting("attention.layer_norm_epsilon", "layer_norm_eps", "real", 1e-12),
    ),
    "t5": (
        Setting("block_count", "num_layers"),
        _optional("decoder_block_count", "num_decoder_layers"),
        Setting("context_length", "n_positions", default=512),
        Setting("embedding_length", "d_model"),
        Setting("feed_forward_length", "d_ff"),
        Setting("attention.head_count", "num_heads"),
        Setting("attention.key_length", "d_kv"),
        Setting("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", "real", 1e-6),
        Setting("attention.relative_buckets_count", "relative_attention_num_buckets", default=32),
        Setting("decoder_start_token_id", "decoder_start_token_id", default=0),
    ),
}
"""model_type -> what stands in its metadata and in its config.json."""
FIXED: dict[str, dict[str, Any]] = {
    "llama": {"hidden_act": "silu"},
    "mistral": {"hidden_act": "silu"},
    "mixtral": {"hidden_act": "silu"},
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False},
    "qwen3": {"hidden_act": "silu", "use_sliding_window": False, "attention_bias": False},
    "qwen2_moe": {
        **{"hidden_act": "silu", "use_sliding_window": False, "norm_topk_prob": False},
        **{"decoder_sparse_step": 1, "mlp_only_layers": []},
    },
    "qwen3_moe": {
        **{"hidden_act": "silu", "use_sliding_window": False, "norm_topk_prob": True},
        **{"decoder_sparse_step": 1, "mlp_only_layers": [], "attention_bias": False},
    },
    "gemma2": {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
    "gemma3_text": {
        **{"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False},
        **{"attn_logit_softcapping": None, "use_bidirectional_attention": False},
    },
    "phi3": {"hidden_act": "silu"},
    "olmo2": {"hidden_act": "silu", "attention_bias": False},
    "gpt2": {"activation_function": "gelu_new"},
    "gpt_neox": {"hidden_act": "gelu", "attention_bias": True},
    "deepseek_v2": {"hidden_act": "silu", "attention_bias": False, "rms_norm_eps": 1e-6},
    "deepseek_v3": {"hidden_act": "silu", "attention_bias": False, "rms_norm_eps": 1e-6},
    "bert": {"hidden_act": "gelu"},
    "t5": {"relative_attention_max_distance": 128},
}
"""model_type -> what llama.cpp computes whatever the metadata says."""
OLDER = {"num_experts": "num_local_experts"}
"""Names that config.json may have in place of others."""
PREFIX_OF_EXPERTS = "llama.expert_count"
SIGMOID = 2
"""Of expert_gating_func."""


def model_type_of(metadata: Mapping[str, Any], names: Mapping[str, str], where: str) -> str:
    """config.json's model_type of a file's general.architecture; UserError when it has no table.

    Args:
        names: model_type -> architecture.
    """
    architecture = metadata.get("general.architecture")
    if architecture == "llama" and metadata.get(PREFIX_OF_EXPERTS):
        return "mixtral"
    if architecture == "llama" and metadata.get("llama.attention.sliding_window"):
        return "mistral"
    if architecture == "deepseek2" and metadata.get("deepseek2.expert_gating_func") == SIGMOID:
        return "deepseek_v3"
    for model_type, name in names.items():
        if name == architecture:
            return model_type
    known = ", ".join(sorted(set(names.values())))
    raise UserError(f"{where}: general.architecture {architecture!r}: no table; there are {known}")


def settings_of(metadata: Mapping[str, Any], prefix: str, model_type: str, where: str) -> Any:
    """What the table says of a file's metadata, as config.json has it.

    Raises: DataError when something is missing or no number; UserError for what differs by layer.
    """
    config: dict[str, Any] = {"model_type": model_type, **FIXED[model_type]}
    for setting in SETTINGS[model_type]:
        key = f"{prefix}.{setting.gguf}"
        value = metadata.get(key, setting.default)
        if value is None and setting.needed:
            raise DataError(f"{where}: metadata: {key} is missing")
        if value is not None:
            config[setting.theirs] = _checked(value, setting.number, f"{where}: {key}")
    return config


def _checked(value: Any, number: Number, where: str) -> Any:
    if isinstance(value, np.ndarray):
        found = np.unique(value)
        if len(found) != 1:
            raise UserError(f"{where}: differs by layer, from {found.min()} to {found.max()}")
        value = found[0].item()
    fits: dict[Number, tuple[type, ...]] = {"whole": (int,), "real": (int, float), "bool": (bool,)}
    if not isinstance(value, fits[number]) or (number != "bool" and isinstance(value, bool)):
        raise DataError(f"{where}: found {value!r}, which is no {number} number")
    if isinstance(value, int) and not 0 <= value < 1 << 31:
        raise DataError(f"{where}: found {value}, which no model has")
    return value


def metadata_of(config: Mapping[str, Any], prefix: str, model_type: str) -> dict[str, Any]:
    """The way back: numpy numbers of the types that llama.cpp reads.

    Raises: UserError, naming the key, for a variant that llama.cpp does not compute.
    """
    _check_fixed(config, model_type)
    found: dict[str, Any] = {}
    numbers = {"whole": np.uint32, "real": np.float32, "bool": np.bool_}
    for setting in SETTINGS[model_type]:
        value = config.get(
            setting.theirs, config.get(OLDER.get(setting.theirs, ""), setting.default)
        )
        if value is None and setting.needed:
            raise UserError(f"config.json: {setting.theirs}: missing; GGUF has to say it")
        if value is not None:
            found[f"{prefix}.{setting.gguf}"] = numbers[setting.number](value)
    return found


def _check_fixed(config: Mapping[str, Any], model_type: str) -> None:
    for key, wanted in FIXED[model_type].items():
        found = config.get(key, wanted)
        if found != wanted:
            rule = f"in GGUF a {model_type} has {wanted!r}"
            raise UserError(f"config.json: {key}: found {found!r}; {rule}")
