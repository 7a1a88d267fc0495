"""Writes its words, one file a rank; can be told to fail, to wait, or to die."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Settings
from megatron_jobs.errors import Stopped, UserError
from megatron_jobs.runtime.files import read_json, wait_for
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.stop import deferred_stop

OUTPUTS = ("words",)
RESOURCES = Resources()


class Config(Settings):
    """What to say and how to end."""

    text: str = "hello"
    count: int = 1
    reads: InputPath | None = None
    trouble: Literal["", "bug", "user", "kill"] = ""
    guilty: int = 0
    """The rank that is in trouble; the others wait for ever."""
    seconds: float = 0
    slow_once: bool = False
    """It takes `seconds` in its first start only."""
    hold: str = ""
    """A file: after that it waits as long as it is there."""
    stubborn: bool = False
    """Ends its work when it is asked to stop, instead of stopping."""
    saving: float = 0
    """Seconds that the leader needs to save when it is stopped."""


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write the words of this rank, or get into trouble."""
    print(f"rank {rank.index} of {rank.world} on {rank.node_name}")
    if config.trouble:
        _be_in_trouble(config, rank)
    try:
        with deferred_stop() if config.stubborn else contextlib.nullcontext():
            slow = not config.slow_once or is_first_start(folder)
            time.sleep(config.seconds if slow else 0)
            await_release(config.hold)
    except Stopped:
        _save(config, rank, folder)
        raise
    words = folder / "words"
    words.mkdir(exist_ok=True)
    before = config.reads.joinpath("0.txt").read_text() if config.reads else ""
    words.joinpath(f"{rank.index}.txt").write_text(before + config.text * config.count + "\n")
    wait_for(lambda: len(list(words.iterdir())) == rank.world, "all words", seconds=60)
    return {"ranks": rank.world, "nodes": rank.nodes}


def is_first_start(folder: Path) -> bool:
    """Whether the job, or task, of a folder was not started before, under whatever Slurm id."""
    return len(read_json(folder / "started.json")["starts"]) == 1


def await_release(hold: str) -> None:
    """Wait as long as a file is there; empty: not at all."""
    if hold:
        wait_for(lambda: not Path(hold).exists(), f"the end of {hold}", seconds=600)


def _save(config: Config, rank: Rank, folder: Path) -> None:
    if rank.leads:
        time.sleep(config.saving)
        folder.joinpath("saved").touch()


def _be_in_trouble(config: Config, rank: Rank) -> None:
    if rank.index != config.guilty:
        time.sleep(600)
    if config.trouble == "bug":
        raise ZeroDivisionError("a planted bug")
    if config.trouble == "user":
        raise UserError("text: 'hello' is too friendly; say less")
    os.kill(os.getpid(), signal.SIGKILL)
