"""Connected components of edges that no rank could hold, over ranks that own ranges of the items.

Each edge goes to the owner of its higher end, who keeps union-find over its range (csrc/copies/
links.h). Two items below the range that an edge turns out to join become an edge for a lower
owner, in the next round. The owner of the highest range is done after one round, the next after
two: R ranks need R rounds at most, whatever the graph; most need few. Then every item points to a
lower one, and only the least of each component to itself. Where a range's trees point out of it,
their owners are asked where those point in turn: each round doubles the way, log2 R + 1 in all.

A rank holds 8 bytes an item of its range, and chunks of messages. The result is that of one
process: of each item, the least item of its component.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from megatron_jobs._copies import Links
from megatron_jobs.runtime.files import whole_file
from megatron_jobs.text.copies.arrays import I64, Bools
from megatron_jobs.text.copies.edges import unique_edges
from megatron_jobs.text.copies.exchange import Exchange


def component_labels(exchange: Exchange, edges: Iterable[I64]) -> I64:
    """The least item of the component of each item that this rank owns.

    Args:
        edges: this rank's share of all edges, arrays [n, 2] of items, the higher one first.
    """
    deal_out(exchange, edges)
    return resolve(exchange, link(exchange))


def deal_out(exchange: Exchange, edges: Iterable[I64]) -> None:
    """Send edges to the owners of their higher ends."""
    step = "edges"
    if not exchange.is_done(step):
        parts = [np.zeros((0, 2), np.int64), *edges]
        rows = np.concatenate(parts)
        exchange.send(step, exchange.owners(rows[:, 0]), rows)
        exchange.finish(step, sent=len(rows))
    exchange.wait(step)


def link(exchange: Exchange) -> I64:
    """Join what edges join; returns the parents of the items of this rank."""
    bounds = exchange.bounds
    first, last = int(bounds[exchange.rank]), int(bounds[exchange.rank + 1])
    links, step, rounds = Links(first, last), "edges", 0
    while True:
        following = f"link-{rounds:04d}"
        if exchange.is_done(following):  # before a kill; only the last state is kept
            if _state(exchange, following).exists():
                links = Links.load(first, np.load(_state(exchange, following)))
        else:
            left = [np.zeros((0, 2), np.int64)]
            left += [links.add(rows) for _, rows in exchange.receive(step, 2)]
            rows, _ = unique_edges(np.concatenate(left))
            exchange.send(following, exchange.owners(rows[:, 0]), rows)
            with whole_file(_state(exchange, following)) as part, part.open("wb") as file:
                np.save(file, links.parents())
            exchange.finish(following, sent=len(rows))
        if rounds:
            _state(exchange, step).unlink(missing_ok=True)
        if not sum(note["sent"] for note in exchange.wait(following)):
            return links.parents()
        step, rounds = following, rounds + 1


def resolve(exchange: Exchange, parents: I64) -> I64:
    """Follow parents, over ranks, to the tops; returns those of the items of this rank."""
    first = int(exchange.bounds[exchange.rank])
    tops = Links.load(first, parents).tops(np.arange(first, first + len(parents)))
    out_of = parents[tops - first]  # the top itself, or an item of a lower rank
    outside = np.unique(out_of[out_of < first])
    ways = _Ways(outside, outside.copy(), np.zeros(len(outside), np.bool_))
    rounds = 0
    while True:
        asked, answered = f"ask-{rounds:04d}", f"answer-{rounds:04d}"
        open_ways = ways.reached[~ways.final]
        if not exchange.is_done(asked):
            exchange.send(asked, exchange.owners(open_ways), open_ways[:, None])
            exchange.finish(asked, sent=len(open_ways))
        if not sum(note["sent"] for note in exchange.wait(asked)):
            break
        if not exchange.is_done(answered):
            _answer(exchange, asked, answered, lambda rows: _where(rows, out_of, first, ways))
            exchange.finish(answered)
        exchange.wait(answered)
        ways.follow(exchange.received(answered, 3))
        rounds += 1
    labels = out_of.copy()
    low = labels < first
    labels[low] = ways.reached[np.searchsorted(outside, labels[low])]
    return labels


class _Ways:
    """How far the way from some items of lower ranks is known."""

    def __init__(self, outside: I64, reached: I64, final: Bools) -> None:
        self.outside, self.reached, self.final = outside, reached, final

    def of(self, items: I64) -> tuple[I64, Bools]:
        """(where they lead, whether that is the end) of some of `outside`."""
        places = np.searchsorted(self.outside, items)
        return self.reached[places], self.final[places]

    def follow(self, answers: I64) -> None:
        """Go on from each item to where it leads; answers [n, 3]: item, next, final."""
        answers = answers[np.argsort(answers[:, 0], kind="stable")]
        places = np.searchsorted(answers[:, 0], self.reached)
        places = np.minimum(places, max(len(answers) - 1, 0))
        if not len(answers):
            return
        known = (answers[places, 0] == self.reached) & ~self.final
        self.reached[known] = answers[places[known], 1]
        self.final[known] = answers[places[known], 2] != 0


def _where(items: I64, out_of: I64, first: int, ways: _Ways) -> I64:
    """Of items of this rank, where they lead as far as is known: rows of item, next, final."""
    following = out_of[items - first]
    final = following >= first
    following, final = following.copy(), final.copy()
    outside = ~final
    following[outside], final[outside] = ways.of(following[outside])
    return np.stack([items, following, final.astype(np.int64)], axis=1)


def _answer(exchange: Exchange, asked: str, answered: str, look: Callable[[I64], I64]) -> None:
    """Send each rank what it asked."""
    parts = [(sender, look(rows[:, 0])) for sender, rows in exchange.receive(asked, 1)]
    if parts:
        to = np.concatenate([np.full(len(rows), sender) for sender, rows in parts])
        exchange.send(answered, to, np.concatenate([rows for _, rows in parts]))


def _state(exchange: Exchange, step: str) -> Path:
    return exchange.folder / step / f"{exchange.rank}.npy"
