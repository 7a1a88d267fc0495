"""Pretraining that takes its time: a pause before each step of the first starts, the same losses.

So that something can happen to a job in the middle, at no cost of CPU time.
"""

import time
from pathlib import Path
from typing import Any

from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import pretrain

OUTPUTS = pretrain.OUTPUTS
RESOURCES = pretrain.RESOURCES
LAYOUT = (*pretrain.LAYOUT, "pause", "slow_starts")
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


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train as `pretrain` does."""
    from megatron_jobs.train import loop

    quick = loop.train_step

    def slow(*arguments: Any) -> Any:
        time.sleep(config.pause)
        return quick(*arguments)

    if rank.restart < config.slow_starts:
        vars(loop)["train_step"] = slow
    return pretrain.run(config, rank, folder)
