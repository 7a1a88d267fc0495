"""A rank's part in finding clusters: its share of the units, from edges to removals."""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.runtime.files import read_json, write_json
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.copies.clusters import Keep, Members, choose
from megatron_jobs.text.copies.components import component_labels
from megatron_jobs.text.copies.exchange import Exchange
from megatron_jobs.text.copies.planted import count_planted
from megatron_jobs.text.copies.removals import Removal, write_about, write_removals
from megatron_jobs.text.copies.store import Fingerprints, Row

LAST = "last"
NUMBERS = ("documents", "items", "clusters", "removed")
LARGEST = 20
"""Clusters that are named in the report."""


class ClusterWork:
    """What one rank does; see `run`."""

    def __init__(
        self, *, fingerprints: Path, edges: Path, keep: Keep, folder: Path, rank: Rank
    ) -> None:
        self.prints = Fingerprints(fingerprints)
        self.edges, self.keep, self.folder, self.rank = edges, keep, folder, rank
        shares = unit_shares(self.prints.bases, rank.world)
        self.units = range(shares[rank.index], shares[rank.index + 1])
        self.exchange = Exchange(folder / "steps", rank.index, self.prints.bases[shares])

    def run(self) -> None:
        """Write the removals of this rank's units."""
        if self.exchange.is_done(LAST):
            return
        progress = Progress(self.folder, total=4, unit="steps")
        self._report(progress, 0)
        labels = component_labels(self.exchange, self._edges())
        self._report(progress, 2)
        planted, found = 0, 0
        if self.prints.about["planted"]:
            planted, found = count_planted(self.exchange, self.prints, self.units, labels)
        members = choose(self.exchange, labels, scores=self._scores, ids=self._ids)
        self._report(progress, 3)
        if not self.exchange.is_done("removals"):
            facts = self._write(members) | {"planted": planted, "planted_found": found}
            write_json(self.folder / "steps" / f"facts-{self.rank.index}.json", facts)
            self.exchange.finish("removals")
        self.exchange.wait("removals")
        self._report(progress, 4)
        self.exchange.finish(LAST)  # nobody will read the messages again

    def report(self, matches: Path) -> dict[str, float]:
        """Add the ranks' facts up, into duplicates.json; the numbers of the receipt."""
        self.exchange.wait(LAST)
        method = self.prints.settings.method
        write_about(self.folder / "removals", self.prints, rule=method)
        paths = [self.folder / "steps" / f"facts-{i}.json" for i in range(self.rank.world)]
        ranks = [read_json(path) for path in paths]
        found: dict[str, Any] = {
            name: sum(facts[name] for facts in ranks)
            for name in (*NUMBERS, "planted", "planted_found")
        }
        found["method"] = self.prints.settings.method
        found["keep"] = self.keep
        found["clusters_by_size"] = dict(_added(facts["by_size"] for facts in ranks))
        largest = sorted((one for facts in ranks for one in facts["largest"]), reverse=True)
        found["largest"] = [{"size": s, "kept": kept} for s, _, kept in largest[:LARGEST]]
        found["sources"] = dict(_added(facts["sources"] for facts in ranks))
        found["removed_by_source"] = dict(_added(facts["removed_by_source"] for facts in ranks))
        if matches.exists():
            found["pairs"] = read_json(matches)
        write_json(self.folder / "duplicates.json", found)
        self.exchange.forget()
        numbers = {name: float(found[name]) for name in NUMBERS}
        if found["planted"]:
            numbers["planted_recall"] = found["planted_found"] / found["planted"]
        return numbers

    def _edges(self) -> Iterator[I64]:
        files = sorted(self.edges.glob("*.npy"))
        return (np.load(file) for file in files[self.rank.index :: self.rank.world])

    def _rows(self, items: I64) -> Iterator[Row]:
        """What is kept of documents of this rank, rising."""
        for unit in np.unique(self.prints.unit_of(items)).tolist():
            wanted = set((items - self.prints.bases[unit]).tolist())
            yield from self.prints.rows_of(unit, wanted)

    def _scores(self, items: I64) -> NDArray[np.float64]:
        if self.keep == "first":
            return np.zeros(len(items))
        return np.array([score_of(row, self.keep) for row in self._rows(items)], np.float64)

    def _ids(self, items: I64) -> list[str]:
        if self.prints.settings.of_spans:
            return [""] * len(items)
        return [row.id for row in self._rows(items)]

    def _write(self, members: Members) -> dict[str, Any]:
        """Write the removals of each unit; returns facts for the report."""
        goes = members.items != members.keepers
        sources, removed_by = Counter[str](), Counter[str]()
        for unit in self.units:
            low, high = self.prints.bases[unit], self.prints.bases[unit + 1]
            first, last = np.searchsorted(members.items, [low, high])
            places = first + np.flatnonzero(goes[first:last])
            write_removals(self.folder / "removals", unit, _removals(members, places, int(low)))
            sources.update(self.prints.units[unit].sources)
            if not self.prints.settings.of_spans:
                gone = set((members.items[places] - low).tolist())
                removed_by.update(row.source for row in self.prints.rows_of(unit, gone))
        tops = np.flatnonzero(members.items == members.clusters)
        sizes = members.sizes[tops]
        largest = tops[np.argsort(-sizes, kind="stable")[:LARGEST]]
        return {
            "documents": sum(self.prints.units[unit].documents for unit in self.units),
            "items": sum(self.prints.units[unit].items for unit in self.units),
            "clusters": len(tops),
            "removed": int(goes.sum()),
            "by_size": Counter(str(size.bit_length()) for size in sizes.tolist()),
            "largest": [_shown(members, place) for place in largest.tolist()],
            "sources": sources,
            "removed_by_source": removed_by,
        }

    def _report(self, progress: Progress, done: int) -> None:
        if self.rank.leads:
            progress.update(done)


def unit_shares(bases: I64, world: int) -> I64:
    """[world + 1]: the first unit of each rank, so that all have near equally many items."""
    wanted = bases[-1] * np.arange(1, world) / world
    inner = np.searchsorted(bases, wanted)
    return np.concatenate([[0], inner, [len(bases) - 1]]).astype(np.int64)


def score_of(row: Row, keep: Keep) -> float:
    """What a document is chosen by; minus infinity when it does not say."""
    if keep == "longest":
        return float(row.bytes)
    if keep == "score":
        return -math.inf if row.score is None or math.isnan(row.score) else row.score
    try:
        found = datetime.fromisoformat(row.date)
    except ValueError:
        return -math.inf
    return found.replace(tzinfo=found.tzinfo or UTC).timestamp()


def _removals(members: Members, places: I64, base: int) -> Iterator[Removal]:
    columns = (members.items[places] - base, members.clusters[places], members.sizes[places])
    rows = zip(*(column.tolist() for column in columns), places.tolist(), strict=True)
    for row, cluster, size, place in rows:
        yield Removal(row, cluster, size, members.kept_ids[place] if members.kept_ids else "")


def _shown(members: Members, place: int) -> list[Any]:
    kept = members.kept_ids[place] if members.kept_ids else ""
    return [int(members.sizes[place]), -int(members.clusters[place]), kept]


def _added(counts: Iterator[dict[str, int]]) -> list[tuple[str, int]]:
    total = Counter[str]()
    for some in counts:
        total.update(some)
    return sorted(total.items())
