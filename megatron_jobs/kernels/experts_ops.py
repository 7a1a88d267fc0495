"""Operators of mixtures of experts. T tokens, E experts, K that a token visits, H columns.

    choose_experts(logits, bias?, route) -> (weights, experts)
    choose_experts_backward(dweights, logits, experts, route) -> dlogits
    deal_visits(goes, visits) -> (source, places, experts)
    bring_rows(x, source, places, rows) -> chunks
    collect_rows(chunks, places, weights?) -> y
    collect_rows_backward(dy, chunks, places, weights?) -> (dchunks, dweights)

A place is a visit, P = T x K of them in the order of experts; chunks are tensors whose rows are
places, one after the other. `route` is a `Route`, a number after the other. Sums are taken in the
order of visits: for any number of threads results are the same bit for bit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate

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
    groups: int = 1
    """Equal groups of neighbouring experts."""
    groups_chosen: int = 1
    """How many of them a token may visit."""
    judges: int = 1
    """1 or 2: how many of its experts, the best, say how good a group is."""


def outputs_of_choice(
    logits_TE: Tensor, bias_E: Tensor | None, visits: int, *_: Any
) -> tuple[Tensor, Tensor]:
    """Empty weights and experts."""
    shape = (logits_TE.size(0), visits)
    weights = logits_TE.new_empty(shape, dtype=torch.float32)
    return weights, logits_TE.new_empty(shape, dtype=torch.int64)


def choose_on_cpu(logits_TE: Tensor, bias_E: Tensor | None, *route: Any) -> tuple[Tensor, Tensor]:
    """The operator `choose_experts`."""
    logits = checked("logits", logits_TE)
    bias = 0
    if bias_E is not None:
        bias = checked("bias", bias_E, dtypes=FP32, shape=logits_TE.shape[1:])
    weights, chosen = outputs_of_choice(logits_TE, bias_E, *route)
    rule = router_rule(logits_TE, Route(*route))
    cpu().router_forward(logits, bias, weights.data_ptr(), chosen.data_ptr(), rule)
    return weights, chosen


def output_of_slope(dweights: Tensor, logits_TE: Tensor, *_: Any) -> Tensor:
    """Empty gradient of the logits."""
    return torch.empty_like(logits_TE)


def slope_on_cpu(dweights_TK: Tensor, logits_TE: Tensor, chosen_TK: Tensor, *route: Any) -> Tensor:
    """The operator `choose_experts_backward`."""
    shape = (logits_TE.size(0), Route(*route).visits)
    inputs = (
        checked("logits", logits_TE),
        checked("dweights", dweights_TK, dtypes=FP32, shape=shape),
        checked("chosen", chosen_TK, dtypes=INT64, shape=shape),
    )
    dlogits = torch.empty_like(logits_TE)
    cpu().router_backward(*inputs, dlogits.data_ptr(), router_rule(logits_TE, Route(*route)))
    return dlogits


def router_rule(logits_TE: Tensor, route: Route) -> Any:
    """As the extension takes it."""
    return cpu().RouterRule(
        shape=[*logits_TE.shape, route.visits],
        groups=[route.groups, route.groups_chosen, route.judges],
        dtype=CODES[logits_TE.dtype],
        sigmoid=route.sigmoid,
        normalized=route.normalized,
        scale=route.scale,
        threads=torch.get_num_threads(),
    )


def outputs_of_deal(goes_TE: Tensor, visits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Empty source, places and experts."""
    tokens = goes_TE.size(0)
    source = goes_TE.new_empty(tokens * visits, dtype=torch.int64)
    return source, source.new_empty(tokens, visits), source.new_empty(tokens, visits)


