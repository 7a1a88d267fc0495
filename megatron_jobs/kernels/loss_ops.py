"""Operators of fused cross-entropy. Axis letters: R rows, V columns of the vocabulary here.

    loss_whole(logits!, targets, weights, ...) -> losses      the gradient takes the logits' place
    loss_parts(logits!, targets, ...) -> parts                what a tensor rank's columns say
    loss_gradient(logits!, targets, logsum, weights, ...)     the gradient, once all ranks are heard
    cross_entropy(logits, targets, ...) -> (losses, logsum)   nothing is written: for compilers
    cross_entropy_backward(dlosses, logits, targets, logsum, ...) -> dlogits

targets: int64 [R]. weights, losses, logsum: fp32 [R]. parts: fp32 [4, R], see csrc/kernels/loss.h.
The rule of a loss goes along as plain numbers (`Rule`). Each row is one thread's alone: for any
number of threads the result is the same bit for bit.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from megatron_jobs.kernels.native import CODES, checked, cpu
from megatron_jobs.kernels.ops import define, differentiate

IGNORED = -100
"""The target that does not count, as in torch."""


class Terms(NamedTuple):
    """What is done to logits, and what is added to their cross-entropy."""

    cap: float = 0.0
    """Logits become cap x tanh(logit / cap); 0: they stay."""
    smoothing: float = 0.0
    """Share of the target that goes to all ids alike."""
    z_loss: float = 0.0
    """Of the square of log(sum(exp(logits))), added to the loss."""


PLAIN = Terms()


class Rule(NamedTuple):
    """What the operators are told beside tensors, in the order of their arguments."""

    first: int = 0
    """Id of the first column here."""
    vocab: int = 0
    """Columns of all tensor ranks; 0: those that are here."""
    cap: float = 0.0
    smoothing: float = 0.0
    z_loss: float = 0.0
    """As in `Terms`."""

    def check_whole(self, columns: int) -> None:
        """ValueError unless these are the columns of all ranks."""
        if self.first != 0 or self.vocab not in (0, columns):
            raise ValueError(
                f"logits must be all columns, got {columns} of {self.vocab or columns} from"
                f" {self.first} on; take loss_parts and loss_gradient"
            )


WORDS = "int first, int vocab, float cap, float smoothing, float z_loss"


def inputs(logits_RV: Tensor, targets_R: Tensor, **rows: Tensor) -> list[int]:
    """Addresses; ValueError with the name of what does not fit."""
    count = logits_RV.shape[:1]
    if logits_RV.dim() != 2:
        raise ValueError(f"logits must be [R, V], got {list(logits_RV.shape)}")
    if logits_RV.size(1) == 0:
        raise ValueError(f"logits must have columns, got {list(logits_RV.shape)}")
    fp32 = (torch.float32,)
    return [
        checked("logits", logits_RV),
        checked("targets", targets_R, dtypes=(torch.int64,), shape=count),
        *(checked(name, row, dtypes=fp32, shape=count) for name, row in rows.items()),
    ]


def native(logits_RV: Tensor, rule: Rule) -> Any:
    """The rule as the extension takes it."""
    rows, columns = logits_RV.shape
    return cpu().LossRule(
        rows=rows,
        columns=columns,
        ignored=IGNORED,
        dtype=CODES[logits_RV.dtype],
        threads=torch.get_num_threads(),
        **rule._replace(vocab=rule.vocab or columns)._asdict(),
    )


def row_numbers(logits_RV: Tensor, *leading: int) -> Tensor:
    """Empty fp32 [..., R]."""
    return logits_RV.new_empty(*leading, logits_RV.size(0), dtype=torch.float32)


def whole_on_cpu(logits_RV: Tensor, targets_R: Tensor, weights_R: Tensor, *words: Any) -> Tensor:
    """The operator `loss_whole`."""
    addresses = inputs(logits_RV, targets_R, weights=weights_R)
    rule = Rule(*words)
    rule.check_whole(logits_RV.size(1))
    losses = row_numbers(logits_RV)
    cpu().loss_whole(*addresses, losses.data_ptr(), native(logits_RV, rule))
    return losses


def parts_on_cpu(logits_RV: Tensor, targets_R: Tensor, *words: Any) -> Tensor:
    """The operator `loss_parts`."""
    addresses = inputs(logits_RV, targets_R)
    parts = row_numbers(logits_RV, 4)
    cpu().loss_parts(*addresses, parts.data_ptr(), native(logits_RV, Rule(*words)))
    return parts


def gradient_on_cpu(
    logits_RV: Tensor, targets_R: Tensor, logsum_R: Tensor, weights_R: Tensor, *words: Any
) -> None:
    """The operator `loss_gradient`."""
    addresses = inputs(logits_RV, targets_R, logsum=logsum_R, weights=weights_R)
    cpu().loss_gradient(*addresses, addresses[0], native(logits_RV, Rule(*words)))


def cross_entropy_on_cpu(
    logits_RV: Tensor, targets_R: Tensor, smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """The operator `cross_entropy`."""
    rule = Rule(smoothing=smoothing, z_loss=z_loss, vocab=logits_RV.size(-1))
    return finished(parts_on_cpu(logits_RV, targets_R, *rule), targets_R, rule)


def backward_on_cpu(
    dlosses_R: Tensor,
    logits_RV: Tensor,
    targets_R: Tensor,
    logsum_R: Tensor,
    smoothing: float,
    z_loss: float,
) -> Tensor:
    """The operator `cross_entropy_backward`."""
    rule = Rule(smoothing=smoothing, z_loss=z_loss)
    addresses = inputs(logits_RV, targets_R, logsum=logsum_R, dlosses=dlosses_R)
    out = torch.empty_like(logits_RV)
    cpu().loss_gradient(*addresses, out.data_ptr(), native(logits_RV, rule))
    return out


def finished(parts_4R: Tensor, targets_R: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """(losses, logsum) [R] of the parts of all columns."""
    most, total, chosen, summed = parts_4R
    log = total.log()
    losses = most - chosen + log
    if rule.smoothing:
        losses = losses + rule.smoothing * (chosen - summed / rule.vocab)
    if rule.z_loss:
        losses = losses + rule.z_loss * (most + log).square()
    return torch.where(targets_R == IGNORED, 0.0, losses), most + log


loss_whole = define(
    f"loss_whole(Tensor(a!) logits, Tensor targets, Tensor weights, {WORDS}) -> Tensor",
    cpu=whole_on_cpu,
    fake=lambda logits, targets, weights, *words: row_numbers(logits),
)
loss_parts = define(
    f"loss_parts(Tensor(a!) logits, Tensor targets, {WORDS}) -> Tensor",
    cpu=parts_on_cpu,
    fake=lambda logits, targets, *words: row_numbers(logits, 4),
)
loss_gradient = define(
    "loss_gradient(Tensor(a!) logits, Tensor targets, Tensor logsum, Tensor weights,"
    f" {WORDS}) -> ()",
    cpu=gradient_on_cpu,
    fake=lambda *inputs: None,
)
cross_entropy = define(
    "cross_entropy(Tensor logits, Tensor targets, float smoothing, float z_loss)"
    " -> (Tensor, Tensor)",
    cpu=cross_entropy_on_cpu,
    fake=lambda logits, *rest: (row_numbers(logits), row_numbers(logits)),
)
cross_entropy_backward = define(
    "cross_entropy_backward(Tensor dlosses, Tensor logits, Tensor targets, Tensor logsum,"
    " float smoothing, float z_loss) -> Tensor",
    cpu=backward_on_cpu,
    fake=lambda dlosses, logits, *rest: torch.empty_like(logits),
)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Logits, targets and the logarithm of each row's sum."""
    logits_RV, targets_R, ctx.smoothing, ctx.z_loss = inputs
    ctx.save_for_backward(logits_RV, targets_R, output[1])


def backward(context: Any, dlosses: Tensor, _: Tensor) -> tuple[Any, ...]:
    """The gradient of the logits; that of the logarithm is not asked for."""
    rest = context.smoothing, context.z_loss
    dlogits = cross_entropy_backward(dlosses.contiguous(), *context.saved_tensors, *rest)
    return dlogits, None, None, None


differentiate("cross_entropy", backward, keep, once="loss")
