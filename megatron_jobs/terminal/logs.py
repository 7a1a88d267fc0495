"""Logs: printed, followed, or only what failed."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.logs import few_logs, find_guilty, last_part
from megatron_jobs.jobs.words import say_name
from megatron_jobs.terminal.signs import spare_signs


def print_logs(paths: list[Path], places: dict[Path, int]) -> None:
    """Print each file from its place on, headed by its name, and move the places to their ends."""
    spare_signs()
    for path in paths:
        places[path] = _print_from(path, places.get(path, 0), headed=len(paths) > 1)


def follow_logs(
    files: Callable[[], list[Path]], goes_on: Callable[[], bool], *, ask_every: float = 10
) -> None:
    """Print logs as they grow, until the job has ended; of many ranks only the first's.

    Args:
        files: the files there are now; raises UserError as long as there are none.
        goes_on: whether more may come; asked every `ask_every` seconds, since it may ask Slurm.
    """
    places: dict[Path, int] = {}
    asked, told = -ask_every, False
    while True:
        ended = time.monotonic() - asked >= ask_every and not goes_on()
        asked = time.monotonic() if time.monotonic() - asked >= ask_every else asked
        try:
            paths = files()  # after asking: all that was written until then
            followed = few_logs(paths)
            told = told or _tell_of_few(paths, followed)
            print_logs(followed, places)
        except UserError:
            if ended:
                raise
        if ended:
            return
        time.sleep(0.5)


def _tell_of_few(paths: list[Path], followed: list[Path]) -> bool:
    """Say that not all logs are followed, if so."""
    if len(followed) < len(paths):
        left = f"{len(paths) - len(followed)} ranks beside it are not followed"
        print(f"{followed[-1].name}: {left}; for another: --rank", file=sys.stderr, flush=True)
    return len(followed) < len(paths)


def _print_from(path: Path, place: int, *, headed: bool) -> int:
    if path.stat().st_size == place:  # most do not grow from one look to the next
        return place
    with path.open("rb") as file:
        file.seek(place)
        added = file.read()
    if added:
        if headed:
            print(f"==> {path.name} <==")
        sys.stdout.write(added.decode("utf-8", errors="replace"))
        sys.stdout.flush()
    return place + len(added)


def show_failed(folders: list[JobFolder]) -> None:
    """Print for each job who is to blame, the last part of that log, and where more is told."""
    spare_signs()
    for folder in folders:
        guilty = find_guilty(folder)
        who = "" if guilty.rank is None else f", rank {guilty.rank}"
        where = f" on {guilty.node}" if guilty.node else ""
        print(f"==> {say_name(folder.name)}{who}{where}: {guilty.words}")
        if guilty.log is not None and guilty.log.exists():
            print(f"==> the end of {guilty.log}\n{last_part(guilty.log)}")
        if folder.postmortem.exists():
            print(f"==> what happened, and what was decided: {folder.postmortem}")
