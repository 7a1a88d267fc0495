"""AdamW over lists of tensors, and what is asked of their gradients: norm, scale, finiteness.

Each call works on all tensors in one pass over memory. Sums are taken over blocks that depend on
the sizes alone: for any number of threads the result is the same bit for bit.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_jobs.kernels import cuda_lists
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.native import CODES, FLOATS, cpu

Tensors = Sequence[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamRule:
    """The numbers of one step, the same for all its tensors."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    """Added to the root of the second moment, after its bias is taken out."""
    decay: float
    """Weights lose lr * decay of themselves, apart from the gradient."""
    step: int
    """From 1: how often the moments were updated, this time among them."""
    factor: float = 1.0
    """Gradients are multiplied by it: what clips them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamTensors:
    """Lists of one length; tensors of one place are of one shape."""

    parameters: Tensors
    """fp32; written to."""
    gradients: Tensors
    """fp32, bf16 or fp16, all of one dtype; left as they are."""
    first: Tensors
    """fp32 mean of gradients; written to."""
    second: Tensors
    """fp32 mean of squared gradients; written to."""
    rounded: Tensors = ()
    """Copies of the parameters in another dtype, which are written; or none at all."""

    def check(self) -> None:
        """ValueError unless all lists are as long as that of the parameters, of the same shapes."""
        shapes = [parameter.shape for parameter in self.parameters]
        for name in ("gradients", "first", "second", "rounded"):
            tensors = getattr(self, name)
            found = [tensor.shape for tensor in tensors]
            if found == shapes or (name == "rounded" and not tensors):
                continue
            if len(found) != len(shapes):
                raise ValueError(f"{name} must be {len(shapes)} tensors, got {len(found)}")
            n = next(n for n, shape in enumerate(shapes) if found[n] != shape)
            raise ValueError(f"{name}[{n}] must be {list(shapes[n])}, got {list(found[n])}")

    def hindrance(self) -> str | None:
        """What the fused step does not know of these tensors; None if nothing."""
        device = self.parameters[0].device
        wide = itertools.chain(self.parameters, self.first, self.second)
        return (
            unknown_of(wide, device, torch.float32, what="parameters and moments")
            or unknown_of(self.gradients, device, what="gradients")
            or unknown_of(self.rounded, device, what="copies")
        )


def adam_step(tensors: AdamTensors, rule: AdamRule) -> None:
    """One step of AdamW: parameters, moments and rounded copies are written to.

    The fused form knows contiguous tensors, of one dtype a list; others are moved by torch.

    Raises: ValueError, with the name and place of a tensor, for another shape; UserError for what
        the fused form does not know where that is asked for.
    Source: Loshchilov and Hutter 2019, algorithm 2, arXiv:1711.05101.
    """
    tensors.check()
    if not tensors.parameters:
        return
    if not is_fused(*tensors.parameters[:1], unknown=tensors.hindrance()):
        adam_step_reference(tensors, rule)
        return
    lists = (tensors.parameters, tensors.gradients, tensors.first, tensors.second, tensors.rounded)
    if tensors.parameters[0].is_cuda:
        cuda_lists.adam_step(tensors, rule)
    else:
        _adam_step_on_cpu(lists, rule)
    for written in (lists[0], *lists[2:]):
        torch.autograd.graph.increment_version(written)


def _adam_step_on_cpu(lists: tuple[Tensors, ...], rule: AdamRule) -> None:
    parameters, gradients, *_, rounded = lists
    cpu().adam_step(
        *map(_addresses, lists),
        sizes=[tensor.numel() for tensor in parameters],
        dtype=CODES[gradients[0].dtype],
        rounded_dtype=CODES[rounded[0].dtype] if rounded else 0,
        lr=rule.lr,
        beta1=rule.beta1,
        beta2=rule.beta2,
        eps=rule.eps,
        decay=rule.decay,
        step=rule.step,
        factor=rule.factor,
        threads=torch.get_num_threads(),
    )


