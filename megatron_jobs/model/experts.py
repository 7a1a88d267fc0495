"""Mixtures of experts: how tokens are dealt to them.

T tokens, E experts, G groups of experts, K experts that a token visits.
"""

from functools import partial
from typing import Any

import torch
from megatron.core.transformer.mlp import MLPSubmodules
from megatron.core.transformer.moe.moe_layer import MoESubmodules
from megatron.core.transformer.moe.moe_utils import compute_routing_scores_for_aux_loss
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.transformer.moe.shared_experts import SharedExpertMLP
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.kernels.experts import choose_experts
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.model.deal import Experts, MixedLayer


def choose(
    logits_TE: Tensor, rules: RouterConfig, count: int, bias_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The experts that each token visits, and how they are weighed.

    Args:
        logits_TE: [T, E] of the router.
        count: K.
        bias_E: [E], added when choosing and not when weighing.
    Returns: weights [T, K] fp32, experts [T, K] int64, in no order.
    Source: DeepSeek-AI 2024, arXiv:2412.19437, equations 12 to 16, and arXiv:2405.04434, 2.2.2.
    """
    return choose_experts(logits_TE, route_of(rules, count), bias_E)


def route_of(rules: RouterConfig, count: int) -> Route:
    """As `kernels` take it."""
    return Route(
        visits=count,
        sigmoid=rules.score == "sigmoid",
        normalized=rules.normalize,
        scale=rules.scale,
        groups=rules.groups,
        groups_chosen=rules.groups_per_token,
        judges=2 if rules.groups > 1 and rules.group_score == "top2" else 1,
    )


class Router(TopKRouter):  # type: ignore[misc]
    """megatron-core's router with the choice of `choose`, in one pass.

    Its own has no group that is as good as its best expert, and always normalises a sigmoid.
    """

    def __init__(self, *, rules: RouterConfig, **given: Any) -> None:
        super().__init__(**given)
        self.rules = rules

    def routing(self, logits: Tensor, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weights [T, E], zero where a token does not go, and bool [T, E] where it goes."""
        assert padding_mask is None, "tokens that are no tokens are not known here"
        logits_TE = logits.view(-1, self.num_experts)
        weights, experts = choose(logits_TE, self.rules, self.topk, self.expert_bias)
        empty = torch.zeros_like(logits_TE)
        weights_TE = empty.scatter(1, experts, weights.to(empty.dtype))
        goes_TE = empty.bool().scatter(1, experts, value=True)
        if self.training and torch.is_grad_enabled() and self.is_aux_loss_enabled():
            busy, scores = compute_routing_scores_for_aux_loss(
                logits_TE, self.topk, self.score_function
            )
            weights_TE = self._apply_aux_loss(weights_TE, scores, busy)
        self._apply_expert_bias(goes_TE)
        return weights_TE, goes_TE


def experts_spec(model: ModelConfig, block: MLPSubmodules) -> Any:
    """What builds a router, experts made of `block`, and the block beside them."""
    router = partial(Router, rules=model.router)
    shared = partial(SharedExpertMLP, submodules=block) if model.shared_ffn else None
    experts = partial(Experts, submodules=block)
    submodules = MoESubmodules(experts=experts, shared_experts=shared, router=router)
    return partial(MixedLayer, submodules=submodules)


def expert_settings(model: ModelConfig) -> dict[str, Any]:
    """megatron-core's settings of a mixture of experts; nothing for a dense model."""
    if not model.experts:
        return {}
    rules = model.router
    settings: dict[str, Any] = {
        "num_moe_experts": model.experts,
        "moe_ffn_hidden_size": model.expert_size(),
        "moe_router_topk": model.experts_per_token,
        "moe_token_dispatcher_type": "alltoall",
        "moe_router_load_balancing_type": "aux_loss" if model.balance_loss else "none",
        "moe_aux_loss_coeff": model.balance_loss,
        "moe_router_score_function": rules.score,
        "moe_router_pre_softmax": True,  # as `choose` has it, which normalises after
        "moe_router_topk_scaling_factor": rules.scale if rules.scale != 1 else None,
        "moe_router_enable_expert_bias": rules.bias,
        "moe_router_dtype": "fp32" if rules.fp32 else None,
        "moe_shared_expert_intermediate_size": model.shared_ffn or None,
        "moe_shared_expert_gate": model.shared_gate,
    }
    if model.dense_layers:  # each layer then has keys of its own in a checkpoint
        settings["moe_layer_freq"] = [int(model.has_experts(n)) for n in range(model.layers)]
    return settings
