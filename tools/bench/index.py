#!/usr/bin/env python3
"""Index builders against numpy's shuffle and megatron-core's helpers, in pairs, results compared.

    tools/bench/index.py --documents 10000000 --samples 20000000 --threads 2 --rounds 5

Each round runs the peer and ours one after the other; printed are the medians and, of the ratios of
each round, the median and the range. `--only whole` runs one of them, `--machine avx2` the blends
by the code for older machines; with `--memory`, the most memory beyond the document lengths that
the whole index takes, each in a process of its own.
"""

import argparse
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs._data import Shuffler, blend, sample_starts
from megatron_jobs.data.source_order import order_of

Outcome = tuple[np.ndarray[Any, Any], ...]


def main() -> int:
    """Print one line a builder."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--samples", type=int, default=20_000_000)
    parser.add_argument("--seq-len", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("whole", "shuffle", "starts", "blend"), default=None)
    parser.add_argument("--machine", choices=("plain", "avx2", "avx512"), default="")
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args()
    peer = load_peer()
    if asked.memory:
        compare_memory(asked, peer)
        return 0
    builders = {"shuffle": compare_shuffle, "starts": compare_starts, "whole": compare_whole}
    for name, compare_builder in builders.items():
        if asked.only in (None, name):
            compare_builder(asked, peer)
    for sources in (2, 8, 64):
        if asked.only in (None, "blend"):
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


def compare_shuffle(asked: argparse.Namespace, peer: Any) -> None:
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


def document_lengths(documents: int) -> np.ndarray[Any, Any]:
    """Log-normal, 1,000 tokens on average."""
    random = np.random.default_rng(0)
    return (random.lognormal(np.log(1000) - 0.72, 1.2, documents) + 1).astype(np.int32)


def compare_starts(asked: argparse.Namespace, peer: Any) -> None:
    """Sample starts of documents in random order."""
    lengths = document_lengths(asked.documents)
    order = np.random.default_rng(1).permutation(asked.documents).astype(np.int32)
    tokens = int(lengths.sum(dtype=np.int64))

    def theirs() -> Outcome:
        build = peer.build_sample_idx_int32
        return (build(lengths, order, asked.seq_len, 1, tokens, True, 1),)

    def ours() -> Outcome:
        return (sample_starts(lengths, order, seq_len=asked.seq_len, threads=asked.threads),)

    compare(f"sample starts, {asked.documents:,} documents", asked.rounds, theirs, ours)


def compare_whole(asked: argparse.Namespace, peer: Any) -> None:
    """Documents in random order, where samples start, samples in random order; one epoch."""
    lengths = document_lengths(asked.documents)

    def theirs() -> Outcome:
        return whole_of_megatron(peer, lengths, asked.seq_len)

    def ours() -> Outcome:
        return our_whole(lengths, asked.seq_len, asked.threads)

    compare(f"whole index, {asked.documents:,} documents", asked.rounds, theirs, ours)


def whole_of_megatron(peer: Any, lengths: np.ndarray[Any, Any], seq_len: int) -> Outcome:
    """The steps of GPTDataset._build_document_sample_shuffle_indices and helpers.py."""
    random = np.random.RandomState(1)
    documents = np.mgrid[0:1, 0 : len(lengths)][1]
    documents[:] = np.arange(len(lengths), dtype=np.int32)
    order = documents.reshape(-1).astype(np.int32)
    del documents  # as where its function returns
    random.shuffle(order)
    tokens = int(np.sum(lengths))
    most = max(len(order), int(lengths.max()))
    starts = peer.build_sample_idx_int32(lengths, order, seq_len, 1, tokens, True, 1)
    assert starts.min() >= 0
    assert starts.max() <= most
    shuffle = np.arange(start=0, stop=len(starts) - 1, step=1, dtype=np.uint32)
    random.shuffle(shuffle)
    return order, starts, shuffle


def our_whole(lengths: np.ndarray[Any, Any], seq_len: int, threads: int) -> Outcome:
    """As `build_order` does it."""
    order, _ = order_of(
        lengths, range(len(lengths)), samples=None, seq_len=seq_len, seed=1, threads=threads
    )
    return order.documents, order.starts, order.shuffle


def compare_memory(asked: argparse.Namespace, peer: Any) -> None:
    """Each in a forked process: what its peak is above where it began."""
    lengths = document_lengths(asked.documents)
    theirs = most_memory(lambda: whole_of_megatron(peer, lengths, asked.seq_len))
    ours = most_memory(lambda: our_whole(lengths, asked.seq_len, asked.threads))
    print(f"whole index, {asked.documents:,} documents: peer {theirs:,} MiB   ours {ours:,} MiB")


def most_memory(work: Callable[[], Outcome]) -> int:
    """MiB that `work` takes at most, its result included."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak_kib()
        result = work()
        os.write(write, str((peak_kib() - before) // 1024).encode())
        del result
        os._exit(0)
    os.waitpid(child, 0)
    return int(os.read(read, 64))


def peak_kib() -> int:
    """The most memory that this process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def compare_blend(asked: argparse.Namespace, peer: Any, sources: int) -> None:
    """The source of each sample of a blend by random weights."""
    weights = np.random.default_rng(sources).dirichlet(np.ones(sources))
    size = asked.samples if sources <= 8 else asked.samples // 4

    def theirs() -> Outcome:
        source, number = np.zeros(size, np.int16), np.zeros(size, np.int64)
        peer.build_blending_indices(source, number, weights, sources, size, False)
        return source, number

    def ours() -> Outcome:
        return blend(weights, size=size, threads=asked.threads, machine=asked.machine)

    compare(f"blend of {sources}, {size:,} samples", asked.rounds, theirs, ours)


if __name__ == "__main__":
    sys.exit(main())
