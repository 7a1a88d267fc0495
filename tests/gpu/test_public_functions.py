"""Public functions on a GPU: gradients against fp64, compilers, streams, sizes beyond 2^31."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.activation import geglu, gelu_tanh, swiglu
from megatron_jobs.kernels.adam import AdamRule, AdamTensors, adam_step, norm_of
from megatron_jobs.kernels.cuda_lists import add_product
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.loss import cross_entropy
from megatron_jobs.kernels.norm import add_rms_norm, layer_norm, rms_norm
from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.kernels.rope import rotate
from megatron_jobs.kernels.softmax import masked_softmax
from tests.emulated import drawn
from tests.gpu.here import need_gpu, on_gpu

need_gpu()
pytestmark = pytest.mark.gpu
BOUND = {torch.float32: 2e-4, torch.bfloat16: 4e-2, torch.float16: 6e-3}


@pytest.fixture(scope="module", autouse=True)
def fused() -> Iterator[None]:
    every = dict.fromkeys(("norm", "activation", "rope", "loss", "softmax", "adam"), "fused")
    choose(KernelsConfig.model_validate(every))
    with on_gpu():
        yield
    choose(KernelsConfig())


def plain_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def plain_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, 1e-5)


def plain_swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, -1)
    return torch.nn.functional.silu(gate) * value


def plain_geglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, -1)
    return torch.nn.functional.gelu(gate) * value


def plain_gelu(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x, approximate="tanh")


def plain_softmax(scores: Tensor) -> Tensor:
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    return (0.3 * scores).masked_fill(~seen, -torch.inf).softmax(-1)


def causal_softmax(scores: Tensor) -> Tensor:
    return masked_softmax(scores, scale=0.3, causal=True)


def plain_add(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return x + bias + residual


Function = Callable[..., Tensor]
CASES: dict[str, tuple[Function, Function, list[tuple[int, ...]]]] = {
    "rms_norm": (rms_norm, plain_rms_norm, [(2, 517, 4096), (4096,)]),
    "layer_norm": (layer_norm, plain_layer_norm, [(1031, 1600), (1600,), (1600,)]),
    "heads": (rms_norm, plain_rms_norm, [(700, 32, 128), (128,)]),
    "swiglu": (swiglu, plain_swiglu, [(2, 300, 11264)]),
    "geglu": (geglu, plain_geglu, [(257, 514)]),
    "gelu": (gelu_tanh, plain_gelu, [(512, 3072)]),
    "softmax": (causal_softmax, plain_softmax, [(2, 3, 1024, 1024)]),
    "residual": (bias_dropout_add, plain_add, [(2048, 1024), (1024,), (2048, 1024)]),
}


def inputs_of(name: str, dtype: torch.dtype) -> list[Tensor]:
    shapes = CASES[name][2]
    every = (drawn(*shape, dtype=dtype, seed=n) for n, shape in enumerate(shapes))
    return [tensor.requires_grad_() for tensor in every]


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_fp64(name: str, dtype: torch.dtype) -> None:
    ours, plain, _ = CASES[name]
    inputs = inputs_of(name, dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = ours(*inputs), plain(*exact)
    bound = BOUND[dtype]
    assert_close(found.double(), expected, rtol=bound, atol=bound)
    dy = drawn(*found.shape, dtype=dtype, seed=9)
    found.backward(dy)
    expected.backward(dy.double())
    for own, other in zip(inputs, exact, strict=True):
        assert own.grad is not None
        assert other.grad is not None
        scale = 1 + float(other.grad.abs().max())
        assert_close(own.grad.double(), other.grad, rtol=bound, atol=bound * scale)


@pytest.mark.parametrize("name", CASES)
def test_two_runs_give_the_same_bits(name: str) -> None:
    runs = []
    for _ in range(2):
        inputs = inputs_of(name, torch.bfloat16)
        out = CASES[name][0](*inputs)
        out.backward(torch.ones_like(out))
        runs.append([out, *(tensor.grad for tensor in inputs)])
    for one, other in zip(*runs, strict=True):
        assert one is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_compilers_take_it_whole(name: str) -> None:
    inputs = inputs_of(name, torch.bfloat16)
    compiled = torch.compile(CASES[name][0], fullgraph=True)
    assert torch.equal(compiled(*inputs), CASES[name][0](*inputs))


@pytest.mark.parametrize("name", CASES)
def test_work_goes_on_the_current_stream(name: str) -> None:
    """A side stream makes the inputs slowly; what ran elsewhere would read zeros."""
    inputs = [tensor.detach() for tensor in inputs_of(name, torch.bfloat16)]
    expected = CASES[name][0](*inputs)
    late = [torch.zeros_like(tensor) for tensor in inputs]
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        for to, tensor in zip(late, inputs, strict=True):
            to.copy_(tensor)
        found = CASES[name][0](*late)
    side.synchronize()
    assert torch.equal(found, expected)


def test_rows_beyond_two_to_the_31_numbers() -> None:
    rows, columns = 540_000, 4096
    x = torch.ones(rows, columns, dtype=torch.bfloat16)
    x[-1] = torch.linspace(-1, 1, columns)
    weight = torch.ones(columns, dtype=torch.bfloat16)
    last = plain_rms_norm(x[-1:].float(), weight.float())
    assert_close(rms_norm(x, weight)[-1:].float(), last, rtol=1e-2, atol=1e-2)
    assert_close(gelu_tanh(x)[-1].float(), plain_gelu(x[-1].float()), rtol=1e-2, atol=1e-2)
    total, summed = add_rms_norm(x, x, weight)
    assert_close(summed[-1], 2 * x[-1])
    assert_close(total[-1:].float(), last, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("vocab", [50257, 128256])
def test_loss_of_a_large_vocabulary(vocab: int) -> None:
    logits = (3 * drawn(300, vocab, dtype=torch.bfloat16)).requires_grad_()
    targets = torch.arange(300) * 101 % vocab
    exact = logits.detach().double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact, targets, reduction="none")
    expected.mean().backward()
    found = cross_entropy(logits.clone(), targets)
    assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)
    found.mean().backward()
    assert logits.grad is not None
    assert exact.grad is not None
    assert_close(logits.grad.double(), exact.grad, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_are_parts_of_one_tensor(interleaved: bool) -> None:
    wide = drawn(512, 2, 3 * 16, 128, dtype=torch.bfloat16)
    q = wide[:, :, 16:32].requires_grad_()
    angles = torch.outer(torch.arange(512.0), 1e4 ** -torch.linspace(0, 1, 64))
    angles = angles.repeat_interleave(2, -1) if interleaved else angles.repeat(1, 2)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    found = rotate(q, cos, sin, interleaved=interleaved)
    choose(KernelsConfig(rope="reference"))
    expected = rotate(q.double(), cos.double(), sin.double(), interleaved=interleaved)
    choose(KernelsConfig(rope="fused"))
    assert_close(found.double(), expected, rtol=2e-2, atol=2e-2)


def test_adam_is_that_of_torch() -> None:
    sizes = [7, 4096 * 4096, 1, 65537]
    parameters = [drawn(size, seed=n) for n, size in enumerate(sizes)]
    gradients = [drawn(size, dtype=torch.bfloat16, seed=n + 9) for n, size in enumerate(sizes)]
    twins = [parameter.clone().requires_grad_() for parameter in parameters]
    for twin, gradient in zip(twins, gradients, strict=True):
        twin.grad = gradient.float()
    torch.optim.AdamW(twins, lr=0.01, weight_decay=0.1, fused=True).step()
    empty = [torch.zeros_like(parameter) for parameter in parameters]
    moments = {"first": empty, "second": [tensor.clone() for tensor in empty]}
    copies = [parameter.bfloat16() for parameter in parameters]
    lists = AdamTensors(parameters=parameters, gradients=gradients, rounded=copies, **moments)
    norm = norm_of(gradients)
    assert_close(norm, float(torch.cat(gradients).double().norm()), rtol=1e-5, atol=0.0)
    adam_step(lists, AdamRule(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.1, step=1))
    for own, twin, copy in zip(parameters, twins, copies, strict=True):
        assert_close(own, twin.detach(), rtol=1e-5, atol=1e-6)
        assert torch.equal(copy, own.bfloat16())


@pytest.mark.parametrize("dtype", BOUND)
def test_weight_gradients_are_added_in_fp32(dtype: torch.dtype) -> None:
    dy, x = drawn(2048, 320, dtype=dtype), drawn(2048, 768, dtype=dtype, seed=2)
    torch.mm(dy.t(), x)  # torch has cuBLAS loaded from here on
    total = drawn(320, 768, seed=3)
    expected = total.double() + dy.double().t() @ x.double()
    add_product(dy, x, total)
    assert_close(total.double(), expected, rtol=1e-3, atol=1e-2)
