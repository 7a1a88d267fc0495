"""What a job does: one module a stage, knowing nothing of Slurm.

A stage module has

    OUTPUTS    names in the job's folder that other jobs may read, as `@job/name`
    RESOURCES  what it asks for by default
    Config     its settings (a `Settings`); fields of type `InputPath` are what it reads
    run(config, rank, folder) -> numbers
               does the work in `folder`, on every rank; the leader's numbers go to the receipt

and may have

    check(config, resources)     yields problems of settings and resources together
    promise(config, inputs)      what is known of its outputs before it has run (`Facts`)
    foresee(config, inputs)      yields problems with what the makers of its inputs promise;
                                 `inputs` are the promises by the name of the setting
    memory_gb(config, inputs)    GiB of memory it needs, where its resources do not say; 0: unknown
    describe(config, resources)  (label, text) pairs that `mj show` prints
    LAYOUT                       settings, by dotted name, that decide how the work is done and do
                                 not change its result beyond rounding (mesh, size of micro batches,
                                 how often to save): when they are changed, unfinished work is gone
                                 on with and a receipt still holds
    gather(config, folder, tasks) -> numbers
                                 joins what the tasks left into the OUTPUTS in `folder`, in one
                                 process; `tasks` are their folders in order, each with the OUTPUTS
                                 of `run` and its numbers.json. A stage that has it can be cut
                                 (`resources: {tasks: 5000}`): `run` is then called for each task,
                                 with the task's folder, and does part `rank.task` of `rank.tasks`
    GATHER                       the `Resources` of gather; half an hour of one core by default
    PRELOAD                      modules that a local run imports once before it forks the ranks
    SAVES                        true: it saves, and goes on, when somebody makes RUN/JOB/SAVE
    SHOW                         an output, a text file, that `mj run` prints at its end

To add one: write the module, name it in `STAGES`, mirror it in tests/unit/stages.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Settings
from megatron_jobs.config.tree import no_such
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank

STAGES = (
    "fetch",
    "extract",
    "export",
    "classifier",
    "perplexity_model",
    "redact",
    "filter",
    "repeats",
    "fingerprint",
    "match",
    "cluster",
    "bloom_duplicates",
    "deduplicate",
    "decontaminate",
    "tokenizer",
    "tokenizer_report",
    "tokenize",
    "index",
    "data_report",
    "blend_report",
    "pretrain",
    "evaluate",
    "convert",
    "generate",
)


Facts = Mapping[str, int | None]
"""Sizes by name, such as vocab_size, seq_len, train_samples; None or absent when not known yet."""


class Stage(Protocol):
    """The shape of a stage module."""

    OUTPUTS: tuple[str, ...]
    RESOURCES: Resources
    Config: type[Settings]

    def run(self, config: Settings, rank: Rank, folder: Path) -> dict[str, float]: ...


def load_stage(name: str) -> Stage:
    """The module of the stage called `name`; a dotted name is a module of the user's own.

    Stage modules import fast: what is heavy is imported inside `run`.
    Raises: UserError when there is no such stage or module.
    """
    if name not in STAGES and ("." not in name or name.startswith(".")):
        raise UserError(no_such("stage", name, sorted(STAGES)))
    path = name if "." in name else f"megatron_jobs.stages.{name}"
    try:
        module: Stage = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise
        raise UserError(f"no such stage: module {path!r} cannot be imported") from error
    parts = ("OUTPUTS", "RESOURCES", "Config", "run")
    missing = [part for part in parts if not hasattr(module, part)]
    if missing:
        raise UserError(f"no such stage: module {path!r} has no {', '.join(missing)}")
    return module
