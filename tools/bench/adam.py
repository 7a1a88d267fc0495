#!/usr/bin/env python3
"""Clip and AdamW of 110 M parameters: ours against torch's clip_grad_norm_ and fused AdamW.

    MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 \\
        tools/bench/adam.py --threads 2 --rounds 15

Sides run in turn; printed are medians, and of the ratios of each round the median and the range.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from megatron_jobs.kernels.adam import norm_of
from megatron_jobs.optim.adam import FusedAdamW

LAYER = [(2304, 768), (768, 768), (4096, 768), (2048, 768), (768,), (768,)]
SHAPES = [(32000, 768), *LAYER * 12]


def parameters() -> list[torch.nn.Parameter]:
    """Weights with gradients, the same each time."""
    draw = torch.Generator().manual_seed(0)
    found = [torch.nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]
    for parameter in found:
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    return found


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> int:
    """Measure both sides in turn."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--threads", type=int, default=1)
    asked.add_argument("--rounds", type=int, default=15)
    words = asked.parse_args()
    torch.set_num_threads(words.threads)
    own, peer = parameters(), parameters()
    ours, theirs = FusedAdamW(own, 1e-3), torch.optim.AdamW(peer, 1e-3, fused=True)
    slopes = [p.grad for p in own if p.grad is not None]

    def our_step() -> None:
        ours.factor = min(1.0, 1 / (norm_of(slopes) + 1e-6))
        ours.step()

    def their_step() -> None:
        torch.nn.utils.clip_grad_norm_(peer, 1.0)
        theirs.step()

    our_step()
    their_step()
    torch.testing.assert_close(own, peer, rtol=1e-5, atol=1e-5)
    rounds = [(seconds(our_step), seconds(their_step)) for _ in range(words.rounds)]
    mine, other = (1e3 * statistics.median(side) for side in zip(*rounds, strict=True))
    ratios = sorted(b / a for a, b in rounds)
    middle = statistics.median(ratios)
    print(f"ours {mine:.1f} ms, torch {other:.1f} ms", end=", ")
    print(f"ratio {middle:.2f} [{ratios[0]:.2f}..{ratios[-1]:.2f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main())
