"""Tensors of two GPUs are refused by name, whatever the kernel; no GPU is needed to see it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from megatron_jobs.kernels import cuda_experts, cuda_heads, cuda_layers, cuda_lists, cuda_loss
from megatron_jobs.kernels import native as loaded
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.kernels.loss_ops import Rule


class Reached(Exception):
    """A call passed all checks."""


class Extension:
    """Stands where the compiled one would: of sizes it knows what a check needs."""

    EMULATED = False

    def __getattr__(self, name: str) -> Callable[..., int]:
        def work(*_: Any, **__: Any) -> int:
            if name.endswith("scratch"):
                return 8
            raise Reached(name)

        return work


CALLS: dict[str, Callable[..., Any]] = {
    "norm": lambda x, residual, weight, bias: cuda_layers.norm(
        x, residual, weight, bias, 1e-5, False, True
    ),
    "norm_backward": lambda x, dy, dsum, weight, mean, scale: cuda_layers.norm_backward(
        dy, x, weight, mean, scale, dsum, False, True
    ),
    "activation": lambda x, bias: cuda_layers.activation(x, bias, 0, False),
    "activation_backward": lambda x, dy, bias: cuda_layers.activation_backward(
        dy, x, bias, 0, False
    ),
    "drop_add": lambda x, residual, bias, seed: cuda_layers.drop_add(x, bias, residual, seed, 0.5),
    "rope": lambda wide, cos, sin: cuda_heads.rope(wide, cos, sin, False, False),
    "softmax": lambda wide, allowed: cuda_heads.softmax(wide, allowed, 1.0, 0.0, False),
    "softmax_backward": lambda wide, dwide, weights: cuda_heads.softmax_backward(
        dwide, wide, weights, 1.0, 0.0, False
    ),
    "loss": lambda x, targets, mean: cuda_loss.loss_whole(x, targets, mean, *Rule(vocab=8)),
    "router": lambda x, fp32: cuda_experts.choose(x, Route(2), fp32),
    "combine": lambda x, places, scales: cuda_experts.combine(x, places, scales),
    "squares": lambda x, dy: cuda_lists.norm_of([x, dy]),
    "scale": lambda x, one: cuda_lists.scale_all([x], 2.0, by=one),
}
"""By the names of TENSORS."""
NAMES = {
    "rope": {"wide": "x"},
    "softmax": {"wide": "scores"},
    "softmax_backward": {"wide": "scores", "dwide": "dweights"},
    "loss": {"x": "logits", "mean": "weights"},
    "router": {"x": "logits", "fp32": "bias"},
    "combine": {"scales": "weights"},
    "squares": {"x": "tensors[0]", "dy": "tensors[1]"},
    "scale": {"x": "tensors[0]", "one": "by"},
}
"""What the kernels themselves call them."""
TENSORS: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
    **dict.fromkeys(("x", "dy", "dsum", "residual"), ((4, 8), torch.float32)),
    **dict.fromkeys(("weight", "bias", "fp32"), ((8,), torch.float32)),
    **dict.fromkeys(("mean", "scale"), ((4,), torch.float32)),
    **dict.fromkeys(("wide", "dwide", "weights"), ((4, 2, 3, 8), torch.float32)),
    **dict.fromkeys(("cos", "sin"), ((4, 8), torch.float32)),
    "allowed": ((4, 2, 3, 8), torch.bool),
    "targets": ((4,), torch.int64),
    "places": ((4, 2), torch.int64),
    "scales": ((4, 2), torch.float32),
    "seed": ((1,), torch.int64),
    "one": ((1,), torch.float32),
}


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake ones, the first of which is current."""
    monkeypatch.setitem(loaded.MODULES, "_cuda", Extension())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(FakeTensor, "data_ptr", lambda _: 16)

    class Stream:
        cuda_stream = 0

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream)


def tensors_of(call: Callable[..., Any], far: str | None) -> dict[str, Tensor]:
    """Its arguments, `far` on the second GPU."""
    names = call.__code__.co_varnames[: call.__code__.co_argcount]
    return {name: placed(*TENSORS[name], f"cuda:{int(name == far)}") for name in names}


def placed(shape: tuple[int, ...], dtype: torch.dtype, gpu: str) -> Tensor:
    """Not by torch.empty, which tests of training have put tensors for a GPU on the CPU."""
    mode = FakeTensorMode()
    return FakeTensor(mode, torch.empty(shape, dtype=dtype, device="meta"), torch.device(gpu))


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("kernel", CALLS)
def test_each_tensor_must_be_on_the_current_gpu(kernel: str) -> None:
    call = CALLS[kernel]
    names = list(tensors_of(call, None))
    with pytest.raises(Reached):
        call(**tensors_of(call, None))
    assert len(names) > 1
    for far in names:
        name = re.escape(NAMES.get(kernel, {}).get(far, far))
        words = f"^{name} must be on cuda:0, the current one, got cuda:1$"
        with pytest.raises(ValueError, match=words):
            call(**tensors_of(call, far))
