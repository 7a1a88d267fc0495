#!/usr/bin/env python3
"""Index builders against numpy's shuffle and megatron-core's helpers, in pairs, results compared.

    tools/bench/index.py --documents 10000000 --samples 20000000 --threads 2 --rounds 5

Each round runs the peer and ours one after the other; printed are the medians and, of the ratios of
each round, the median and the range.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs._data import Shuffler, blend, sample_starts

Outcome = tuple[np.ndarray[Any, Any], ...]


def main() -> int:
    """Print one line a builder."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--samples", type=int, default=20_000_000)
    parser.add_argument("--seq-len", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    peer = load_peer()
    compare_shuffle(asked)
    compare_starts(asked, peer)
    for sources in (2, 8, 64):
        compare_blend(asked, peer, sources)
    return 0


def load_peer() -> Any:
    """megatron-core's compiled helpers, without the rest of it."""
    spec = importlib.util.find_spec("megatron")
    places = list(spec.submodule_search_locations or []) if spec else []
    files = [file for p in places for file in Path(p, "core/datasets").glob("helpers_cpp*.so")]
    if not files:
        sys.exit("bench: megatron-core's compiled helpers are not installed; nothing to compare")
    found = importlib.util.spec_from_file_location("helpers_cpp", files[0])
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def compare(
    what: str, rounds: int, theirs: Callable[[], Outcome], ours: Callable[[], Outcome]
) -> None:
    """Time both in turn; the results must be equal to the bit."""
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds):
        start = time.perf_counter()
        wanted = theirs()
        middle = time.perf_counter()
        got = ours()
        seconds.append((middle - start, time.perf_counter() - middle))
        assert all(np.array_equal(a, b) for a, b in zip(wanted, got, strict=True)), what
    ratios = [their / our for their, our in seconds]
    their, our = (statistics.median(column) for column in zip(*seconds, strict=True))
    span = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}..{max(ratios):.2f}]"
    print(f"{what:40} peer {their:.3f} s   ours {our:.3f} s   ratio {span}", flush=True)


def compare_shuffle(asked: argparse.Namespace) -> None:
    """Documents in random order."""

    def theirs() -> Outcome:
        values = np.arange(asked.documents, dtype=np.int32)
        np.random.RandomState(1).shuffle(values)
        return (values,)

    def ours() -> Outcome:
        values = np.arange(asked.documents, dtype=np.int32)
        Shuffler(1).shuffle(values)
        return (values,)

    compare(f"shuffle of {asked.documents:,}", asked.rounds, theirs, ours)


def compare_starts(asked: argparse.Namespace, peer: Any) -> None:
    """Sample starts of documents of log-normal length, 1,000 tokens on average."""
    random = np.random.default_rng(0)
    lengths = (random.lognormal(np.log(1000) - 0.72, 1.2, asked.documents) + 1).astype(np.int32)
    order = random.permutation(asked.documents).astype(np.int32)
    tokens = int(lengths.sum(dtype=np.int64))

    def theirs() -> Outcome:
        build = peer.build_sample_idx_int32
        return (build(lengths, order, asked.seq_len, 1, tokens, True, 1),)

    def ours() -> Outcome:
        return (sample_starts(lengths, order, seq_len=asked.seq_len, threads=asked.threads),)

    compare(f"sample starts, {asked.documents:,} documents", asked.rounds, theirs, ours)


def compare_blend(asked: argparse.Namespace, peer: Any, sources: int) -> None:
    """The source of each sample of a blend by random weights."""
    weights = np.random.default_rng(sources).dirichlet(np.ones(sources))
    size = asked.samples if sources <= 8 else asked.samples // 8

    def theirs() -> Outcome:
        source, number = np.zeros(size, np.int16), np.zeros(size, np.int64)
        peer.build_blending_indices(source, number, weights, sources, size, False)
        return source, number

    def ours() -> Outcome:
        return blend(weights, size=size, threads=asked.threads)

    compare(f"blend of {sources}, {size:,} samples", asked.rounds, theirs, ours)


if __name__ == "__main__":
    sys.exit(main())
