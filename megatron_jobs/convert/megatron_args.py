"""The arguments of a Megatron-LM training, as the settings of a model of ours.

Source: Megatron-LM, megatron/training/arguments.py; what they mean, megatron-core's
transformer_config.py.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.settings import all_problems
from megatron_jobs.convert.megatron_experts import expert_settings
from megatron_jobs.errors import DataError, UserError

Args = Mapping[str, Any]
ONLY: dict[str, tuple[Any, ...]] = {
    "apply_residual_connection_post_layernorm": (None, False),
    "squared_relu": (None, False), "quick_geglu": (None, False), "qk_l2_norm": (None, False),
    "attention_output_gate": (None, False), "softmax_type": (None, "vanilla"),
    "heterogeneous_layers_config_path": (None,), "mtp_num_layers": (None, 0),
    "experimental_attention_variant": (None,), "hybrid_layer_pattern": (None, ""),
    "hybrid_override_pattern": (None, ""), "is_hybrid_model": (None, False),
    "linear_attention_freq": (None,), "no_rope_freq": (None,),
    "rotary_seq_len_interpolation_factor": (None, 1), "encoder_num_layers_t5": (None,),
    "glu_linear_offset": (None, 0, 0.0), "activation_func_clamp_value": (None,),
    "retro_add_retriever": (None, False), "use_kitchen": (None, False),
}  # fmt: skip
"""Arguments whose other values we cannot compute."""
MOST_LAYERS = 4096
"""And experts."""
POSITIONS = {"rope": "rope", "yarn": "rope", "learned_absolute": "learned"}
NORMS = {"LayerNorm": "layernorm", "RMSNorm": "rmsnorm"}


def model_of_args(args: Args, where: str) -> ModelConfig:
    """The settings that arguments say; `where` begins every error.

    Raises: UserError, naming the argument, for a model that we cannot compute; DataError when one
        is missing or cannot be true.
    """
    try:
        model = ModelConfig(**_settings(args))
    except KeyError as error:
        raise DataError(f"{where}: args: {error.args[0]}: missing") from error
    except ValidationError as error:
        (first, *_) = error.errors()
        name = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{where}: args: {name}: found {first['input']!r}: {first['msg']}"
        ) from error
    except UserError as error:
        raise UserError(f"{where}: args: {error}") from error
    except (TypeError, ValueError, ArithmeticError, IndexError, AttributeError) as error:
        raise DataError(f"{where}: args: not those of a model: {error}") from error
    for setting, sentence in all_problems(model):
        raise DataError(f"{where}: args: {setting}: {sentence}")
    return model


def _settings(args: Args) -> dict[str, Any]:
    for name, allowed in ONLY.items():
        check_only(args, name, allowed)
    for name in ("num_layers", "num_experts"):
        if args.get(name) is not None and not 0 <= args[name] <= MOST_LAYERS:
            raise ValueError(f"{name} {str(args[name])[:100]}")
    rotary = args.get("use_rotary_position_embeddings") and "position_embedding_type" not in args
    position = "rope" if rotary else args.get("position_embedding_type") or "learned_absolute"
    check_only({"position_embedding_type": position}, "position_embedding_type", tuple(POSITIONS))
    norm = args.get("normalization") or "LayerNorm"
    check_only({"normalization": norm}, "normalization", tuple(NORMS))
    heads = args["num_attention_heads"]
    grouped = args.get("group_query_attention")
    return {
        "layers": args["num_layers"],
        "hidden": args["hidden_size"],
        "heads": heads,
        "kv_heads": args["num_query_groups"] if grouped else heads,
        "head_dim": args.get("kv_channels"),
        "ffn": args.get("ffn_hidden_size"),
        "seq_len": args.get("max_position_embeddings") or args["seq_length"],
        "position": POSITIONS[position],
        "norm": NORMS[norm],
        "norm_eps": args.get("norm_epsilon") or args.get("layernorm_epsilon") or 1e-5,
        "norm_offset": bool(args.get("apply_layernorm_1p")),
        "activation": _activation(args),
        "bias": has_bias(args),
        "qkv_bias": bool(args.get("add_qkv_bias")),
        "tied": not args.get("untie_embeddings_and_output_weights", False),
        "qk_norm": bool(args.get("qk_layernorm")) and not args.get("multi_latent_attention"),
        "attention_scale": args.get("softmax_scale"),
        "dropout": args.get("hidden_dropout", 0.0),
        "attention_dropout": args.get("attention_dropout", 0.0),
        "init_std": args.get("init_method_std", 0.02),
        **_vocabulary(args),
        **_angles(args, position),
        **_window(args),
        **_latent(args),
        **expert_settings(args),
    }


def check_only(args: Args, name: str, allowed: tuple[Any, ...]) -> None:
    """UserError unless an argument has one of the values that we can compute."""
    if args.get(name) not in allowed:
        known = ", ".join(str(value) for value in allowed if value is not None) or "none"
        raise UserError(f"{name} {str(args[name])[:100]}: cannot be computed here; {known} can")


def has_bias(args: Args) -> bool:
    """Whether linear layers add one; the argument was once its opposite."""
    if "add_bias_linear" in args:
        return bool(args["add_bias_linear"])
    return not args.get("disable_bias_linear", False)


def _activation(args: Args) -> str:
    """With a bias Megatron fuses the two unless told not to, and that kernel approximates gelu."""
    if args.get("swiglu"):
        return "swiglu"
    fused = args.get("bias_gelu_fusion", True) and has_bias(args)
    return "gelu_tanh" if fused or args.get("openai_gelu") else "gelu"


def _vocabulary(args: Args) -> dict[str, Any]:
    """Tokens, and the multiple that gives the rows that there are."""
    padded = args["padded_vocab_size"] if args.get("padded_vocab_size") else args["vocab_size"]
    tokens = args.get("vocab_size") or padded
    multiple = args.get("make_vocab_size_divisible_by", 128)
    multiple *= args.get("tensor_model_parallel_size", 1)
    fits = -(-tokens // multiple) * multiple == padded
    return {"vocab_size": tokens, "pad_vocab_to": multiple if fits else padded}


def _angles(args: Args, position: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rope_base": int(args.get("rotary_base") or 10000),
        "rope_share": args.get("rotary_percent", 1.0),
        "rope_interleaved": bool(args.get("rotary_interleaved")),
    }
    if args.get("use_rope_scaling"):
        factor = args.get("rope_scaling_factor") or 8.0
        found["rope_scaling"] = {"kind": "llama3", "factor": factor, "original_seq_len": 8192}
    yarn = position == "yarn" or (
        args.get("multi_latent_attention") and (args.get("rope_type") or "yarn") == "yarn"
    )
    factor = args.get("rotary_scaling_factor", args.get("yarn_rotary_scaling_factor", 1.0))
    if yarn and factor != 1:
        found["rope_scaling"] = {
            "kind": "yarn",
            "factor": factor,
            "original_seq_len": args.get("original_max_position_embeddings", 4096),
            "beta_fast": args.get("beta_fast", 32.0),
            "beta_slow": args.get("beta_slow", 1.0),
            "mscale": args.get("mscale", 1.0),
            "mscale_all_dim": args.get("mscale_all_dim", 0.0),
        }
    return found


def _window(args: Args) -> dict[str, Any]:
    """(before, after) of Megatron-LM do not count the token itself."""
    size: Any = args.get("window_size")
    skip: Any = args.get("window_attn_skip_freq")
    if size is None or size[0] < 0:
        return {}
    layers = range(args["num_layers"])
    if isinstance(skip, int) and not isinstance(skip, bool):
        full = tuple(layer for layer in layers if (layer + 1) % skip == 0)
    else:
        full = tuple(layer for layer in layers if skip and not skip[layer])
    return {"window": size[0] + 1, "full_layers": full}


def _latent(args: Args) -> dict[str, Any]:
    if not args.get("multi_latent_attention"):
        return {}
    latent = LatentAttention(
        q_rank=args.get("q_lora_rank"),
        kv_rank=args["kv_lora_rank"],
        nope_dim=args["qk_head_dim"],
        rope_dim=args["qk_pos_emb_head_dim"],
        value_dim=args["v_head_dim"],
        norm_eps=args.get("norm_epsilon") or args.get("layernorm_epsilon") or 1e-5,
    )
    return {"latent": latent, "rope_interleaved": True, "kv_heads": None, "head_dim": None}
