"""The last linear layer and its cross-entropy, some rows at a time: no logits of all rows at once.

Axis letters: R rows (tokens), H hidden, V columns of the vocabulary that are here.

For each chunk of rows the logits are made, become their own gradient (`kernels.loss`), and are
multiplied on into the gradients of the hidden states and of the weight. That is done forward where
it is known what each loss will be multiplied by; the incoming gradient can then be another only
by one common factor, and backward multiplies by that. Where it is not known, backward makes the
logits a second time, for the third part of what forward and backward of the layer cost.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels import loss_ops
from megatron_jobs.kernels.cap import soft_cap
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.loss import (
    losses_alone,
    losses_and_gradient,
    no_columns,
    place_of,
    plain_losses,
    refuse_second,
)
from megatron_jobs.kernels.loss_ops import PLAIN, Rule, Terms

CHUNK_BYTES = 128 << 20
"""Logits of a chunk."""
CHUNK_ROWS = 1024
"""At least: the products of fewer rows would wait for the weight, not for arithmetic."""

NOTHING = (False, False, False)
"""No gradients."""


def linear_cross_entropy(
    hidden_RH: Tensor,
    weight_VH: Tensor,
    targets_R: Tensor,
    *,
    bias_V: Tensor | None = None,
    weights_R: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    terms: Terms = PLAIN,
    rows: int | None = None,
) -> Tensor:
    """`cross_entropy` of hidden @ weight^T + bias.

    Args:
        hidden_RH: [R, H]; fp32, bf16 or fp16. With a group its gradient is this rank's share.
        weight_VH: [V, H], the dtype of hidden. Gradients of chunks are summed in fp32.
        targets_R: [R] int64, as for `cross_entropy`.
        bias_V: [V], the dtype of hidden.
        weights_R: [R], what each loss will be multiplied by, up to one common factor; None: not
            known, and the logits are made twice.
        group: ranks that hold the columns, as many each, in order; None: all are here.
        terms: a bound of the logits, and what is added to the loss.
        rows: of a chunk; None: as many as make logits of 128 MiB, at least 1024.
    Returns: [R] fp32, in nats.
    Raises: ValueError for other shapes, and in backward for losses multiplied by other weights.
    """
    check_shapes(hidden_RH, weight_VH, targets_R, bias_V)
    rows = rows or chunk_rows(weight_VH)
    told = None if weights_R is None else weights_R.float()
    plan = Plan(targets_R, told, *place_of(weight_VH.size(0), group, terms), rows)
    tensors = hidden_RH, weight_VH, bias_V
    if is_plain(*tensors):
        return plain_losses(capped_logits(*tensors, terms.cap), targets_R, plan.group, plan.rule)
    if torch.compiler.is_compiling() and plan.group is None:
        return unchunked(*tensors, targets_R, terms)
    learns = any(tensor is not None and tensor.requires_grad for tensor in tensors)
    if not (learns and torch.is_grad_enabled()):
        return chunked(*tensors, plan=plan, needs=NOTHING)[0]
    found: Tensor = ChunkedLoss.apply(*tensors, plan)  # type: ignore[no-untyped-call]
    return found


def chunk_rows(weight_VH: Tensor) -> int:
    """Rows that make up a chunk."""
    return max(CHUNK_ROWS, CHUNK_BYTES // max(1, weight_VH.element_size() * weight_VH.size(0)))


def is_plain(hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor | None = None) -> bool:
    """Whether `linear_cross_entropy` would make all logits at once, by operators of torch."""
    unknown = no_columns(weight_VH.t())
    return form_of("loss", hidden_RH, weight_VH, bias_V, unknown=unknown) == "reference"


def check_shapes(
    hidden_RH: Tensor, weight_VH: Tensor, targets_R: Tensor, bias_V: Tensor | None
) -> None:
    """ValueError unless the tensors fit each other."""
    if hidden_RH.dim() != 2:
        raise ValueError(f"hidden must be [R, H], got {list(hidden_RH.shape)}")
    wanted = {"weight": (weight_VH, [weight_VH.size(0), hidden_RH.size(1)])}
    wanted["targets"] = targets_R, [hidden_RH.size(0)]
    if bias_V is not None:
        wanted["bias"] = bias_V, [weight_VH.size(0)]
    for name, (tensor, shape) in wanted.items():
        if list(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape}, got {list(tensor.shape)}")


class Plan(NamedTuple):
    """What a chunked loss is told beside the tensors that have gradients."""

    targets: Tensor
    """[R]."""
    weights: Tensor | None
    """[R]."""
    group: dist.ProcessGroup | None
    rule: Rule
    rows: int


class ChunkedLoss(torch.autograd.Function):
    """Losses of hidden states; gradients are made forward where the weights are known."""

    @staticmethod
    def forward(
        context: Any, hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, plan: Plan
    ) -> Tensor:
        """Losses [R]."""
        context.plan, context.gradients = plan, None
        needs = context.needs_input_grad[:3]
        if plan.weights is not None:
            context.save_for_backward(plan.weights)
            losses, context.gradients = chunked(
                hidden_RH, weight_VH, bias_V, plan=plan, needs=needs
            )
            return losses
        context.save_for_backward(hidden_RH, weight_VH, bias_V, plan.targets)
        return chunked(hidden_RH, weight_VH, bias_V, plan=plan, needs=NOTHING)[0]

    @staticmethod
    def backward(context: Any, dlosses_R: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden, weight and bias."""
        refuse_second()
        plan, dlosses_R = context.plan, dlosses_R.contiguous()
        if plan.weights is None:
            *tensors, targets = context.saved_tensors
            plan = plan._replace(weights=dlosses_R, targets=targets)
            needs = context.needs_input_grad[:3]
            return *chunked(*tensors, plan=plan, needs=needs)[1], None
        if context.gradients is None:
            raise RuntimeError("linear_cross_entropy: its gradients were handed on already")
        (weights_R,) = context.saved_tensors
        gradients, context.gradients = context.gradients, None
        factor = common_factor(dlosses_R, weights_R)
        if factor is not None:
            for gradient in gradients:
                if gradient is not None:
                    gradient *= factor
        return *gradients, None


