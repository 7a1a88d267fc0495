"""Cross-entropy over a vocabulary that may be cut over ranks.

Axis letters: R rows (tokens), V columns of the vocabulary that are here, W those of all ranks.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from megatron_jobs.errors import UserError
from megatron_jobs.kernels import loss_ops
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.loss_ops import IGNORED, Rule, Terms


def cross_entropy(
    logits_RV: Tensor,
    targets_R: Tensor,
    *,
    weights_R: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Minus the logarithm of what softmax gives each target; THE LOGITS ARE OVERWRITTEN.

    Where a gradient is wanted it takes their place at once. Who needs them still gives a copy.

    Args:
        logits_RV: [R, V]; fp32, bf16 or fp16, contiguous. Sums are taken in fp32.
        targets_R: [R] int64: ids below W, or -100, which gives a loss and a gradient of 0.
        weights_R: [R] fp32, what each loss will be multiplied by, where that is known; then
            backward has nothing left to do. A row of weight 0 can have no other gradient than 0.
        group: ranks that hold the columns, as many each, in order; None: all are here.
        smoothing: share of the target that is spread over all W ids.
        z_loss: of the square of log(sum(exp(logits))), added to the loss.
    Returns: [R] fp32, in nats.
    Raises: ValueError for what is not contiguous, of another shape or dtype, or no id.
    Source: Szegedy et al. 2015, section 7, arXiv:1512.00567 (smoothing); Chowdhery et al. 2022,
        section 5, arXiv:2204.02311 (z-loss).
    """
    terms = Terms(smoothing=smoothing, z_loss=z_loss)
    group, rule = place_of(logits_RV.size(-1), group, terms)
    # 64 logits take 49 us where plain torch takes 142: none are too few
    if form_of("loss", logits_RV, unknown=no_columns(logits_RV)) == "reference":
        return plain_losses(logits_RV, targets_R, group, rule)
    if torch.compiler.is_compiling() and group is None:
        losses: Tensor = loss_ops.cross_entropy(logits_RV, targets_R, smoothing, z_loss)[0]
        return losses
    if not (torch.is_grad_enabled() and logits_RV.requires_grad):
        return losses_alone(logits_RV, targets_R, group, rule)
    if weights_R is None:
        weights_R = logits_RV.new_ones(logits_RV.shape[:1], dtype=torch.float32)
    found: Tensor = GradientInPlace.apply(logits_RV, targets_R, weights_R, group, rule)  # type: ignore[no-untyped-call]
    return found


def cross_entropy_reference(
    logits_RW: Tensor, targets_R: Tensor, *, smoothing: float = 0.0, z_loss: float = 0.0
) -> Tensor:
    """The formula in fp64, row by row."""
    losses = []
    for logits_W, target in zip(logits_RW.double(), targets_R.tolist(), strict=True):
        if target == IGNORED:
            losses.append(logits_W.sum() * 0)
            continue
        logsum = logits_W.exp().sum().log()
        wanted = (1 - smoothing) * logits_W[target] + smoothing * logits_W.mean()
        losses.append(logsum - wanted + z_loss * logsum**2)
    return torch.stack(losses) if losses else logits_RW.double().sum(-1)


class GradientInPlace(torch.autograd.Function):
    """Losses forward; backward hands on what stands where the logits were."""

    @staticmethod
    def forward(
        context: Any,
        logits_RV: Tensor,
        targets_R: Tensor,
        weights_R: Tensor,
        group: dist.ProcessGroup | None,
        rule: Rule,
    ) -> Tensor:
        """Losses [R]."""
        losses = losses_and_gradient(logits_RV, targets_R, weights_R, group, rule)
        torch.autograd.graph.increment_version(logits_RV)
        context.left = logits_RV.detach()
        context.save_for_backward(weights_R)  # whoever writes to them in between is told
        return losses

    @staticmethod
    def backward(context: Any, dlosses_R: Tensor) -> tuple[Tensor | None, ...]:
        """Rows whose weight was another than was said are multiplied by what is missing."""
        refuse_second()
        if context.left is None:
            raise RuntimeError("cross_entropy: its gradient was handed on already")
        (weights_R,) = context.saved_tensors
        gradient_RV, context.left = context.left, None
        if not torch.equal(dlosses_R, weights_R):
            gradient_RV *= missing_factors(dlosses_R, weights_R)[:, None]
        return gradient_RV, None, None, None, None


def refuse_second() -> None:
    """UserError where a gradient is to be differentiated again: it would be taken as a constant."""
    if torch.is_grad_enabled():
        raise UserError(
            "kernels.loss: a gradient of a gradient (create_graph), which fused kernels do not"
            " know; take kernels.loss: reference"
        )


