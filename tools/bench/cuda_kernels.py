#!/usr/bin/env python3
"""Kernels on a GPU: each one's share of the copy rate measured, and ratios to torch and others.

    tools/bench/cuda_kernels.py [--only norm] [--no-compile] [--json FILE]

Bytes are those that must move at the least: each input read once, each output written once.
Tensors are far larger than the second-level cache. Times are medians of CUDA events about single
calls, which are queued while the GPU is held up: what Python takes is not in them. Sides that are
compared run in turn. bf16 unless the name says otherwise. What fails is named, and left out.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from parts import Parts
from peers import peers_of
from torch import Tensor
from torch.nn import functional

from megatron_jobs.kernels import cuda_experts, cuda_heads, cuda_layers, cuda_lists, cuda_loss
from megatron_jobs.kernels.activation import swiglu
from megatron_jobs.kernels.adam import AdamRule, AdamTensors
from megatron_jobs.kernels.experts_ops import Route
from megatron_jobs.kernels.loss import cross_entropy
from megatron_jobs.kernels.loss_ops import Rule
from megatron_jobs.kernels.norm import rms_norm
from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.kernels.rope import rotate
from megatron_jobs.kernels.softmax import masked_softmax

BF16 = torch.bfloat16
Work = Callable[[], object]
HELD_UP = 3_000_000
"""Cycles, 1.5 ms: Python calls a kernel in some 30 us, forward and backward in some 300."""


@dataclass(frozen=True)
class Kernel:
    """One call, and the bytes that it must move."""

    name: str
    work: Work
    moved: int


@dataclass(frozen=True)
class Pair:
    """A public function, forward and backward, and what users would write; inputs of both."""

    name: str
    ours: Callable[..., Tensor]
    plain: Callable[..., Tensor]
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Result:
    """One line; milliseconds."""

    name: str
    ms: float
    share: float | None = None
    """Of the copy rate."""
    eager: float | None = None
    """Times as long as ours."""
    compiled: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    """Other packages that are installed."""


def drawn(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=dtype)


def size_of(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def layers() -> Iterator[Kernel]:
    """Norms, activations, the residual stream."""
    for rows, columns in ((16384, 4096), (32768, 2048), (524288, 128), (8192, 8192)):
        x, dy, weight = drawn(rows, columns), drawn(rows, columns), drawn(columns)
        name, whole = f"{rows} x {columns}", size_of(x)
        given = x, None, weight, None, 1e-6, False, False
        yield Kernel(f"rms_norm {name}", lambda g=given: cuda_layers.norm(*g), 2 * whole)
        *_, mean, scale = cuda_layers.norm(*given)
        back = dy, x, weight, mean, scale, None, False, False
        moved = 3 * whole
        yield Kernel(f"rms_norm {name} back", lambda b=back: cuda_layers.norm_backward(*b), moved)
    x, y, weight = drawn(16384, 4096), drawn(16384, 4096), drawn(4096)
    added = x, y, weight, weight, 1e-5, False, True
    yield Kernel("layer_norm of a sum", lambda: cuda_layers.norm(*added), 4 * size_of(x))
    wide, slope, bias = drawn(16384, 2 * 11264), drawn(16384, 11264), drawn(2 * 11264)
    moved = size_of(wide, slope)
    yield Kernel("swiglu", lambda: cuda_layers.activation(wide, None, 0, True), moved)
    given_back = slope, wide, None, 0, True
    both = moved + size_of(wide)
    yield Kernel("swiglu back", lambda: cuda_layers.activation_backward(*given_back), both)
    biased = slope, wide, bias, 0, True
    yield Kernel("swiglu bias back", lambda: cuda_layers.activation_backward(*biased), both)
    seed = torch.ones(1, dtype=torch.int64, device="cuda")
    row = drawn(4096)
    yield Kernel("add_residual", lambda: cuda_layers.add_residual(x, row, y), 3 * size_of(x))
    drop = x, row, y, seed, 0.1
    yield Kernel("drop_add", lambda: cuda_layers.drop_add(*drop), 3 * size_of(x))
    yield Kernel(
        "drop_add back", lambda: cuda_layers.drop_add_backward(x, seed, 0.1, True), 2 * size_of(x)
    )


def heads() -> Iterator[Kernel]:
    """Rotary positions, softmax, cross-entropy."""
    x, angles = drawn(8192, 2, 32, 128), drawn(8192, 128)
    for pairs in (False, True):
        given = x, angles, angles, pairs, False
        name = "rope of neighbours" if pairs else "rope"
        yield Kernel(name, lambda g=given: cuda_heads.rope(*g), 2 * size_of(x))
    scores = drawn(4, 16, 2048, 2048)
    yield Kernel(
        "softmax", lambda: cuda_heads.softmax(scores, None, 0.1, 0.0, False), 2 * size_of(scores)
    )
    weights = cuda_heads.softmax(scores, None, 0.1, 0.0, False)
    back = scores, scores, weights, 0.1, 0.0, False
    yield Kernel("softmax back", lambda: cuda_heads.softmax_backward(*back), 3 * size_of(scores))
    for vocab in (32000, 128256):
        logits = drawn(8192, vocab)
        targets = torch.zeros(8192, dtype=torch.int64, device="cuda")
        ones = torch.ones(8192, device="cuda")
        rule = Rule(vocab=vocab)
        given_loss = logits, targets, ones, *rule
        moved = 2 * size_of(logits)
        yield Kernel(f"loss {vocab}", lambda g=given_loss: cuda_loss.loss_whole(*g), moved)
        asked = logits, targets, *rule
        yield Kernel(
            f"loss parts {vocab}", lambda a=asked: cuda_loss.loss_parts(*a), size_of(logits)
        )


def lists() -> Iterator[Kernel]:
    """AdamW, norm, scale; experts."""
    sizes = [4096 * 4096] * 12 + [4096] * 40
    four = [[drawn(size, dtype=torch.float32) for size in sizes] for _ in range(4)]
    slopes, copies = ([tensor.bfloat16() for tensor in four[n]] for n in (1, 0))
    second = [tensor.square() for tensor in four[3]]
    tensors = AdamTensors(
        parameters=four[0], gradients=slopes, first=four[2], second=second, rounded=copies
    )
    rule = AdamRule(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, decay=0.1, step=10)
    fp32 = size_of(*four[0])
    moved = 6 * fp32 + fp32
    yield Kernel("adam bf16", lambda: cuda_lists.adam_step(tensors, rule), moved)
    yield Kernel("norm of fp32", lambda: cuda_lists.norm_of(four[0]), fp32)
    yield Kernel("scale fp32", lambda: cuda_lists.scale_all(four[0], 1.0), 2 * fp32)
    x = drawn(65536, 4096)
    order = torch.randperm(65536, device="cuda")
    yield Kernel("gather_rows", lambda: cuda_experts.gather_rows(x, order), 2 * size_of(x))
    places, weights = order.view(-1, 2), drawn(32768, 2, dtype=torch.float32)
    half = size_of(x) // 2
    yield Kernel("combine", lambda: cuda_experts.combine(x, places, weights), 3 * half)
    dy = drawn(32768, 4096)
    back = dy, x, places, weights
    yield Kernel("combine back", lambda: cuda_experts.combine_backward(*back), 7 * half)
    logits, route = drawn(65536, 128, dtype=torch.float32), Route(8, normalized=True)
    yield Kernel(
        "router 128 to 8", lambda: cuda_experts.choose(logits, route, None), size_of(logits)
    )


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight).to(x.dtype)


def plain_swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


def plain_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None, None] + torch.cat([-second, first], -1) * sin[:, None, None]


def plain_softmax(x: Tensor) -> Tensor:
    before = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device).tril()
    return (x * 0.1).masked_fill(~before, -torch.inf).softmax(-1)


def causal_softmax(x: Tensor) -> Tensor:
    return masked_softmax(x, scale=0.1, causal=True)


def drop_add(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return bias_dropout_add(x, bias, residual, dropout=0.1)


def plain_drop_add(x: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
    return residual + functional.dropout(x + bias, 0.1)


def first_class(logits: Tensor) -> Tensor:
    return torch.zeros(len(logits), dtype=torch.int64, device=logits.device)


def loss(logits: Tensor) -> Tensor:
    """Of a copy, which becomes the gradient: a model's logits need none."""
    return cross_entropy(logits.clone(), first_class(logits))


