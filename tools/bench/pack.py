#!/usr/bin/env python3
"""Best fit packing against OLMo-core's and TRL's packers and a plain Python one, in pairs.

    PYTHONPATH=PEERS tools/bench/pack.py --documents 200000 --capacity 4096 --rounds 5

PEERS is a folder with ai2-olmo-core and trl (pip install --no-deps --target PEERS); those that are
missing are left out. Each round runs the peer and ours one after the other; printed are the medians
and, of the ratios of each round, the median and the range. Every packer must fill as many bins to
the same level: which of equally full bins is taken makes no difference to that. Ours alone is then
timed on more documents. TRL's also gathers the tokens, here of one byte.
"""

import argparse
import bisect
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._pack import best_fit

Lengths = NDArray[np.int32]
Levels = Counter[int]
"""How many bins hold how many tokens."""


class Peer(NamedTuple):
    """A packer."""

    name: str
    prepare: Callable[[Lengths], Any]
    """Brings lengths into its form; not timed."""
    pack: Callable[[Any], Any]
    levels: Callable[[Any], Levels]
    """Of what `pack` returned; not timed."""


def main() -> None:
    """Print one line a peer."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--many", type=int, default=10_000_000, help="for ours alone")
    parser.add_argument("--capacity", type=int, default=4096, help="a power of 2: OLMo's rule")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    lengths = draw_lengths(asked.documents, asked.capacity)
    for peer in peers(asked.capacity):
        compare(peer, lengths, asked)
    many = draw_lengths(asked.many, asked.capacity)
    seconds = [timed(lambda: best_fit(many, capacity=asked.capacity))[0] for _ in range(3)]
    _, first = best_fit(many, capacity=asked.capacity)
    padding = 1 - int(many.sum(dtype=np.int64)) / (asked.capacity * (len(first) - 1))
    rate = asked.many / statistics.median(seconds) / 1e6
    print(f"ours, {asked.many:,} pieces: {rate:.1f} million a second, padding {padding:.2e}")


def draw_lengths(documents: int, capacity: int) -> Lengths:
    """Log-normal lengths, 1,000 tokens on average; longer ones count as whole bins."""
    draw = np.random.default_rng(0).lognormal(np.log(1000) - 0.72, 1.2, documents)
    return np.minimum(draw + 1, capacity).astype(np.int32)


def peers(capacity: int) -> Iterator[Peer]:
    """Those that are there."""
    yield Peer(
        "plain Python, sorted list",
        lambda lengths: np.sort(lengths)[::-1].tolist(),
        lambda lengths: plain(lengths, capacity),
        lambda levels: levels,  # type: ignore[no-any-return]
    )
    try:
        from olmo_core.data.utils import InstancePacker
    except ImportError as error:
        print(f"OLMo-core is left out: {error}")
    else:
        pack = lambda spans: InstancePacker(capacity).pack_documents(spans)  # noqa: E731
        yield Peer("OLMo-core, segment tree", olmo_spans, pack, olmo_levels)
    try:
        from trl.data_utils import _pack_bfd
    except ImportError as error:
        print(f"TRL is left out: {error}")
    else:
        pack = lambda table: _pack_bfd(table, capacity, "split")  # noqa: E731
        yield Peer("TRL, segment tree", trl_table, pack, trl_levels)


def plain(lengths: list[int], capacity: int) -> Levels:
    """The rooms of open bins in a sorted list; it tells levels, not which piece is where."""
    rooms: list[int] = []
    full: Levels = Counter()
    for length in lengths:
        place = bisect.bisect_left(rooms, length)
        room = (rooms.pop(place) if place < len(rooms) else capacity) - length
        if room:
            bisect.insort(rooms, room)
        else:
            full[capacity] += 1
    full.update(capacity - room for room in rooms)
    return full


def olmo_spans(lengths: Lengths) -> NDArray[np.int64]:
    """Starts and ends of documents."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.stack([ends - lengths, ends], axis=1)


def olmo_levels(packed: Any) -> Levels:
    """Documents of each bin, and where they start and end."""
    bins, spans, _ = packed
    sizes = (spans[:, 1] - spans[:, 0]).tolist()
    return Counter(sum(sizes[piece] for piece in members) for members in bins)


def trl_table(lengths: Lengths) -> Any:
    """An Arrow table of token lists."""
    import pyarrow

    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    column = pyarrow.LargeListArray.from_arrays(offsets, np.zeros(offsets[-1], np.int8))
    return pyarrow.table({"input_ids": column})


def trl_levels(packed: Any) -> Levels:
    """Lists of the tokens of a bin."""
    import pyarrow.compute

    return Counter(pyarrow.compute.list_value_length(packed["input_ids"]).to_pylist())


def our_levels(lengths: Lengths, packed: tuple[Any, Any]) -> Levels:
    """The same of ours."""
    order, first = packed
    return Counter(np.add.reduceat(lengths[order], first[:-1]).tolist())


def compare(peer: Peer, lengths: Lengths, asked: argparse.Namespace) -> None:
    """Time both in turn; the bins must be as full."""
    seconds: list[tuple[float, float]] = []
    form = peer.prepare(lengths)
    for _ in range(asked.rounds):
        their, packed = timed(lambda: peer.pack(form))
        our, got = timed(lambda: best_fit(lengths, capacity=asked.capacity))
        assert peer.levels(packed) == our_levels(lengths, got), f"{peer.name}: other bins"
        seconds.append((their, our))
    ratios = [their / our for their, our in seconds]
    their, our = (statistics.median(column) for column in zip(*seconds, strict=True))
    span = f"{statistics.median(ratios):.0f} [{min(ratios):.0f}..{max(ratios):.0f}]"
    print(f"{peer.name:28} peer {their:.3f} s   ours {our:.4f} s   ratio {span}", flush=True)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came out."""
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


if __name__ == "__main__":
    main()
