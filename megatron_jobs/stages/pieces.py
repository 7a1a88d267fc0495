"""What stages share whose work is a number of pieces, each done by one process, or not at all.

Pieces are dealt out to tasks and, in a task, to ranks; what they make does not depend on how many
there are. A piece that is done is not done again after a kill, unless settings or inputs changed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from megatron_jobs.runtime.files import read_json, remove, wait_for, write_json
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank

LONGEST_WAIT = 7 * 86400.0
"""Seconds; a rank that dies ends the job long before."""
MADE_OF = "made_of.json"


def begin(rank: Rank, folder: Path, made_of: dict[str, Any], outputs: Sequence[str]) -> None:
    """Make `folder` ready, on every rank: what is there goes on only if it was made of the same."""
    if rank.leads and not _holds(folder, made_of):
        for name in (MADE_OF, *outputs):
            remove(folder / name)
        for name in outputs:
            if "." not in name:
                (folder / name).mkdir(parents=True)
        write_json(folder / MADE_OF, made_of)
    wait_for(lambda: _holds(folder, made_of), "the leader to make the folder ready", seconds=600)


def run_pieces(
    rank: Rank,
    folder: Path,
    sizes: Sequence[int],
    *,
    unit: str,
    is_done: Callable[[int], bool],
    do: Callable[[int], None],
) -> list[int]:
    """Do this rank's pieces of this task; the leader waits for those of the other ranks.

    Args:
        sizes: of all pieces of the job, for the progress.
        unit: what the sizes count.
    Returns: the numbers of this task's pieces.
    """
    of_task = list(range(rank.task, len(sizes), rank.tasks))
    progress = Progress(folder, total=sum(sizes[n] for n in of_task), unit=unit)

    def done() -> int:
        return sum(sizes[n] for n in of_task if is_done(n))

    for number in of_task[rank.index :: rank.world]:
        if not is_done(number):
            do(number)
        if rank.leads:
            progress.update(done())
    if rank.leads:
        wait_for(
            lambda: all(map(is_done, of_task)), "the other ranks' pieces", seconds=LONGEST_WAIT
        )
        progress.update(progress.total)
    return of_task


def _holds(folder: Path, made_of: dict[str, Any]) -> bool:
    noted = folder / MADE_OF
    return noted.exists() and bool(read_json(noted) == made_of)
