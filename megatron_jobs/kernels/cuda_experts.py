"""Mixtures of experts on CUDA. T tokens, E experts, K that a token visits, P places, H columns.

Places are tokens' visits in the order of experts. Sums are taken in the order of visits, without
atomics: two runs give the same bits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from megatron_jobs.kernels.cuda import at, like, numbers, place
from megatron_jobs.kernels.native import CODES, cuda

FP32, INT64 = (torch.float32,), (torch.int64,)


class Route(NamedTuple):
    """How experts are chosen and weighed."""

    visits: int
    """K."""
    sigmoid: bool = False
    """The score is the logistic function of each logit, not their softmax."""
    normalized: bool = False
    """Weights of a token add up to the scale."""
    scale: float = 1.0


def choose(logits_TE: Tensor, route: Route, bias_E: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights fp32 and experts int64 [T, K], the best first; of equals the first.

    Args:
        logits_TE: [T, E], E at most 512.
        bias_E: fp32 [E], added for the choice alone.
    """
    tokens, experts = logits_TE.shape
    weights = logits_TE.new_empty(tokens, route.visits, dtype=torch.float32)
    chosen = logits_TE.new_empty(tokens, route.visits, dtype=torch.int64)
    cuda().router_forward(
        at("logits", logits_TE),
        at("bias", bias_E, dtypes=FP32, shape=(experts,)),
        weights.data_ptr(),
        chosen.data_ptr(),
        shape=[tokens, experts, route.visits],
        sigmoid=route.sigmoid,
        normalized=route.normalized,
        scale=route.scale,
        **numbers(logits_TE),
    )
    return weights, chosen


def choose_backward(
    dweights_TK: Tensor, logits_TE: Tensor, chosen_TK: Tensor, route: Route
) -> Tensor:
    """Gradient of the logits."""
    tokens, experts = logits_TE.shape
    visits = (tokens, route.visits)
    dlogits = torch.empty_like(logits_TE)
    cuda().router_backward(
        at("logits", logits_TE),
        at("dweights", dweights_TK, dtypes=FP32, shape=visits),
        at("chosen", chosen_TK, dtypes=INT64, shape=visits),
        dlogits.data_ptr(),
        shape=[tokens, experts, route.visits],
        sigmoid=route.sigmoid,
        normalized=route.normalized,
        scale=route.scale,
        **numbers(logits_TE),
    )
    return dlogits


def gather_rows(x_TH: Tensor, source_P: Tensor) -> Tensor:
    """[P, H]: row source[p] of x; zeros where that is -1. Other numbers are not checked."""
    out = x_TH.new_empty(source_P.numel(), x_TH.size(1))
    cuda().gather_rows(
        at("x", x_TH),
        at("source", source_P, dtypes=INT64, shape=(source_P.numel(),)),
        out.data_ptr(),
        rows=out.size(0),
        columns=out.size(1),
        **numbers(x_TH),
    )
    return out


def combine(x_PH: Tensor, places_TK: Tensor, weights_TK: Tensor | None) -> Tensor:
    """[T, H]: the sum over k of weights[t, k] * x[places[t, k]]; a place of -1 counts nothing.

    Args:
        weights_TK: fp32; None: 1.
    """
    tokens, visits = places_TK.shape
    y = x_PH.new_empty(tokens, x_PH.size(1))
    cuda().combine_forward(
        at("x", x_PH),
        at("places", places_TK, dtypes=INT64),
        at("weights", weights_TK, dtypes=FP32, shape=(tokens, visits)),
        y.data_ptr(),
        tokens=tokens,
        visits=visits,
        columns=x_PH.size(1),
        **numbers(x_PH),
    )
    return y


def combine_backward(
    dy_TH: Tensor, x_PH: Tensor, places_TK: Tensor, weights_TK: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and of the weights, where there are any; 0 for places that no token has."""
    tokens, visits = places_TK.shape
    dx = torch.zeros_like(x_PH)
    dweights = None if weights_TK is None else torch.empty_like(weights_TK)
    cuda().combine_backward(
        at("dy", dy_TH, **like(x_PH, shape=(tokens, x_PH.size(1)))),
        at("x", x_PH),
        at("places", places_TK, dtypes=INT64),
        at("weights", weights_TK, dtypes=FP32, shape=(tokens, visits)),
        dx.data_ptr(),
        0 if dweights is None else dweights.data_ptr(),
        tokens=tokens,
        visits=visits,
        columns=x_PH.size(1),
        dtype=CODES[x_PH.dtype],
        **place(x_PH),
    )
    return dx, dweights
