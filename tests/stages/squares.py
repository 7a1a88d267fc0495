"""Squares of numbers, cut into tasks: each writes its share, `gather` puts them in order."""

import time
from pathlib import Path

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from tests.stages.echo import await_release, is_first_start

OUTPUTS = ("squares.txt",)
RESOURCES = Resources(hours=0.1)
GATHER = Resources(hours=0.05)
LAYOUT = ("seconds", "lingers", "hold", "fails", "cure")


class Config(Settings):
    """Which numbers, and what goes wrong."""

    until: int = 100
    reads: InputPath | None = None
    """A text that each square is followed by."""
    seconds: float = 0
    """How long each task takes."""
    lingers: int = -1
    """The task that goes on, in its first start, until it is stopped."""
    hold: str = ""
    """A file: after that the same task waits as long as it is there."""
    fails: int = -1
    """The task that fails as long as the file `cure` is not there."""
    cure: str = ""


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write the squares of this task's numbers: NUMBER SQUARE, a line each."""
    print(f"task {rank.task} of {rank.tasks}, rank {rank.index} of {rank.world}")
    time.sleep(config.seconds)
    if rank.task == config.lingers:
        time.sleep(600 if is_first_start(folder) else 0)
        await_release(config.hold)
    if rank.task == config.fails and not Path(config.cure).is_file():
        raise UserError(f"fails: task {rank.task} was told to")
    mine = range(rank.task, config.until, rank.tasks)
    word = config.reads.read_text() if config.reads else ""
    if rank.leads:
        lines = (f"{number} {number**2}{word}\n" for number in mine)
        folder.joinpath("squares.txt").write_text("".join(lines))
    return {"squares": len(mine)}


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Join the lines of all tasks by their numbers."""
    lines = [line for task in tasks for line in task.joinpath("squares.txt").open()]
    lines.sort(key=lambda line: int(line.split()[0]))
    folder.joinpath("squares.txt").write_text("".join(lines))
    return {"squares": len(lines), "tasks": len(tasks)}
