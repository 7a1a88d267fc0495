#!/usr/bin/env python3
"""A whole training step in bf16: ours beside megatron-core's local spec and plain PyTorch.

    export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296
    tools/bench/step.py --shape small --threads 2 --rounds 5
    tools/bench/step.py --shape llama-1b --rounds 10          # one GPU

Each round runs one step of each, in turn. Printed are tokens a second and, beside torch.compile,
the median and range of the ratios of each round; MFU on a GPU, of --peak. Without the two variables
page faults are much of a step on the CPU. Plain PyTorch has fp32 weights under autocast and fused
AdamW.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from plain import Decoder

from megatron_jobs.config.kernels import KernelsConfig
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.optim import OptimConfig
from megatron_jobs.errors import UserError
from megatron_jobs.kernels.dispatch import choose
from megatron_jobs.parallel.device import engine_device
from megatron_jobs.parallel.groups import close, connect, open_groups
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.step import build_engine, train_step

LLAMA = {"position": "rope", "norm": "rmsnorm", "activation": "swiglu"}
GPT2 = {"position": "learned", "norm": "layernorm", "activation": "gelu_tanh", "bias": True}
SHAPES = {
    "small": LLAMA | {"layers": 8, "hidden": 384, "heads": 6, "ffn": 1024, "vocab_size": 32000,
                      "seq_len": 512, "tied": True},
    "gpt2": GPT2 | {"layers": 12, "hidden": 768, "heads": 12, "vocab_size": 50257, "seq_len": 1024,
                    "tied": True},
    "llama-1b": LLAMA | {"layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 8, "ffn": 8192,
                         "vocab_size": 128256, "seq_len": 4096, "tied": True},
    "llama-7b": LLAMA | {"layers": 32, "hidden": 4096, "heads": 32, "ffn": 11008,
                         "vocab_size": 32000, "seq_len": 4096},
}  # fmt: skip
Step = Callable[[], float]
"""Trains once; returns the loss."""


def main() -> None:
    """Print one line for each way to train."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s in bf16, for MFU")
    asked = parser.parse_args()
    if asked.shape != "small" and not torch.cuda.is_available():
        raise SystemExit(f"--shape: {asked.shape} needs a GPU, there is none; take small")
    if asked.shape == "small" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
        raise SystemExit("MALLOC_MMAP_THRESHOLD_ is not set: see the first lines of this file")
    torch.set_num_threads(asked.threads)
    model = ModelConfig.model_validate(SHAPES[asked.shape])
    with tempfile.TemporaryDirectory() as folder:
        connect(Rank(index=0, world=1, local=0), Path(folder))
        open_groups(Mesh(), 0)
        compare(model, asked)
        close()


def compare(model: ModelConfig, asked: argparse.Namespace) -> None:
    """Rounds of all ways, in turn."""
    batch = batch_of(model, asked.sequences)
    ways = ways_of(model, batch)
    for _ in range(2):  # compiles, and settles memory
        losses = {name: way() for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    tokens = asked.sequences * model.seq_len
    for name, taken in seconds.items():
        rate = tokens / statistics.median(taken)
        pairs = zip(seconds["plain, torch.compile"], taken, strict=True)
        ratios = [theirs / own for theirs, own in pairs]
        share = rate * work(model) / asked.peak / 1e12 if torch.cuda.is_available() else 0
        mfu = f", MFU {share:.1%}" if share else ""
        print(
            f"{name:24} {rate:9,.0f} tokens/s{mfu}, {statistics.median(ratios):.2f} "
            f"[{min(ratios):.2f}..{max(ratios):.2f}] x torch.compile, loss {losses[name]:.3f}"
        )


def work(model: ModelConfig) -> float:
    """Floating-point operations a token: 6 a weight, and causal attention."""
    heads = model.heads + 2 * model.groups()
    layer = model.hidden * model.head_size() * (heads + model.heads)
    layer += model.hidden * model.ffn_size() * (3 if model.is_gated() else 2)
    weights = model.layers * layer + model.padded_vocab() * model.hidden
    return 6.0 * weights + 6.0 * model.layers * model.heads * model.head_size() * model.seq_len


def timed(way: Step) -> float:
    """Seconds."""
    start = time.perf_counter()
    way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def batch_of(model: ModelConfig, sequences: int) -> MicroBatch:
    """Random tokens."""
    torch.manual_seed(0)
    shape = (sequences, model.seq_len)
    device = engine_device()
    tokens, labels = (torch.randint(model.vocab_size, shape, device=device) for _ in range(2))
    places = torch.arange(model.seq_len, device=device).expand(shape)
    mask = torch.ones(shape, device=device)
    return MicroBatch(tokens=tokens, labels=labels, loss_mask=mask, positions=places)


def ways_of(model: ModelConfig, batch: MicroBatch) -> dict[str, Step]:
    """By name; a way that cannot be built is left out, and said."""
    import core_step  # after our engine, which lets megatron-core be imported without triton

    built: dict[str, Callable[[], Step]] = {
        "ours": lambda: our_step(model, batch, KernelsConfig()),
        "ours, plain kernels": lambda: our_step(
            model, batch, KernelsConfig(**dict.fromkeys(KernelsConfig.model_fields, "reference"))
        ),
        "megatron-core, local": lambda: core_step.core_step(model, batch),
        "plain, eager": lambda: plain_step(model, batch, compiled=False),
        "plain, torch.compile": lambda: plain_step(model, batch, compiled=True),
    }
    found = {}
    for name, build in built.items():
        try:
            found[name] = build()
        except (ImportError, UserError, torch.OutOfMemoryError) as error:
            print(f"{name} is left out: {error}")
    return found


def our_step(model: ModelConfig, batch: MicroBatch, kernels: KernelsConfig) -> Step:
    """Through the engine, as a training does."""
    choose(kernels)
    engine = build_engine(model, Mesh(), OptimConfig().over(1000), precision="bf16", seed=0)

    def step() -> float:
        choose(kernels)
        return train_step(engine, [batch], 1).loss

    return step


def plain_step(model: ModelConfig, batch: MicroBatch, *, compiled: bool) -> Step:
    """PyTorch alone."""
    decoder = Decoder(model).to(engine_device())
    run = torch.compile(decoder) if compiled else decoder
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-4, fused=True)

    def step() -> float:
        with torch.autocast(batch["tokens"].device.type, torch.bfloat16):
            loss = run(batch["tokens"], batch["labels"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step


if __name__ == "__main__":
    main()
