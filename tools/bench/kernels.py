#!/usr/bin/env python3
"""Fused kernels against eager torch and torch.compile, forward and backward, by public functions.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 \\
        tools/bench/kernels.py --threads 2 --rounds 9 --only rms_norm

Each round runs all sides in turn; printed are the medians, of the ratios of each round to ours the
median and the range, and what must be moved or computed at the least, with its share of the rate at
which this machine copies a tensor or multiplies matrices. Results and gradients are compared first.
Gradients are handed on, as in a step, not kept in `grad`, which would copy one that two inputs
share. Without those two variables the first touch of fresh memory costs more than the work, and
flatters what makes fewer tensors.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.kernels.activation import swiglu
from megatron_jobs.kernels.causal_attention import causal_attention
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.kernels.linear_loss import linear_cross_entropy
from megatron_jobs.kernels.loss import cross_entropy
from megatron_jobs.kernels.norm import layer_norm, rms_norm
from megatron_jobs.kernels.residual import bias_dropout_add
from megatron_jobs.kernels.rope import rotate, turns
from megatron_jobs.kernels.softmax import masked_softmax

Function = Callable[..., Tensor]
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


@dataclass(frozen=True)
class Row:
    """One kernel at one shape."""

    shapes: tuple[tuple[int, ...], ...]
    """Of its inputs, all with gradients."""
    ours: Function
    eager: Function
    formula: Function | None = None
    """What torch.compile compiles, where it is faster than compiled `eager`."""
    moved: float = 0
    """Numbers read and written at the least, forward and backward, in sizes of the first input."""
    operations: float = 0
    """Of its matrix products, forward and backward: their rate is then what it is judged by."""


def plain_rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """As model code writes it out."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * weight).to(x.dtype)


def eager_swiglu(x: Tensor) -> Tensor:
    """As model code writes it."""
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


ANGLES = torch.outer(torch.arange(2048.0), 10000 ** (-torch.arange(32) / 32))
TABLES = {
    dtype: [t.to(dtype) for t in turns(ANGLES, magnitude=1.0, interleaved=False)]
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
}
BEFORE = torch.ones(512, 512, dtype=torch.bool).tril()


def eager_rope(x: Tensor) -> Tensor:
    """As model code writes it."""
    cos, sin = (table[:, None, None] for table in TABLES[x.dtype])
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def eager_softmax(x: Tensor) -> Tensor:
    """Scores of a model that bounds them, as model code writes it."""
    scores = (torch.tanh(x * 0.125 / 50) * 50).masked_fill(~BEFORE, -torch.inf)
    return scores.softmax(-1, dtype=torch.float32).to(x.dtype)


def eager_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of positions first, as a layer has them."""
    heads_first = (x.permute(1, 2, 0, 3) for x in (q, k, v))
    mixed = functional.scaled_dot_product_attention(*heads_first, is_causal=True)
    return mixed.permute(2, 0, 1, 3).flatten(2)


TARGETS = torch.randint(32000, (2048,), generator=torch.Generator().manual_seed(2))
EVEN = torch.full((2048,), 1 / 2048)


def mean_loss(logits: Tensor) -> Tensor:
    """Of logits that their gradient overwrites: from the second round on, of small numbers."""
    return cross_entropy(logits, TARGETS, weights_R=EVEN).mean()


def mean_linear_loss(hidden: Tensor, weight: Tensor) -> Tensor:
    """Without logits of all rows."""
    return linear_cross_entropy(hidden, weight, TARGETS, weights_R=EVEN).mean()


ROWS = {
    "rms_norm": Row(
        ((4096, 2048), (2048,)),
        rms_norm,
        lambda x, w: functional.rms_norm(x, w.shape, w, 1e-6),
        plain_rms_norm,
        moved=5,
    ),
    "layer_norm": Row(
        ((4096, 2048), (2048,), (2048,)),
        layer_norm,
        lambda x, w, b: functional.layer_norm(x, w.shape, w, b),
        moved=5,
    ),
    "rope": Row(((2048, 2, 32, 64),), lambda x: rotate(x, *TABLES[x.dtype]), eager_rope, moved=4),
    "softmax": Row(
        ((2, 16, 512, 512),),
        lambda x: masked_softmax(x, scale=0.125, cap=50.0, causal=True),
        eager_softmax,
        moved=6,
    ),
    "attention": Row(
        ((512, 4, 6, 64),) * 3,
        causal_attention,
        eager_attention,
        operations=7 * 2 * 4 * 6 * 64 * 512**2 / 2,  # of the scores, half are needed
    ),
    "residual": Row(
        ((4096, 2048), (2048,), (4096, 2048)),
        bias_dropout_add,
        lambda x, b, r: r + (x + b),
        moved=4,
    ),
    "loss": Row(
        ((2048, 32000),), mean_loss, lambda x: functional.cross_entropy(x, TARGETS), moved=2
    ),
    "linear_loss": Row(
        ((2048, 768), (32000, 768)),
        mean_linear_loss,
        lambda x, w: functional.cross_entropy(x @ w.t(), TARGETS),
        operations=3 * 2 * 2048 * 768 * 32000,
    ),
    "swiglu": Row(((4096, 11264),), swiglu, eager_swiglu, moved=4),
}


def main() -> int:
    """Print one line a kernel."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--only", choices=sorted(ROWS), default=None)
    parser.add_argument("--no-compile", action="store_true")
    asked = parser.parse_args()
    if not all(name in os.environ for name in MALLOC):
        print(f"without {' and '.join(MALLOC)} page faults count: see the top of this file")
    torch.set_num_threads(asked.threads)
    choose(KernelsConfig())
    for name, row in ROWS.items():
        if asked.only in (None, name):
            compare(name, row, asked)
    return 0


