"""Mixtures of experts on CUDA. T tokens, E experts, K that a token visits, P places, H columns.

Places are tokens' visits in the order of experts. Sums are taken in the order of visits, without
atomics: two runs give the same bits.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels.cuda import at, like, numbers, place
from megatron_jobs.kernels.experts_ops import Route, deal_by_sort
from megatron_jobs.kernels.native import CODES, cuda
from megatron_jobs.kernels.ops import run_on_cuda

FP32, INT64 = (torch.float32,), (torch.int64,)


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
        **rule(logits_TE, route),
    )
    return weights, chosen


def choose_backward(
    dweights_TK: Tensor, logits_TE: Tensor, chosen_TK: Tensor, route: Route
) -> Tensor:
    """Gradient of the logits."""
    visits = (logits_TE.size(0), route.visits)
    dlogits = torch.empty_like(logits_TE)
    cuda().router_backward(
        at("logits", logits_TE),
        at("dweights", dweights_TK, dtypes=FP32, shape=visits),
        at("chosen", chosen_TK, dtypes=INT64, shape=visits),
        dlogits.data_ptr(),
        **rule(logits_TE, route),
    )
    return dlogits


def rule(logits_TE: Tensor, route: Route) -> dict[str, Any]:
    """Sizes, kinds, dtype and stream, as the extension takes them."""
    return {
        "shape": [*logits_TE.shape, route.visits],
        "sigmoid": route.sigmoid,
        "normalized": route.normalized,
        "scale": route.scale,
        "groups": [route.groups, route.groups_chosen, route.judges],
    } | numbers(logits_TE)


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


def choose_experts(logits_TE: Tensor, bias_E: Tensor | None, *route: Any) -> tuple[Tensor, Tensor]:
    """The operator `choose_experts`."""
    return choose(logits_TE, Route(*route), bias_E)


def choose_experts_backward(
    dweights_TK: Tensor, logits_TE: Tensor, chosen_TK: Tensor, *route: Any
) -> Tensor:
    """The operator `choose_experts_backward`."""
    return choose_backward(dweights_TK, logits_TE, chosen_TK, Route(*route))


def bring_rows(
    x_TH: Tensor, source_P: Tensor, places_TK: Tensor, rows: Sequence[int]
) -> list[Tensor]:
    """The operator `bring_rows`: chunks are parts of one tensor."""
    return list(torch.split(gather_rows(x_TH, source_P), list(rows)))


def collect_rows(chunks: Sequence[Tensor], places_TK: Tensor, weights_TK: Tensor | None) -> Tensor:
    """The operator `collect_rows`."""
    return combine(joined(chunks), places_TK, weights_TK)


def collect_rows_backward(
    dy_TH: Tensor, chunks: Sequence[Tensor], places_TK: Tensor, weights_TK: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """The operator `collect_rows_backward`."""
    dx, dweights = combine_backward(dy_TH, joined(chunks), places_TK, weights_TK)
    rows = [chunk.size(0) for chunk in chunks]
    return list(torch.split(dx, rows)), dy_TH.new_empty(0) if dweights is None else dweights


def joined(chunks: Sequence[Tensor]) -> Tensor:
    """All rows in one tensor: the kernels know no other."""
    return chunks[0] if len(chunks) == 1 else torch.cat(list(chunks))


run_on_cuda("choose_experts", choose_experts)
run_on_cuda("choose_experts_backward", choose_experts_backward)
run_on_cuda("deal_visits", deal_by_sort)
run_on_cuda("bring_rows", bring_rows)
run_on_cuda("collect_rows", collect_rows)
run_on_cuda("collect_rows_backward", collect_rows_backward)