def deal_on_cpu(goes_TE: Tensor, visits: int) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `deal_visits`."""
    goes = checked("goes", goes_TE, dtypes=(torch.bool,))
    found = outputs_of_deal(goes_TE, visits)
    addresses = (tensor.data_ptr() for tensor in found)
    cpu().deal_visits(goes, *addresses, shape=[*goes_TE.shape, visits])
    return found


def deal_by_sort(goes_TE: Tensor, visits: int) -> tuple[Tensor, Tensor, Tensor]:
    """What `deal_visits` gives, in plain torch: on a GPU nothing is waited for."""
    tokens = goes_TE.size(0)
    count = tokens * visits
    order = goes_TE.t().reshape(-1).argsort(descending=True, stable=True)[:count]
    source, experts = order % max(1, tokens), order // max(1, tokens)
    visit = source * visits + (goes_TE.long().cumsum(1)[source, experts] - 1)
    places = torch.empty_like(source).scatter(0, visit, torch.arange(count, device=order.device))
    chosen = torch.empty_like(source).scatter(0, visit, experts)
    return source, places.view(tokens, visits), chosen.view(tokens, visits)


def outputs_of_bring(
    x_TH: Tensor, source_P: Tensor, places_TK: Tensor, rows: Sequence[int]
) -> list[Tensor]:
    """Empty chunks."""
    return [x_TH.new_empty(count, x_TH.size(1)) for count in rows]


def bring_on_cpu(
    x_TH: Tensor, source_P: Tensor, places_TK: Tensor, rows: Sequence[int]
) -> list[Tensor]:
    """The operator `bring_rows`."""
    inputs = (
        checked("x", x_TH),
        checked("source", source_P, dtypes=INT64, shape=(places_TK.numel(),)),
    )
    chunks = outputs_of_bring(x_TH, source_P, places_TK, rows)
    rule = rows_rule(x_TH, x_TH.size(0), places_TK.size(1))
    addresses = [chunk.data_ptr() for chunk in chunks]
    cpu().bring_rows(*inputs, addresses, rows=list(rows), rule=rule)
    return chunks


def output_of_collect(
    chunks: Sequence[Tensor], places_TK: Tensor, weights_TK: Tensor | None
) -> Tensor:
    """Empty y."""
    return chunks[0].new_empty(places_TK.size(0), chunks[0].size(1))


def collect_on_cpu(
    chunks: Sequence[Tensor], places_TK: Tensor, weights_TK: Tensor | None
) -> Tensor:
    """The operator `collect_rows`."""
    inputs = (addressed("chunks", chunks), *placed(places_TK, weights_TK))
    y = output_of_collect(chunks, places_TK, weights_TK)
    rule = rows_rule(chunks[0], *places_TK.shape)
    cpu().collect_rows(*inputs, y.data_ptr(), rows=rows_of(chunks), rule=rule)
    return y


def outputs_of_spread(
    dy_TH: Tensor, chunks: Sequence[Tensor], places_TK: Tensor, weights_TK: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """Empty gradients of chunks and weights, the latter of no numbers where there are none."""
    dweights = dy_TH.new_empty(0) if weights_TK is None else torch.empty_like(weights_TK)
    return [torch.empty_like(chunk) for chunk in chunks], dweights


def spread_on_cpu(
    dy_TH: Tensor, chunks: Sequence[Tensor], places_TK: Tensor, weights_TK: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    """The operator `collect_rows_backward`."""
    shape = (places_TK.size(0), chunks[0].size(1))
    dy = checked("dy", dy_TH, dtypes=(chunks[0].dtype,), shape=shape)
    inputs = (dy, addressed("chunks", chunks), *placed(places_TK, weights_TK))
    dchunks, dweights = outputs_of_spread(dy_TH, chunks, places_TK, weights_TK)
    outputs = [chunk.data_ptr() for chunk in dchunks], dweights.data_ptr()
    rule = rows_rule(dy_TH, *places_TK.shape)
    cpu().collect_rows_backward(*inputs, *outputs, rows=rows_of(chunks), rule=rule)
    return dchunks, dweights


def addressed(name: str, chunks: Sequence[Tensor]) -> list[int]:
    """Of the first numbers; a tensor that is not as it must be is named by its place."""
    first = chunks[0]
    return [
        checked(
            f"{name}[{n}]",
            chunk,
            dtypes=(first.dtype,) if n else tuple(CODES),
            shape=(chunk.size(0), first.size(1)),
        )
        for n, chunk in enumerate(chunks)
    ]


def placed(places_TK: Tensor, weights_TK: Tensor | None) -> tuple[int, int]:
    """Addresses of places and weights, 0 of None."""
    places = checked("places", places_TK, dtypes=INT64)
    if weights_TK is None:
        return places, 0
    return places, checked("weights", weights_TK, dtypes=FP32, shape=places_TK.shape)


def rows_of(chunks: Sequence[Tensor]) -> list[int]:
    """How many places each has."""
    return [chunk.size(0) for chunk in chunks]


def rows_rule(x: Tensor, tokens: int, visits: int) -> Any:
    """As the extension takes it."""
    return cpu().RowsRule(
        tokens=tokens,
        visits=visits,
        columns=x.size(1),
        dtype=CODES[x.dtype],
        threads=torch.get_num_threads(),
    )


ROUTE = (
    "int visits, bool sigmoid, bool normalized, float scale,"
    " int groups, int groups_chosen, int judges"
)
choose_experts = define(
    f"choose_experts(Tensor logits, Tensor? bias, {ROUTE}) -> (Tensor, Tensor)",
    cpu=choose_on_cpu,
    fake=outputs_of_choice,
)
choose_experts_backward = define(
    f"choose_experts_backward(Tensor dweights, Tensor logits, Tensor chosen, {ROUTE}) -> Tensor",
    cpu=slope_on_cpu,
    fake=output_of_slope,
)
deal_visits = define(
    "deal_visits(Tensor goes, int visits) -> (Tensor, Tensor, Tensor)",
    cpu=deal_on_cpu,
    fake=outputs_of_deal,
)
bring_rows = define(
    "bring_rows(Tensor x, Tensor source, Tensor places, int[] rows) -> Tensor[]",
    cpu=bring_on_cpu,
    fake=outputs_of_bring,
)
collect_rows = define(
    "collect_rows(Tensor[] chunks, Tensor places, Tensor? weights) -> Tensor",
    cpu=collect_on_cpu,
    fake=output_of_collect,
)
collect_rows_backward = define(
    "collect_rows_backward(Tensor dy, Tensor[] chunks, Tensor places, Tensor? weights)"
    " -> (Tensor[], Tensor)",
    cpu=spread_on_cpu,
    fake=outputs_of_spread,
)


def keep_choice(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """The logits and the choice."""
    logits, _, *ctx.route = inputs
    ctx.save_for_backward(logits, output[1])
    ctx.mark_non_differentiable(output[1])


def choice_backward(ctx: Any, dweights: Tensor, _: Any) -> tuple[Any, ...]:
    """Gradient of the logits; the bias has none."""
    logits, chosen = ctx.saved_tensors
    dlogits = choose_experts_backward(dweights.contiguous(), logits, chosen, *ctx.route)
    return dlogits, None, *(None for _ in ctx.route)


def keep_places(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Where each row went."""
    ctx.save_for_backward(inputs[2])


def bring_backward(ctx: Any, dchunks: list[Tensor]) -> tuple[Any, ...]:
    """Gradient of x: what its rows became adds up."""
    (places,) = ctx.saved_tensors
    dx = collect_rows([chunk.contiguous() for chunk in dchunks], places, None)
    return dx, None, None, None


def keep_rows(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """All inputs: weights ask for the rows."""
    chunks, places, weights = inputs
    ctx.weighs = weights is not None
    ctx.save_for_backward(places, *([weights] if ctx.weighs else []), *chunks)


def collect_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    """Gradients of chunks and weights."""
    places, *rest = ctx.saved_tensors
    weights = rest.pop(0) if ctx.weighs else None
    dchunks, dweights = collect_rows_backward(dy.contiguous(), rest, places, weights)
    return dchunks, None, dweights if ctx.weighs else None


differentiate("choose_experts", choice_backward, keep_choice, once="experts")
differentiate("bring_rows", bring_backward, keep_places)
differentiate("collect_rows", collect_backward, keep_rows, once="experts")