def common_factor(dlosses_R: Tensor, weights_R: Tensor) -> Tensor | None:
    """What all weights must be multiplied by to be the gradient that came; None for 1.

    NaN if a gradient or the factor is not finite: that a step is left out for it is decided
    elsewhere.

    Raises: ValueError where there is no such number.
    """
    if torch.equal(dlosses_R, weights_R):
        return None
    at = weights_R.abs().argmax()
    factor = torch.where(weights_R[at] == 0, 1.0, dlosses_R[at] / weights_R[at])
    if not torch.allclose(dlosses_R, weights_R * factor, rtol=1e-6, atol=0):
        if not (dlosses_R.isfinite().all() and factor.isfinite()):
            return torch.full_like(factor, torch.nan)
        apart = (dlosses_R - weights_R * factor).abs().argmax()
        raise ValueError(
            f"weights: the loss of row {int(apart)} was multiplied by {float(dlosses_R[apart]):g},"
            f" but {float(weights_R[apart]):g} was said, and others by {float(factor):g} of what"
            " was said; give the weights that the losses are multiplied by, or none"
        )
    return factor


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def chunked(
    hidden_RH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    *,
    plan: Plan,
    needs: tuple[bool, ...],
) -> tuple[Tensor, Gradients]:
    """Losses [R], and those gradients of hidden, weight and bias that are needed."""
    count = hidden_RH.size(0)
    losses = hidden_RH.new_empty(count, dtype=torch.float32)
    dhidden = torch.empty_like(hidden_RH) if needs[0] else None
    dweight = Total(weight_VH, several=not 0 < count <= plan.rows) if needs[1] else None
    dbias = Total(bias_V, several=True) if needs[2] and bias_V is not None else None
    buffer = hidden_RH.new_empty(min(count, plan.rows), weight_VH.size(0))
    for start in range(0, count, plan.rows):
        part = slice(start, min(start + plan.rows, count))
        logits = torch.mm(hidden_RH[part], weight_VH.t(), out=buffer[: part.stop - start])
        if bias_V is not None:
            logits += bias_V
        losses[part] = chunk_losses(logits, plan, part, gradient=any(needs))
        if dhidden is not None:
            torch.mm(logits, weight_VH, out=dhidden[part])
        if dweight is not None:
            dweight.add_product(logits.t(), hidden_RH[part])
        if dbias is not None:
            dbias.add(logits.sum(0, dtype=torch.float32))
    return losses, (
        dhidden,
        dweight.rounded() if dweight else None,
        dbias.rounded() if dbias else None,
    )


def chunk_losses(logits: Tensor, plan: Plan, part: slice, *, gradient: bool) -> Tensor:
    """Losses of a chunk; its logits become the gradient, if that is wanted."""
    targets = plan.targets[part]
    if gradient and plan.weights is not None:
        return losses_and_gradient(logits, targets, plan.weights[part], plan.group, plan.rule)
    if plan.group is not None:
        return losses_alone(logits, targets, plan.group, plan.rule)
    nothing = torch.zeros_like(targets, dtype=torch.float32)  # the same bits as with a gradient
    return losses_and_gradient(logits, targets, nothing, None, plan.rule)


class Total:
    """The gradient of a parameter: a sum in fp32, or, where it has one part, that part itself."""

    def __init__(self, parameter: Tensor, *, several: bool) -> None:
        self.dtype, self.several = parameter.dtype, several
        if several:
            self.value = torch.zeros_like(parameter, dtype=torch.float32)
        else:
            self.value = torch.empty_like(parameter)

    def add_product(self, left: Tensor, right: Tensor) -> None:
        """Add left @ right."""
        if not self.several:
            torch.mm(left, right, out=self.value)
        elif left.dtype == self.value.dtype:
            self.value.addmm_(left, right)
        else:
            self.value += left @ right

    def add(self, part: Tensor) -> None:
        """Add one part."""
        self.value += part

    def rounded(self) -> Tensor:
        """The sum, in the dtype of the parameter."""
        return self.value.to(self.dtype)


def capped_logits(
    hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, cap: float
) -> Tensor:
    """All logits [R, V]."""
    logits_RV = functional.linear(hidden_RH, weight_VH, bias_V)
    return soft_cap(logits_RV, cap) if cap else logits_RV


def unchunked(
    hidden_RH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_R: Tensor, terms: Terms
) -> Tensor:
    """All logits at once, for compilers: they do not see through what is overwritten."""
    logits_RV = capped_logits(hidden_RH, weight_VH, bias_V, terms.cap)
    losses: Tensor = loss_ops.cross_entropy(logits_RV, targets_R, *terms[1:])[0]
    return losses
