#!/usr/bin/env python3
"""Whole training steps in bf16 on one GPU: tokens a second and MFU, ours and torch.compile's.

    tools/bench/gpu_step.py [--shapes llama-1b llama-7b] [--seconds 12] [--json FILE]

One after the other, for two do not fit beside each other: clocks of the GPU may differ between
them. A shape whose weights, optimizer and activations do not fit takes as many layers as do, which
is said: MFU is of those. A step is four micro batches, so that the optimizer has its usual share.
"""

import argparse
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from parts import Parts
from plain import Decoder
from step import SHAPES, batch_of, work

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.estimate.memory import training_bytes
from megatron_jobs.parallel.device import engine_device, wait_for_device
from megatron_jobs.parallel.groups import close, connect, open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.step import build_engine, train_step

MICRO = 4
"""Micro batches of a step."""
TOKENS = 8192
"""Of a micro batch, about."""
SHARE = 0.85
"""Of the memory that is free: the rest is for what the estimate leaves out."""
Step = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """One line."""

    shape: str
    layers: int
    way: str
    tokens_per_second: float
    mfu: float


def fitting(model: ModelConfig, sequences: int, room: float) -> ModelConfig:
    """The model with as many of its layers as `room` bytes hold; one at the least."""
    for layers in range(model.layers, 1, -1):
        part = model.model_copy(update={"layers": layers})
        if training_bytes(part, Mesh(), "bf16", micro_size=sequences, world=1) <= room:
            return part
    return model.model_copy(update={"layers": 1})


def our_step(model: ModelConfig, batch: MicroBatch) -> Step:
    """Through the engine, as a training does."""
    engine = build_engine(model, Mesh(), OptimConfig().over(1000), precision="bf16", seed=0)
    return lambda: train_step(engine, [batch] * MICRO, 1)


def compiled_step(model: ModelConfig, batch: MicroBatch) -> Step:
    """PyTorch alone: fp32 weights under autocast, fused AdamW."""
    decoder = Decoder(model).to(engine_device())
    run = torch.compile(decoder)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        for _ in range(MICRO):
            with torch.autocast("cuda", torch.bfloat16):
                loss = run(batch["tokens"], batch["labels"])
            (loss / MICRO).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


WAYS: dict[str, Callable[[ModelConfig, MicroBatch], Step]] = {
    "ours": our_step,
    "torch.compile": compiled_step,
}


def seconds_of(step: Step, budget: float) -> float:
    """Median of the steps of so many seconds, three at the least, after two to warm up."""
    taken: list[float] = []
    while len(taken) < 5 or sum(taken[2:]) < budget:
        start = time.perf_counter()
        step()
        wait_for_device()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[2:])


def measured(shape: str, way: str, asked: argparse.Namespace) -> Result:
    """Build, run, let go."""
    whole = ModelConfig.model_validate(SHAPES[shape])
    sequences = max(1, TOKENS // whole.seq_len)
    model = fitting(whole, sequences, SHARE * torch.cuda.mem_get_info()[0])
    if model.layers < whole.layers:
        need = training_bytes(whole, Mesh(), "bf16", micro_size=sequences, world=1)
        print(
            f"{shape}: {model.layers} of {whole.layers} layers, all take {need / 1e9:.0f} GB "
            f"of {torch.cuda.mem_get_info()[0] / 1e9:.0f}",
            flush=True,
        )
    took = seconds_of(WAYS[way](model, batch_of(model, sequences)), asked.seconds)
    rate = MICRO * sequences * model.seq_len / took
    return Result(shape, model.layers, way, rate, rate * work(model) / asked.peak / 1e12)


def main() -> None:
    """Print a line for each shape and way."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["llama-1b", "llama-7b"])
    parser.add_argument("--seconds", type=float, default=12, help="of each, after compiling")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s in bf16, for MFU")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu_step: torch sees no GPU")
    results: list[Result] = []
    parts = Parts()
    with tempfile.TemporaryDirectory() as folder:
        connect(Rank(index=0, world=1, local=0), Path(folder))
        open_groups(Mesh(), 0)
        # ours of all shapes first: time may run out in a compiler
        for way, shape in itertools.product(WAYS, asked.shapes):
            with parts(f"{shape}, {way}"):
                results.append(measured(shape, way, asked))
                report(results)
                keep(asked.json, results)
            gc.collect()
            torch.cuda.empty_cache()
        close()
    parts.end()


def keep(file: Path | None, results: list[Result]) -> None:
    """All of them so far: time may run out."""
    if file:
        file.write_text(json.dumps([asdict(each) for each in results], indent=1))


def report(results: list[Result]) -> None:
    """The last of them, and its ratio to ours."""
    last = results[-1]
    ours = next((r for r in results if r.shape == last.shape and r.way == "ours"), last)
    ratio = f", ours {ours.tokens_per_second / last.tokens_per_second:.2f} x" * (ours is not last)
    print(
        f"{last.shape:9} {last.layers:2} layers  {last.way:14} {last.tokens_per_second:9,.0f} "
        f"tokens/s, MFU {last.mfu:.1%}{ratio}",
        flush=True,
    )


if __name__ == "__main__":
    main()
