"""Which of each cluster of copies stays: chosen over ranks, without a rank that sees a whole one.

Each rank tells the owner of a cluster's least item how many of its own are in it, and its best. The
owner chooses among those, and tells the ranks that asked.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.text.copies.arrays import I64, Floats
from megatron_jobs.text.copies.exchange import Exchange

Keep = Literal["first", "longest", "score", "newest"]


@dataclass(frozen=True)
class Members:
    """Items of this rank that are in clusters of two or more; all arrays [members]."""

    items: I64
    """Rising."""
    clusters: I64
    """The least item of the cluster."""
    keepers: I64
    """The item of the cluster that stays."""
    sizes: I64
    """Items in the cluster."""
    kept_ids: list[str]
    """Ids of the keepers; empty for spans."""


def choose(
    exchange: Exchange,
    labels: I64,
    *,
    scores: Callable[[I64], Floats],
    ids: Callable[[I64], list[str]],
) -> Members:
    """Who stays of the clusters that items of this rank are in.

    Args:
        labels: the least item of the component of each item that this rank owns.
        scores: of items of this rank, rising; the highest stays, of equal ones the lowest item.
        ids: of items of this rank, rising.
    """
    first = int(exchange.bounds[exchange.rank])
    own = np.arange(first, first + len(labels))
    lower = np.flatnonzero(labels != own)
    found = _combine(exchange, _best(labels[lower], own[lower], scores(own[lower])), scores)
    clusters, keepers, sizes = found[:, 0], found[:, 1], found[:, 2]
    in_one = np.isin(labels, clusters, kind="sort")
    items = own[in_one]
    places = np.searchsorted(clusters, labels[in_one])
    names = _ask_ids(exchange, np.unique(keepers), ids)
    kept = (
        names[np.searchsorted(np.unique(keepers), keepers[places])].tolist() if len(names) else []
    )
    return Members(items, clusters[places], keepers[places], sizes[places], kept)


def _best(clusters: I64, items: I64, scores: Floats, counts: I64 | None = None) -> I64:
    """Rows of cluster, best item, bits of its score, count: one a cluster, by cluster."""
    order = np.lexsort((items, -scores, clusters))
    ordered = clusters[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else order
    each = np.ones(len(items), np.int64) if counts is None else counts[order]
    total = np.add.reduceat(each, starts) if len(starts) else np.zeros(0, np.int64)
    best = order[starts]
    bits = scores[best].view(np.int64)
    return np.stack([ordered[starts], items[best], bits, total], axis=1)


def _combine(exchange: Exchange, mine: I64, scores: Callable[[I64], Floats]) -> I64:
    """Rows of cluster, keeper, size, by cluster: of the clusters in `mine`, and of those whose
    least item this rank owns."""
    told, chosen = "members", "keepers"
    if not exchange.is_done(told):
        exchange.send(told, exchange.owners(mine[:, 0]), mine)
        exchange.finish(told)
    exchange.wait(told)
    parts = list(exchange.receive(told, 4))
    rows = np.concatenate([part for _, part in parts] or [np.zeros((0, 4), np.int64)])
    tops = np.unique(rows[:, 0])  # the least item is in its cluster too, and nobody told of it
    own = np.stack([tops, tops, scores(tops).view(np.int64), np.ones_like(tops)], axis=1)
    rows = np.concatenate([rows, own])
    bits = np.ascontiguousarray(rows[:, 2]).view(np.float64)
    final = _best(rows[:, 0], rows[:, 1], bits, rows[:, 3])[:, [0, 1, 3]]
    if not exchange.is_done(chosen):
        to = [np.full(len(part), sender) for sender, part in parts]
        asked = [final[np.searchsorted(final[:, 0], part[:, 0])] for _, part in parts]
        if parts:
            exchange.send(chosen, np.concatenate(to), np.concatenate(asked))
        exchange.finish(chosen)
    exchange.wait(chosen)
    both = np.concatenate([exchange.received(chosen, 3), final])
    return both[np.unique(both[:, 0], return_index=True)[1]]


def _ask_ids(
    exchange: Exchange, items: I64, ids: Callable[[I64], list[str]]
) -> NDArray[np.object_]:
    """The ids of items of any ranks, rising."""
    asked, answered = "ask-ids", "ids"
    owners = exchange.owners(items)
    if not exchange.is_done(asked):
        exchange.send(asked, owners, items[:, None])
        exchange.finish(asked)
    exchange.wait(asked)
    if not exchange.is_done(answered):
        exchange.send_words(answered, dict(_answers(exchange, asked, ids)))
        exchange.finish(answered)
    exchange.wait(answered)
    found = exchange.received_words(answered)
    return np.array([name for rank in sorted(found) for name in found[rank]], np.object_)


def _answers(
    exchange: Exchange, asked: str, ids: Callable[[I64], list[str]]
) -> Iterator[tuple[int, list[str]]]:
    """(who asked, the ids)."""
    parts: dict[int, list[I64]] = {}
    for sender, rows in exchange.receive(asked, 1):
        parts.setdefault(sender, []).append(rows[:, 0])
    wanted = np.unique(np.concatenate([p for some in parts.values() for p in some] or [_NONE]))
    names = dict(zip(wanted.tolist(), ids(wanted), strict=True))
    for sender, some in parts.items():
        yield sender, [names[item] for part in some for item in part.tolist()]


_NONE = np.zeros(0, np.int64)