@torch.no_grad()
def adam_step_reference(tensors: AdamTensors, rule: AdamRule) -> None:
    """The formula, line by line."""
    tensors.check()
    lists = (tensors.parameters, tensors.gradients, tensors.first, tensors.second)
    for parameter, gradient, first, second in zip(*lists, strict=True):
        slope = gradient.to(first.dtype) * rule.factor
        first.lerp_(slope, 1 - rule.beta1)
        second.mul_(rule.beta2).addcmul_(slope, slope, value=1 - rule.beta2)
        size = (second / (1 - rule.beta2**rule.step)).sqrt_().add_(rule.eps)
        parameter.mul_(1 - rule.lr * rule.decay)
        parameter.addcdiv_(first, size, value=-rule.lr / (1 - rule.beta1**rule.step))
    for copy, parameter in zip(tensors.rounded, tensors.parameters, strict=False):
        copy.copy_(parameter)


def norm_of(tensors: Tensors) -> float:
    """The root of the sum of squares of all numbers; 0 of none.

    On CUDA squares are fp32 numbers: beyond 1e19 they are infinite, below 1e-19 they get lost.
    """
    if not tensors:
        return 0.0
    if not are_fused(tensors):
        return norm_of_reference(tensors)
    if tensors[0].is_cuda:
        return float(cuda_lists.norm_of(tensors))
    return math.sqrt(cpu().sum_of_squares(_addresses(tensors), **_rule(tensors)))


def norm_tensor(tensors: Tensors) -> Tensor:
    """The same as fp32 [1] where the tensors are; on CUDA it is not waited for."""
    if tensors and tensors[0].is_cuda and are_fused(tensors):
        return cuda_lists.norm_of(tensors)
    place = tensors[0].device if tensors else None
    return torch.tensor([norm_of(tensors)], device=place)


def norm_of_reference(tensors: Tensors) -> float:
    """The same of torch's norms."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def scale_all(tensors: Tensors, factor: float) -> bool:
    """Multiply all numbers in place; whether all were finite before."""
    if not tensors:
        return True
    if not are_fused(tensors):
        finite = all_finite(tensors)
        torch._foreach_mul_(list(tensors), factor)
        return finite
    if tensors[0].is_cuda:
        bad = tensors[0].new_zeros(1, dtype=torch.float32)
        cuda_lists.scale_all(tensors, factor, bad=bad)
        torch.autograd.graph.increment_version(tensors)
        return not bad.item()
    found: bool = cpu().scale_all(_addresses(tensors), factor=factor, **_rule(tensors))
    torch.autograd.graph.increment_version(tensors)
    return found


def all_finite(tensors: Tensors) -> bool:
    """Whether no number is infinite or NaN."""
    if not tensors:
        return True
    if not are_fused(tensors):
        return all(bool(tensor.isfinite().all()) for tensor in tensors)
    if tensors[0].is_cuda:
        bad = tensors[0].new_zeros(1, dtype=torch.float32)
        cuda_lists.find_bad(tensors, bad)
        return not bad.item()
    found: bool = cpu().all_finite(_addresses(tensors), **_rule(tensors))
    return found


def is_fused(*tensors: Tensor, unknown: str | None = None) -> bool:
    """Whether tensors like these are worked on in one pass; `unknown` as for `form_of`."""
    return form_of("adam", *tensors, unknown=unknown) != "reference"


def are_fused(tensors: Tensors) -> bool:
    """Whether all of a list, of one tensor at least, are worked on in one pass."""
    return is_fused(*tensors[:1], unknown=unknown_of(tensors, tensors[0].device))


def unknown_of(
    tensors: Iterable[Tensor],
    device: torch.device,
    dtype: torch.dtype | None = None,
    *,
    what: str = "tensors",
) -> str | None:
    """What the fused form does not know of a list, in a few words; None if nothing.

    Args:
        dtype: of all; None: that of the first, one of `FLOATS`.
    """
    for tensor in tensors:
        kind = tensor.dtype
        if dtype is None and kind in FLOATS:
            dtype = kind
        if kind is not dtype:
            other = f" with {_word(dtype)}" if kind in FLOATS else ""
            return f"it does not know {what} of {_word(kind)}{other}"
        if tensor.layout is not torch.strided or not tensor.is_contiguous():
            return f"it does not know {what} that are not contiguous"
        if tensor.device != device:
            return f"it does not know {what} on several devices"
    return None


def _word(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")


def _addresses(tensors: Tensors) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _rule(tensors: Tensors) -> dict[str, object]:
    return {
        "sizes": [tensor.numel() for tensor in tensors],
        "dtype": CODES[tensors[0].dtype],
        "threads": torch.get_num_threads(),
    }