def plain_loss(logits: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), first_class(logits), reduction="none")


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return rotate(x, cos.detach(), sin.detach())


PAIRS = (
    Pair("rms_norm", rms_norm, plain_norm, ((16384, 4096), (4096,))),
    Pair("swiglu", swiglu, plain_swiglu, ((16384, 22528),)),
    Pair("rope", turned, plain_rope, ((8192, 2, 32, 128), (8192, 128), (8192, 128))),
    Pair("softmax", causal_softmax, plain_softmax, ((4, 16, 2048, 2048),)),
    Pair("drop_add", drop_add, plain_drop_add, ((16384, 4096), (4096,), (16384, 4096))),
    Pair("loss", loss, plain_loss, ((8192, 32000),)),
)


def milliseconds(sides: list[Work], rounds: int) -> list[float]:
    """Of each side, the median of calls that take turns."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 3):
        for side, work in enumerate(sides):
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(HELD_UP)  # type: ignore[no-untyped-call]
            first.record()
            work()
            last.record()
            last.synchronize()
            if turn >= 3:
                times[side].append(first.elapsed_time(last))
    return [statistics.median(every) for every in times]


def copy_rate(rounds: int) -> float:
    """Bytes a millisecond, read and written, of torch's copy of 2 GiB."""
    source = torch.empty(1 << 30, dtype=BF16, device="cuda")
    to = torch.empty_like(source)
    (took,) = milliseconds([lambda: to.copy_(source)], rounds)
    return 2 * size_of(source) / took


