"""What a job does: one module a stage, knowing nothing of Slurm.

A stage module has

    OUTPUTS    names in the job's folder that other jobs may read, as `@job/name`
    RESOURCES  what it asks for by default
    Config     its settings (a `Settings`); fields of type `InputPath` are what it reads
    run(config, rank, folder) -> numbers
               does the work in `folder`, on every rank; the leader's numbers go to the receipt

To add one: write the module, name it in `STAGES`, mirror it in tests/unit/stages.
"""

import importlib
from pathlib import Path
from typing import Protocol

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank

STAGES = ("tokenizer", "tokenize", "index", "pretrain", "evaluate", "convert", "generate")


class Stage(Protocol):
    """The shape of a stage module."""

    OUTPUTS: tuple[str, ...]
    RESOURCES: Resources
    Config: type[Settings]

    def run(self, config: Settings, rank: Rank, folder: Path) -> dict[str, float]: ...


def load_stage(name: str) -> Stage:
    """The module of the stage called `name`; must import fast (torch only inside `run`)."""
    if name not in STAGES:
        raise UserError(f"stage: no such stage: {name!r}; there are {', '.join(STAGES)}")
    module: Stage = importlib.import_module(f"megatron_jobs.stages.{name}")
    return module
