"""Pretraining that takes its time: pauses before the steps of the first starts, the same losses.

So that something can happen to a job in the middle, at no cost of CPU time.
"""

import time
from pathlib import Path
from typing import Any

from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.heartbeat import pulse
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.stop import stop_reason
from megatron_jobs.stages import pretrain

OUTPUTS = pretrain.OUTPUTS
RESOURCES = pretrain.RESOURCES
LAYOUT = (*pretrain.LAYOUT, "pause", "slow_starts", "slow_steps", "until")
check, promise, foresee, describe = (
    pretrain.check,
    pretrain.promise,
    pretrain.foresee,
    pretrain.describe,
)


class Config(pretrain.Config):
    """As of pretraining."""

    pause: float = 0
    """Seconds before each step."""
    slow_starts: int = 1
    """How many of the first starts are slow."""
    slow_steps: int | None = None
    """Steps of each slow start, before the last of which it waits until it is asked to stop..."""
    until: str = ""
    """... or, if a file is named, until that is there."""


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train as `pretrain` does."""
    from megatron_jobs.train import loop

    quick = loop.train_step
    taken: list[float] = []

    def slow(*arguments: Any) -> Any:
        time.sleep(config.pause)
        taken.append(time.monotonic())
        if len(taken) == config.slow_steps:
            wait_for(lambda: may_go_on(config), "a signal to stop", seconds=600, every=0.2)
        return quick(*arguments)

    if rank.restart < config.slow_starts:
        vars(loop)["train_step"] = slow
    return pretrain.run(config, rank, folder)


def may_go_on(config: Config) -> bool:
    """Whether what is waited for has come; a sign of life as well, for nothing is stuck here."""
    pulse()
    return bool(stop_reason()) or bool(config.until and Path(config.until).exists())