def compare(name: str, row: Row, asked: argparse.Namespace) -> None:
    """Time all sides of one row in turn."""
    draw = torch.Generator().manual_seed(0)
    dtype = getattr(torch, asked.dtype)
    inputs = [torch.randn(shape, generator=draw).to(dtype) for shape in row.shapes]
    functions = {"eager": row.eager}
    if not asked.no_compile:
        functions["compile"] = torch.compile(row.formula or row.eager)
    functions["ours"] = row.ours
    sides = {side: Side(function, inputs) for side, function in functions.items()}
    sides["copy"] = Copy(inputs[0])
    sides["product"] = Product(inputs[0])
    for work in sides.values():
        work.run()
    for side in functions:
        agree(name, sides[side].results, sides["ours"].results, dtype)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(asked.rounds):
        for side, work in sides.items():
            begin = time.perf_counter()
            work.run()
            seconds[side].append(time.perf_counter() - begin)
    report(name, row, asked, seconds)


class Side:
    """A function and its gradient, on inputs of its own."""

    def __init__(self, function: Function, inputs: list[Tensor]) -> None:
        self.function = function
        self.inputs = [x.clone().requires_grad_() for x in inputs]
        found = function(*inputs)  # its gradient is not all ones: those of a softmax would be 0
        draw = torch.Generator().manual_seed(1)
        self.up = torch.randn(found.shape, generator=draw).to(found.dtype)
        if found.dim() == 0:
            self.up = torch.ones_like(found)  # of a loss
        self.results: list[Tensor] = []

    def run(self) -> None:
        """Forward and backward."""
        found = self.function(*self.inputs)
        gradients = torch.autograd.grad(found, self.inputs, self.up)
        if not self.results:
            self.results = [found.detach(), *gradients]


class Copy(Side):
    """The first input copied: what memory can do."""

    def __init__(self, source: Tensor) -> None:
        self.source, self.target = source, torch.empty_like(source)

    def run(self) -> None:
        self.target.copy_(self.source)


class Product(Side):
    """Two square matrices of the same dtype multiplied: what arithmetic can do."""

    operations = 2 * 1024**3

    def __init__(self, like: Tensor) -> None:
        self.left, self.right = (like.new_ones((1024, 1024)) for _ in range(2))

    def run(self) -> None:
        torch.mm(self.left, self.right)


def agree(name: str, theirs: list[Tensor], ours: list[Tensor], dtype: torch.dtype) -> None:
    """Results and gradients within rounding; sums over rows by their largest number."""
    loose = 1e-4 if dtype == torch.float32 else 3e-2
    for a, b in zip(theirs, ours, strict=True):
        apart = (a.float() - b.float()).abs().max() / a.float().abs().max()
        assert apart < loose, f"{name}: apart by {apart}"


def report(name: str, row: Row, asked: argparse.Namespace, seconds: dict[str, list[float]]) -> None:
    """One line."""
    floors = ("copy", "product")
    shown = {side: s for side, s in seconds.items() if side not in floors}
    times = "  ".join(f"{side} {statistics.median(s) * 1e3:.2f} ms" for side, s in shown.items())
    ratios = []
    for side in shown:
        each = [a / b for a, b in zip(seconds[side], seconds["ours"], strict=True)]
        span = f"{statistics.median(each):.2f} [{min(each):.2f}..{max(each):.2f}]"
        ratios += [f"{side}/ours {span}"] if side != "ours" else []
    kind = f"{asked.dtype} x{asked.threads}"
    share = share_of_floor(row, asked, seconds)
    print(f"{name:12} {kind:12} {times}   {'   '.join(ratios)}   {share}", flush=True)


def share_of_floor(row: Row, asked: argparse.Namespace, seconds: dict[str, list[float]]) -> str:
    """What must be done at the least, and how near to the machine's own rate that is."""
    floor = "product" if row.operations else "copy"
    numbers = math.prod(row.shapes[0])
    done = row.operations / Product.operations if row.operations else row.moved / 2
    shares = [done * c / o for c, o in zip(seconds[floor], seconds["ours"], strict=True)]
    size = numbers * row.moved * getattr(torch, asked.dtype).itemsize
    what = f"{row.operations / 1e9:.1f} GFLOP" if row.operations else f"{size / 1e6:.0f} MB"
    return f"{what}, {100 * statistics.median(shares):.0f} % of the {floor} rate"


if __name__ == "__main__":
    sys.exit(main())
