"""The nodes of a running job: who is slow, and what its ranks are doing."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from megatron_jobs.jobs.arrays import short_list
from megatron_jobs.jobs.stragglers import NodeWork
from megatron_jobs.terminal.status import open_console

COLUMNS = ("node", "ranks", "step", "own seconds a step", "times the median", "")


def show_nodes(job: str, rows: Sequence[NodeWork]) -> None:
    """Print one line a node, the slowest first; the median is that of all ranks of the job."""
    if not rows:
        print(f"{job}: no node has told how long its steps take; only running training does")
        return
    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, no_wrap=True, justify="left" if name in ("node", "") else "right")
    for row in rows:
        cells = [row["node"], short_list(row["ranks"]), str(row["step"])]
        cells += [f"{row['own_seconds']:.3f}", f"{row['times']:.2f}"]
        note = f"straggler, rank {row['slowest']}" if row["straggler"] else ""
        style = "bold red" if row["straggler"] else ""
        table.add_row(*[Text(cell, style) for cell in (*cells, note)])
    open_console().print(table)
