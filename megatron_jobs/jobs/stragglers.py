"""Nodes whose ranks work longer than others for the same step."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.stacks import get, put


class NodeWork(TypedDict):
    """One node of the table."""

    node: str
    ranks: list[int]
    step: int
    own_seconds: float
    """Of its slowest rank: a mean over the last steps, without waiting for other ranks."""
    slowest: int
    """That rank."""
    times: float
    """`own_seconds` over the median of all ranks of the job."""
    straggler: bool


def straggler_table(summaries: Iterable[Mapping[str, Any]], factor: float) -> list[NodeWork]:
    """One row a node, the slowest first; ranks that have measured nothing yet do not count.

    Args:
        summaries: what the watches of the nodes wrote: `name`, `ranks`.
        factor: a node at so many times the median, or more, is a straggler.
    """
    measured = [
        (summary["name"], ranks)
        for summary in summaries
        if (ranks := [rank for rank in summary["ranks"] if rank["own_seconds"] > 0])
    ]
    if not measured:
        return []
    median = statistics.median(rank["own_seconds"] for _, ranks in measured for rank in ranks)
    rows = [_row(host, ranks, median, factor) for host, ranks in measured]
    return sorted(rows, key=lambda row: -row["times"])


def _row(host: str, ranks: list[dict[str, Any]], median: float, factor: float) -> NodeWork:
    slowest = max(ranks, key=lambda rank: rank["own_seconds"])
    times = slowest["own_seconds"] / median
    return NodeWork(
        node=host,
        ranks=[rank["rank"] for rank in ranks],
        step=max(rank["step"] for rank in ranks),
        own_seconds=slowest["own_seconds"],
        slowest=slowest["rank"],
        times=times,
        straggler=times >= factor,
    )


def write_stragglers(folder: JobFolder, rows: list[NodeWork]) -> None:
    """Leave the table where `read_stragglers` finds it."""
    put(folder.watch / "stragglers.json", {"nodes": rows})


def read_stragglers(folder: JobFolder) -> list[NodeWork]:
    """The last table of a job that runs or ran; empty when no watch has seen it work."""
    rows: list[NodeWork] = get(folder.watch / "stragglers.json").get("nodes", [])
    return rows
