"""Ranks that add up a number over and over; one of them may hang, be stopped or be slow."""

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Settings
from megatron_jobs.runtime.heartbeat import beat, rest
from megatron_jobs.runtime.rank import Rank

OUTPUTS = ("sum.txt",)
RESOURCES = Resources()
PRELOAD = ("megatron_jobs.parallel.groups",)
SILENCE = 600
"""Seconds: longer than any test."""


class Config(Settings):
    """Who is in trouble, and when."""

    steps: int = 10
    seconds: float = 0.05
    """Own work of a step."""
    guilty: int = 2
    trouble: Literal["", "sleep", "stop", "slow"] = "sleep"
    at: int = 3
    """The step of the trouble; `slow`: of each step."""
    hold: str = ""
    """A file: after those steps it takes more, as long as the leader sees it."""
    attempts: int = 1
    """Starts that have the trouble; later ones go well."""


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Add up over all ranks, step by step."""
    import torch
    import torch.distributed as dist

    from megatron_jobs.parallel.groups import close, connect

    connect(rank, folder / ".meet", seconds=120)
    torch.set_num_threads(1)
    ours = rank.index == config.guilty and rank.restart < config.attempts
    total = torch.zeros(1)
    for step in itertools.count(1):
        beat(step, "data")
        began = time.perf_counter()
        read(config, step, ours)
        own = time.perf_counter() - began
        beat(step, "agree", own_seconds=own)
        total += 1
        dist.all_reduce(total)
        if step >= config.steps and not _is_held(config, rank):
            break
    rest("end")
    close()
    if rank.leads:
        (folder / "sum.txt").write_text(f"{total.item()}\n")
    return {"steps": config.steps}


def _is_held(config: Config, rank: Rank) -> bool:
    """Whether the leader sees the file, as all ranks learn."""
    import torch
    import torch.distributed as dist

    if not config.hold:
        return False
    seen = torch.tensor([float(rank.leads and Path(config.hold).exists())])
    dist.all_reduce(seen)
    return bool(seen.item())


def read(config: Config, step: int, ours: bool) -> None:
    """The work of a step, or the trouble."""
    time.sleep(config.seconds * (3 if ours and config.trouble == "slow" else 1))
    if ours and step == config.at and config.trouble == "sleep":
        time.sleep(SILENCE)
    if ours and step == config.at and config.trouble == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