def both_ways(function: Callable[..., Tensor], inputs: list[Tensor], dy: Tensor) -> Work:
    def run() -> None:
        for tensor in inputs:
            tensor.grad = None
        function(*inputs).backward(dy)

    return run


def compared(pair: Pair, parts: Parts, *, compiles: bool, rounds: int) -> Result:
    """Ours, eager, compiled, others; the first input learns, and the weight of a norm."""
    inputs = [drawn(*shape) for shape in pair.shapes]
    for tensor in inputs if pair.name == "rms_norm" else inputs[:1]:
        tensor.requires_grad_()
    with torch.no_grad():
        dy = torch.randn_like(pair.ours(*inputs))
    functions = {"ours": pair.ours, "eager": pair.plain, **peers_of(pair.name)}
    if compiles:
        functions["compiled"] = torch.compile(pair.plain)
    sides: dict[str, Work] = {}
    for name, function in functions.items():
        with parts(f"{pair.name}, {name}"):
            work = both_ways(function, inputs, dy)
            work()
            torch.cuda.synchronize()
            sides[name] = work
    took = dict(zip(sides, milliseconds(list(sides.values()), rounds), strict=True))
    ours = took.pop("ours")
    ratios = {name: each / ours for name, each in took.items()}
    eager, compiled = ratios.pop("eager", None), ratios.pop("compiled", None)
    return Result(f"{pair.name} both ways", ours, None, eager, compiled, ratios)


def main() -> None:
    """Print a line for each kernel."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--only", default="", help="part of a name")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    parts = Parts()
    rate = copy_rate(asked.rounds)
    print(f"{torch.cuda.get_device_name()}: copies at {rate / 1e9:.2f} TB/s", flush=True)
    results: list[Result] = []
    for group in (layers, heads, lists):
        with parts(group.__name__):
            results += of_group(group(), parts, rate, asked)
        torch.cuda.empty_cache()
        keep(asked.json, results)
    for pair in (each for each in PAIRS if asked.only in each.name):
        with parts(pair.name):
            compiles = not asked.no_compile
            results.append(compared(pair, parts, compiles=compiles, rounds=asked.rounds))
            report(results[-1])
        keep(asked.json, results)
    parts.end()


def of_group(
    kernels: Iterator[Kernel], parts: Parts, rate: float, asked: argparse.Namespace
) -> Iterator[Result]:
    """Those of its kernels that are asked for and can be run."""
    for kernel in kernels:
        if asked.only not in kernel.name:
            continue
        with parts(kernel.name):
            yield of_copy(kernel, rate, asked.rounds)


def of_copy(kernel: Kernel, rate: float, rounds: int) -> Result:
    """Its share of the copy rate, which is printed."""
    (took,) = milliseconds([kernel.work], rounds)
    share = kernel.moved / took / rate
    print(f"{kernel.name:28} {took:8.3f} ms  {100 * share:5.1f} % of copy", flush=True)
    return Result(kernel.name, took, share)


def report(result: Result) -> None:
    """A line of ratios to ours."""
    ratios = {"eager": result.eager, "compiled": result.compiled, **result.peers}
    words = "  ".join(f"{side} {ratio:.2f}x" for side, ratio in ratios.items() if ratio)
    print(f"{result.name:28} {result.ms:8.3f} ms  {words}", flush=True)


def keep(file: Path | None, results: list[Result]) -> None:
    """All of them so far: time may run out."""
    if file:
        file.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