def missing_factors(dlosses_R: Tensor, weights_R: Tensor) -> Tensor:
    """What the weights must be multiplied by to be the gradient that came.

    One that is not finite is handed on: that a step is left out for it is decided elsewhere.

    Raises: ValueError where a weight is 0 and the gradient is another number.
    """
    nothing = (weights_R == 0) & dlosses_R.isfinite()
    if torch.any(nothing & (dlosses_R != 0)):
        row = int((nothing & (dlosses_R != 0)).nonzero()[0])
        raise ValueError(
            f"weights: the loss of row {row} was multiplied by {float(dlosses_R[row]):g}, but 0 was"
            " said; give what the losses are multiplied by, or no weights"
        )
    return torch.where(nothing, 0.0, dlosses_R / weights_R)


def place_of(
    columns: int, group: dist.ProcessGroup | None, terms: Terms
) -> tuple[dist.ProcessGroup | None, Rule]:
    """The group, None if it is of one rank, and where this rank's columns lie among its."""
    if group is None or group.size() == 1:
        return None, Rule(0, columns, *terms)
    return group, Rule(group.rank() * columns, group.size() * columns, *terms)


def no_columns(matrix: Tensor) -> str | None:
    """What `form_of` is told of rows without a number."""
    return "it does not know rows of no columns" if matrix.size(-1) == 0 else None


def losses_alone(
    logits_RV: Tensor, targets_R: Tensor, group: dist.ProcessGroup | None, rule: Rule
) -> Tensor:
    """Losses [R]; the logits are written only where there is a cap."""
    parts = joined(loss_ops.loss_parts(logits_RV, targets_R, *rule), group)
    return loss_ops.finished(parts, targets_R, rule)[0]


def losses_and_gradient(
    logits_RV: Tensor,
    targets_R: Tensor,
    weights_R: Tensor,
    group: dist.ProcessGroup | None,
    rule: Rule,
) -> Tensor:
    """Losses [R]; the gradient of their sum, weighted, takes the place of the logits."""
    if group is None:
        whole: Tensor = loss_ops.loss_whole(logits_RV, targets_R, weights_R, *rule)
        return whole
    parts = joined(loss_ops.loss_parts(logits_RV, targets_R, *rule), group)
    losses, logsum = loss_ops.finished(parts, targets_R, rule)
    loss_ops.loss_gradient(logits_RV, targets_R, logsum, weights_R, *rule)
    return losses


def joined(parts_4R: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The parts [4, R] of all columns: one collective, equal on every rank."""
    if group is None:
        return parts_4R
    every = parts_4R.new_empty(group.size(), *parts_4R.shape)
    dist.all_gather_into_tensor(every.flatten(0, 1), parts_4R, group=group)
    most = every[:, 0].amax(0)
    total = (every[:, 1] * (every[:, 0] - most).exp()).sum(0)
    return torch.stack([most, total, every[:, 2].sum(0), every[:, 3].sum(0)])


class SumOverRanks(torch.autograd.Function):
    """The sum over a group's ranks, which all go on with it alike."""

    @staticmethod
    def forward(context: Any, own: Tensor, group: dist.ProcessGroup) -> Tensor:
        """The sum, a new tensor."""
        total = own.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(context: Any, dtotal: Tensor) -> tuple[Tensor, None]:
        """Each rank's own share."""
        return dtotal, None


def plain_losses(
    logits_RV: Tensor, targets_R: Tensor, group: dist.ProcessGroup | None, rule: Rule
) -> Tensor:
    """The same by operators of torch, which leave the logits."""
    check_targets(targets_R, rule)
    x = logits_RV.to(torch.promote_types(logits_RV.dtype, torch.float32))
    most = x.detach().amax(-1)
    if group is not None:
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=group)
    place = targets_R - rule.first
    here = (place >= 0) & (place < x.size(-1))
    chosen = x.gather(-1, torch.where(here, place, 0)[:, None])[:, 0]
    sums = [(x - most[:, None]).exp().sum(-1), torch.where(here, chosen, 0.0), x.sum(-1)]
    parts = torch.stack(sums)
    if group is not None:
        parts = SumOverRanks.apply(parts, group)  # type: ignore[no-untyped-call]
    return loss_ops.finished(torch.cat([most[None], parts]), targets_R, rule)[0]


def check_targets(targets_R: Tensor, rule: Rule) -> None:
    """ValueError for what is no id, in the words of the extension; on CUDA nothing waits for it."""
    if torch.compiler.is_compiling() or targets_R.device.type != "cpu":
        return
    wrong = ((targets_R < 0) | (targets_R >= rule.vocab)) & (targets_R != IGNORED)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(f"targets[{row}] is {int(targets_R[row])}, not one of {rule.vocab}")
