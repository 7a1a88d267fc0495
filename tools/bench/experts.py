#!/usr/bin/env python3
"""A layer of experts on the CPU, forward and backward: ours beside megatron-core's own.

    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    tools/bench/experts.py --precision bf16 --threads 2 --rounds 9

Each round runs one pass of each, in turn; weights are the same, and outputs are compared. Printed
are medians, and the median and range of the ratios of each round to megatron-core's time.
"""

import argparse
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.model import experts as ours
from megatron_jobs.model.build import build_model
from megatron_jobs.parallel.groups import close, connect, open_groups
from megatron_jobs.runtime.rank import Rank

PLAIN = KernelsConfig(experts="reference")


def layer_of(model: ModelConfig, precision: Any) -> Any:
    """The layer of experts, with weights by the seed."""
    return build_model(model, Mesh(), precision)[0].decoder.layers[0].mlp


def core_layer_of(model: ModelConfig, precision: Any) -> Any:
    """The same of megatron-core's parts, for softmax scores without groups."""
    from megatron.core.transformer.moe.experts import SequentialMLP
    from megatron.core.transformer.moe.moe_layer import MoELayer
    from megatron.core.transformer.moe.router import TopKRouter

    def router(rules: object, **given: Any) -> Any:
        return TopKRouter(**given)

    theirs = {"Router": router, "Experts": SequentialMLP, "MixedLayer": MoELayer}
    own = {name: vars(ours)[name] for name in theirs}
    vars(ours).update(theirs)
    try:
        layer = layer_of(model, precision)
    finally:
        vars(ours).update(own)
    layer.router.config.moe_router_pre_softmax = False  # normalised over the chosen, as ours
    return layer


def passed(layer: Any, x: Tensor, dy: Tensor, kernels: KernelsConfig) -> Tensor:
    """Forward and backward; the output."""
    choose(kernels)
    y: Tensor = layer(x)[0]
    y.backward(dy)
    for parameter in layer.parameters():
        parameter.grad = None
    x.grad = None
    return y


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--visits", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--ffn", type=int, default=512)
    asked = parser.parse_args()
    if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        raise SystemExit("MALLOC_MMAP_THRESHOLD_ is not set: see the first lines of this file")
    torch.set_num_threads(asked.threads)
    model = ModelConfig(
        layers=1, hidden=asked.hidden, heads=8, vocab_size=256, seq_len=1024, position="rope",
        norm="rmsnorm", activation="swiglu", experts=asked.experts, expert_ffn=asked.ffn,
        experts_per_token=asked.visits,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        connect(Rank(index=0, world=1, local=0), Path(folder))
        open_groups(Mesh(), 0)
        compare(model, asked)
        close()


def compare(model: ModelConfig, asked: argparse.Namespace) -> None:
    """Rounds of 4096 tokens."""
    dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
    x, dy = torch.randn(2, 1024, 4, model.hidden).to(dtype)
    x.requires_grad_()
    layer, core = layer_of(model, asked.precision), core_layer_of(model, asked.precision)
    ways = {
        "ours": partial(passed, layer, x, dy, KernelsConfig()),
        "ours, plain kernel": partial(passed, layer, x, dy, PLAIN),
        "megatron-core": partial(passed, core, x, dy, KernelsConfig()),
    }
    outputs = [[way().detach() for way in ways.values()] for _ in range(2)][1]
    norms = [(y.flatten(0, 1) - outputs[0].flatten(0, 1)).float().norm(dim=1) for y in outputs]
    apart = torch.stack(norms).amax(0) > 0.02 * outputs[0].flatten(0, 1).float().norm(dim=1)
    print(f"{float(apart.float().mean()):.2%} of tokens differ: equal logits, either expert")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds["megatron-core"], taken, strict=True)]
        print(
            f"{name:20} {1e3 * statistics.median(taken):7.1f} ms, {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}..{max(ratios):.2f}] x megatron-core"
        )


if __name__ == "__main__":
    main()
