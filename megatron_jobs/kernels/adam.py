"""AdamW over lists of tensors, and what is asked of their gradients: norm, scale, finiteness.

Each call works on all tensors in one pass over memory. Sums are taken over blocks that depend on
the sizes alone: for any number of threads the result is the same bit for bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_jobs.kernels import cuda_lists
from megatron_jobs.kernels.dispatch import form_of
from megatron_jobs.kernels.native import CODES, FLOATS, checked, cpu

Tensors = Sequence[Tensor]
FP32 = (torch.float32,)


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
        """ValueError unless all lists are as long as that of the parameters."""
        for name in ("gradients", "first", "second", "rounded"):
            found = len(getattr(self, name))
            if found != len(self.parameters) and (found or name != "rounded"):
                raise ValueError(f"{name} must be {len(self.parameters)} tensors, got {found}")


def adam_step(tensors: AdamTensors, rule: AdamRule) -> None:
    """One step of AdamW: parameters, moments and rounded copies are written to.

    Raises: ValueError, with the name and place of a tensor, for another dtype or shape, and in
        the fused form for one that is not contiguous.
    Source: Loshchilov and Hutter 2019, algorithm 2, arXiv:1711.05101.
    """
    tensors.check()
    lists = (tensors.parameters, tensors.gradients, tensors.first, tensors.second, tensors.rounded)
    if not tensors.parameters:
        return
    if not is_fused(*tensors.parameters[:1]):
        adam_step_reference(tensors, rule)
        return
    if tensors.parameters[0].is_cuda:
        cuda_lists.adam_step(tensors, rule)
        return
    like = tensors.parameters
    slopes, copies = dtypes_of(tensors.gradients), dtypes_of(tensors.rounded)
    dtypes = (FP32, slopes, FP32, FP32, copies)
    names = ("parameters", "gradients", "first", "second", "rounded")
    every = zip(names, lists, dtypes, strict=True)
    addresses = [_addresses(name, of, dtypes=kinds, like=like) for name, of, kinds in every]
    cpu().adam_step(
        *addresses,
        sizes=[tensor.numel() for tensor in like],
        dtype=CODES[slopes[0]],
        rounded_dtype=CODES[copies[0]],
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
    """The root of the sum of squares of all numbers, which are of one dtype; 0 of none.

    Squares are fp32 numbers: beyond 1e19 they are infinite.
    """
    if not tensors:
        return 0.0
    if not is_fused(*tensors[:1]):
        return norm_of_reference(tensors)
    if tensors[0].is_cuda:
        return float(cuda_lists.norm_of(tensors))
    return math.sqrt(cpu().sum_of_squares(*_addressed(tensors), **_rule(tensors)))


def norm_tensor(tensors: Tensors) -> Tensor:
    """The same as fp32 [1] where the tensors are; on CUDA it is not waited for."""
    if tensors and tensors[0].is_cuda and is_fused(*tensors[:1]):
        return cuda_lists.norm_of(tensors)
    place = tensors[0].device if tensors else None
    return torch.tensor([norm_of(tensors)], device=place)


def norm_of_reference(tensors: Tensors) -> float:
    """The same of torch's norms."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def scale_all(tensors: Tensors, factor: float) -> bool:
    """Multiply all numbers, of one dtype, in place; whether all were finite before."""
    if not tensors:
        return True
    if not is_fused(*tensors[:1]):
        finite = all_finite(tensors)
        torch._foreach_mul_(list(tensors), factor)
        return finite
    if tensors[0].is_cuda:
        bad = tensors[0].new_zeros(1, dtype=torch.float32)
        cuda_lists.scale_all(tensors, factor, bad=bad)
        return not bad.item()
    found: bool = cpu().scale_all(*_addressed(tensors), factor=factor, **_rule(tensors))
    return found


def all_finite(tensors: Tensors) -> bool:
    """Whether no number, all of one dtype, is infinite or NaN."""
    if not tensors:
        return True
    if not is_fused(*tensors[:1]):
        return all(bool(tensor.isfinite().all()) for tensor in tensors)
    if tensors[0].is_cuda:
        bad = tensors[0].new_zeros(1, dtype=torch.float32)
        cuda_lists.find_bad(tensors, bad)
        return not bad.item()
    found: bool = cpu().all_finite(*_addressed(tensors), **_rule(tensors))
    return found


def is_fused(*tensors: Tensor) -> bool:
    """Whether tensors like these are worked on in one pass."""
    return form_of("adam", *tensors) != "reference"


def dtypes_of(tensors: Tensors) -> tuple[torch.dtype, ...]:
    """The dtype that all tensors of a list must have: that of the first."""
    if tensors and tensors[0].dtype in FLOATS:
        return (tensors[0].dtype,)
    return FLOATS


def _addresses(
    name: str, tensors: Tensors, *, dtypes: Sequence[torch.dtype], like: Tensors
) -> list[int]:
    """Of the first numbers; tensors that are not as they must be are named by their place."""
    return [
        checked(f"{name}[{n}]", tensor, dtypes=dtypes, shape=like[n].shape)
        for n, tensor in enumerate(tensors)
    ]


def _addressed(tensors: Tensors) -> tuple[list[int]]:
    return (_addresses("tensors", tensors, dtypes=dtypes_of(tensors), like=tensors),)


def _rule(tensors: Tensors) -> dict[str, object]:
    return {
        "sizes": [tensor.numel() for tensor in tensors],
        "dtype": CODES[tensors[0].dtype],
        "threads": torch.get_num_threads(),
    }
