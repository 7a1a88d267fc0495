"""Cross-entropy on CUDA: see `loss_ops`. R rows, V columns.

The CPU does not look at targets, for which it would have to wait: one that is no id makes a NaN of
its loss. Each row is one block's alone: two runs give the same bits.
"""

from typing import Any

import torch
from torch import Tensor

from megatron_jobs.kernels import loss_ops
from megatron_jobs.kernels.cuda import at, place
from megatron_jobs.kernels.loss_ops import IGNORED, Rule, row_numbers
from megatron_jobs.kernels.native import CODES, cuda
from megatron_jobs.kernels.ops import run_on_cuda


def loss_whole(logits_RV: Tensor, targets_R: Tensor, weights_R: Tensor, *words: Any) -> Tensor:
    """The operator `loss_whole`."""
    addresses = inputs(logits_RV, targets_R, weights=weights_R)
    rule = Rule(*words)
    rule.check_whole(logits_RV.size(1))
    losses = row_numbers(logits_RV)
    cuda().loss_whole(*addresses, losses.data_ptr(), native(logits_RV, rule), **place(logits_RV))
    return losses


def loss_parts(logits_RV: Tensor, targets_R: Tensor, *words: Any) -> Tensor:
    """The operator `loss_parts`."""
    addresses = inputs(logits_RV, targets_R)
    parts = row_numbers(logits_RV, 4)
    rule = native(logits_RV, Rule(*words))
    cuda().loss_parts(*addresses, parts.data_ptr(), rule, **place(logits_RV))
    return parts


def loss_gradient(
    logits_RV: Tensor, targets_R: Tensor, logsum_R: Tensor, weights_R: Tensor, *words: Any
) -> None:
    """The operator `loss_gradient`."""
    addresses = inputs(logits_RV, targets_R, logsum=logsum_R, weights=weights_R)
    rule = native(logits_RV, Rule(*words))
    cuda().loss_gradient(*addresses, addresses[0], rule, **place(logits_RV))


def cross_entropy(
    logits_RV: Tensor, targets_R: Tensor, smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """The operator `cross_entropy`."""
    rule = Rule(smoothing=smoothing, z_loss=z_loss, vocab=logits_RV.size(-1))
    return loss_ops.finished(loss_parts(logits_RV, targets_R, *rule), targets_R, rule)


def cross_entropy_backward(
    dlosses_R: Tensor,
    logits_RV: Tensor,
    targets_R: Tensor,
    logsum_R: Tensor,
    smoothing: float,
    z_loss: float,
) -> Tensor:
    """The operator `cross_entropy_backward`."""
    addresses = inputs(logits_RV, targets_R, logsum=logsum_R, dlosses=dlosses_R)
    out = torch.empty_like(logits_RV)
    rule = native(logits_RV, Rule(smoothing=smoothing, z_loss=z_loss))
    cuda().loss_gradient(*addresses, out.data_ptr(), rule, **place(logits_RV))
    return out


def inputs(logits_RV: Tensor, targets_R: Tensor, **rows: Tensor) -> list[int]:
    """Addresses; ValueError with the name of what does not fit."""
    if logits_RV.dim() != 2 or logits_RV.size(1) == 0:
        raise ValueError(f"logits must be [R, V], V not 0, got {list(logits_RV.shape)}")
    count = logits_RV.shape[:1]
    return [
        at("logits", logits_RV),
        at("targets", targets_R, dtypes=(torch.int64,), shape=count),
        *(at(name, row, dtypes=(torch.float32,), shape=count) for name, row in rows.items()),
    ]


def native(logits_RV: Tensor, rule: Rule) -> Any:
    """The rule as the extension takes it."""
    rows, columns = logits_RV.shape
    return cuda().LossRule(
        rows=rows,
        columns=columns,
        ignored=IGNORED,
        dtype=CODES[logits_RV.dtype],
        **rule._replace(vocab=rule.vocab or columns)._asdict(),
    )


run_on_cuda("loss_whole", loss_whole)
run_on_cuda("loss_parts", loss_parts)
run_on_cuda("loss_gradient", loss_gradient)
run_on_cuda("cross_entropy", cross_entropy)
run_on_cuda("cross_entropy_backward", cross_entropy_backward)
