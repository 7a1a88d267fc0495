"""Mixtures of experts: tokens choose experts, go to them and come back.

T tokens, E experts, K that a token visits, P = T x K places in the order of experts, H columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from megatron_jobs.kernels import experts_ops
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.experts_ops import Route

SMALL_LOGITS = 1 << 11
SMALL_ROWS = 1 << 14
"""Numbers below which plain torch is faster."""
MOST_ON_CUDA = 512
"""Experts."""


class Deal(NamedTuple):
    """Where each visit goes."""

    source: Tensor
    """int64 [P]: the token of each place; places of one expert are in the order of tokens."""
    places: Tensor
    """int64 [T, K]: the place of each visit."""
    experts: Tensor
    """int64 [T, K]: the expert of each visit, ascending."""


def choose_experts(
    logits_TE: Tensor, route: Route, bias_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The experts that each token visits, and how they are weighed.

    Args:
        logits_TE: [T, E] of the router; fp32, bf16 or fp16. All is computed in fp32.
        bias_E: fp32 [E], added when choosing and not when weighing; it has no gradient.
    Returns: weights fp32 [T, K], experts int64 [T, K]. The fused form has the best first, and of
        equals the first; plain torch has them in no order, and of equals any, as `torch.topk`.
    Raises: ValueError when bias is not [E].
    Source: DeepSeek-AI 2024, arXiv:2412.19437, equations 12 to 16, and arXiv:2405.04434, 2.2.2.
    """
    if bias_E is not None and bias_E.shape != logits_TE.shape[1:]:
        raise ValueError(f"bias must be {list(logits_TE.shape[1:])}, got {list(bias_E.shape)}")
    if _is_fused_choice(logits_TE, route):
        bias_E = None if bias_E is None else bias_E.float().contiguous()
        weights, experts = experts_ops.choose_experts(logits_TE.contiguous(), bias_E, *route)
        return weights, experts
    return choose_experts_reference(logits_TE, route, bias_E)


def choose_experts_reference(
    logits_TE: Tensor, route: Route, bias_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The formulas, word for word, in fp32 or what is wider."""
    logits_TE = logits_TE.to(torch.promote_types(logits_TE.dtype, torch.float32))
    scores_TE = logits_TE.sigmoid() if route.sigmoid else logits_TE.softmax(-1)
    choice_TE = scores_TE if bias_E is None else scores_TE + bias_E
    if route.groups > 1:
        choice_TE = choice_TE.masked_fill(~best_groups(choice_TE, route), float("-inf"))
    experts_TK = choice_TE.topk(route.visits, sorted=False).indices
    weights_TK = scores_TE.gather(1, experts_TK)
    if route.normalized:
        weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
    return weights_TK * route.scale, experts_TK


def best_groups(scores_TE: Tensor, route: Route) -> Tensor:
    """bool [T, E]: the experts of each token's best groups."""
    size = scores_TE.size(-1) // route.groups
    scores_TGM = scores_TE.view(-1, route.groups, size)
    scores_TG = scores_TGM.topk(route.judges).values.sum(-1)
    groups = scores_TG.topk(route.groups_chosen, sorted=False).indices
    chosen_TG = torch.zeros_like(scores_TG, dtype=torch.bool).scatter(1, groups, value=True)
    return chosen_TG.repeat_interleave(size, -1)


def deal_visits(goes_TE: Tensor, visits: int) -> Deal:
    """Visits in the order of experts.

    Args:
        goes_TE: bool [T, E], `visits` of each row true.
        visits: K.
    Raises: ValueError when a token goes to fewer or more experts, from the fused form alone.
    """
    if form_of("experts", goes_TE, dtypes=(torch.bool,)) != "reference":
        return Deal(*experts_ops.deal_visits(goes_TE.contiguous(), visits))
    return Deal(*experts_ops.deal_by_sort(goes_TE, visits))


def bring_rows(x_TH: Tensor, deal: Deal, rows: Sequence[int]) -> list[Tensor]:
    """Tokens in the order of experts, a new tensor for each chunk of places.

    Args:
        x_TH: [T, H].
        rows: how many places each chunk has, P together: those of each expert, or all in one.
    Returns: a [rows, H] for each of `rows`.
    Raises: ValueError when `rows` are not P together.
    """
    if sum(rows) != deal.source.numel():
        raise ValueError(f"rows must be {deal.source.numel()} together, got {sum(rows)}")
    small = x_TH.numel() < SMALL_ROWS
    if form_of("experts", x_TH, small=small) != "reference":
        chunks: list[Tensor]
        chunks = experts_ops.bring_rows(x_TH.contiguous(), deal.source, deal.places, list(rows))
        return chunks
    return list(torch.split(x_TH.index_select(0, deal.source), list(rows)))


def collect_rows(chunks: Sequence[Tensor], deal: Deal, weights_TK: Tensor | None = None) -> Tensor:
    """Each token's rows, of all experts that it visited, added up.

    Args:
        chunks: tensors [rows, H], P rows together, as `bring_rows` gives them.
        weights_TK: [T, K], of the visits as `deal` has them; taken as fp32. None: 1.
    Returns: [T, H], the dtype of chunks; the sum is taken in fp32 and rounded once.
    """
    if weights_TK is not None:
        weights_TK = weights_TK.to(torch.promote_types(weights_TK.dtype, torch.float32))
    unknown = None
    if weights_TK is not None and weights_TK.dtype != torch.float32:
        unknown = "it does not know weights that are not fp32"
    small = sum(chunk.numel() for chunk in chunks) < SMALL_ROWS
    if form_of("experts", *chunks, small=small, unknown=unknown) != "reference":
        weights_TK = None if weights_TK is None else weights_TK.contiguous()
        each = [chunk.contiguous() for chunk in chunks]
        y: Tensor = experts_ops.collect_rows(each, deal.places, weights_TK)
        return y
    return collect_rows_reference(chunks, deal, weights_TK)


def collect_rows_reference(
    chunks: Sequence[Tensor], deal: Deal, weights_TK: Tensor | None = None
) -> Tensor:
    """The formula, in fp32 or what is wider."""
    x_PH = torch.cat(list(chunks))
    x_TKH = x_PH.index_select(0, deal.places.reshape(-1)).view(*deal.places.shape, x_PH.size(1))
    x_TKH = x_TKH.to(torch.promote_types(x_PH.dtype, torch.float32))
    if weights_TK is not None:
        x_TKH = x_TKH * weights_TK[..., None]
    return x_TKH.sum(1).to(x_PH.dtype)


def _is_fused_choice(logits_TE: Tensor, route: Route) -> bool:
    """Whether the operator `choose_experts` takes these tensors."""
    unknown = None
    if logits_TE.device.type == "cuda" and logits_TE.size(1) > MOST_ON_CUDA:
        unknown = f"it does not know over {MOST_ON_CUDA} experts"
    small = logits_TE.numel() < SMALL_LOGITS
    return form_of("experts", logits_TE, small=small, unknown=unknown) != "reference"
