"""What the arguments of a Megatron-LM training say of experts.

Source: megatron-core, transformer/moe/moe_utils.py, topk_routing_with_score_function and
group_limited_topk.
"""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.errors import UserError

GROUP_SCORES = {1: "max", 2: "top2"}
"""By how many experts of a group megatron-core adds up."""


def expert_settings(args: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `ModelConfig`; none for a dense model."""
    experts = args.get("num_experts") or args.get("num_moe_experts")
    if not experts:
        return {}
    for name in ("moe_expert_capacity_factor", "moe_latent_size"):
        if args.get(name) is not None:
            raise UserError(f"{name} {args[name]}: cannot be computed here; none can")
    balanced = args.get("moe_router_load_balancing_type", "aux_loss") == "aux_loss"
    loss = args.get("moe_aux_loss_coeff", 0.0)
    return {
        "experts": experts,
        "experts_per_token": args.get("moe_router_topk", 2),
        "expert_ffn": args.get("moe_ffn_hidden_size"),
        "shared_ffn": args.get("moe_shared_expert_intermediate_size") or 0,
        "shared_gate": bool(args.get("moe_shared_expert_gate")),
        "balance_loss": loss if balanced and isinstance(loss, int | float) else 0.0,
        "dense_layers": _dense_layers(args),
        "router": _router(args),
    }


def _dense_layers(args: Mapping[str, Any]) -> tuple[int, ...]:
    """Every layer that `moe_layer_freq` leaves out: one in so many has experts, or a list."""
    often, layers = args.get("moe_layer_freq", 1), args["num_layers"]
    if isinstance(often, int):
        return tuple(layer for layer in range(layers) if layer % often)
    if len(often) != layers:
        raise UserError(f"moe_layer_freq: names {len(often)} layers of {layers}")
    return tuple(layer for layer in range(layers) if not often[layer])


def _router(args: Mapping[str, Any]) -> dict[str, Any]:
    score = args.get("moe_router_score_function", "softmax")
    if score not in ("softmax", "sigmoid"):
        raise UserError(f"moe_router_score_function {score}: softmax and sigmoid can be computed")
    found: dict[str, Any] = {
        "score": score,
        "normalize": score == "sigmoid" or not args.get("moe_router_pre_softmax"),
        "scale": args.get("moe_router_topk_scaling_factor") or 1.0,
        "bias": bool(args.get("moe_router_enable_expert_bias")),
        "fp32": args.get("moe_router_dtype") is not None,
    }
    groups, chosen = args.get("moe_router_num_groups"), args.get("moe_router_group_topk")
    if groups and groups > 1 and chosen:
        summed = args.get("moe_router_topk", 2) // chosen
        if summed not in GROUP_SCORES:
            raise UserError(f"moe_router_group_topk {chosen}: groups would be scored by {summed}")
        scored = GROUP_SCORES[summed]
        found |= {"groups": groups, "groups_per_token": chosen, "group_score": scored}
    return found
