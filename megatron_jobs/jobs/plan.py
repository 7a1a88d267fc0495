"""A plan: jobs by name, checked as a whole before anything starts.

A value `@train/checkpoints` is the path of that output in the folder of job `train`, and is the
dependency; `@@` begins a text that starts with one @. A file with `stage:` at its top is a plan
of that one job.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pydantic import Field

from megatron_jobs.config.build import build_settings
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem, Settings, input_paths
from megatron_jobs.config.tree import (
    SHIPPED,
    Tree,
    apply_words,
    name_parts,
    no_such,
    read_tree,
    underlay_presets,
)
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.folder import JobFolder, read_job
from megatron_jobs.stages import Facts, Stage, load_stage

RESERVED = ("stage", "resources", "after")
"""Keys of a job that are not settings of its stage."""
LONGEST_NAME = 200
"""Bytes: 255 is what file systems allow, and work moved aside gets a date behind its name."""
GATHER = Resources(hours=0.5)
"""For joining what tasks left; a stage may have its own."""


@dataclass(frozen=True)
class Job:
    """One stage with its settings, its resources and the jobs it waits for."""

    name: str
    stage_name: str
    stage: Stage
    config: Settings
    resources: Resources
    after: tuple[str, ...]
    folder: JobFolder
    run: Path
    """The run folder: this job's folder and those of the others stand in it."""
    origins: dict[str, str]
    """Dotted name of a setting -> where its value was given; defaults are not listed."""
    task: int | None = None
    """Which task of a job that is cut into tasks this is; None for a job."""

    @property
    def gathers(self) -> bool:
        """Whether the work is cut into tasks: the job itself then joins what they left."""
        return self.resources.tasks > 1 and self.task is None

    @property
    def asked(self) -> Resources:
        """What this job or task needs while it runs; the resources are those of its tasks."""
        if not self.gathers:
            return self.resources
        gather: Resources = getattr(self.stage, "GATHER", GATHER)
        return gather

    def of_task(self, number: int) -> "Job":
        """One task of this job, to be run like a job."""
        name = f"{self.name}, task {number}"
        return replace(self, name=name, folder=self.folder.of_task(number), task=number)

    def tasks(self) -> Iterator["Job"]:
        """All tasks that the job is cut into; none when it is not."""
        return map(self.of_task, range(self.resources.tasks if self.gathers else 0))

    def description(self) -> dict[str, Any]:
        """The job as plain values, in the form that `load_job` reads."""
        return {
            "stage": self.stage_name,
            "resources": self.resources.model_dump(mode="json"),
            "after": list(self.after),
            **self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Plan:
    """Jobs in an order in which each comes after those it waits for."""

    shown: str
    """The file, as the user typed it."""
    run: Path
    jobs: dict[str, Job]


def find_plan(name: str) -> Path:
    """The file of that name here, or else the one that comes with the package."""
    path = Path(name)
    shipped = SHIPPED / path
    if path.exists() or path.is_absolute() or not shipped.is_file():
        return path
    return shipped


def load_plan(name: str, words: list[str], run: Path | None = None) -> Plan:
    """Read and check a plan; ConfigError with every fault when it cannot run.

    Args:
        name: a plan, or the file of one stage; one that comes with the package also by its path
            there (`plans/quickstart.yaml`).
        words: `job.setting=value`; for the file of one stage `setting=value`.
        run: the run folder; runs/<name of the file> when None.
    """
    path = find_plan(name)
    folder = (run or Path("runs") / path.stem).absolute()
    return _build(read_tree(path, name), name, words, folder)


def load_run(run: Path, words: list[str]) -> Plan:
    """The plan of the jobs that stand in a run folder, by the config.yaml of each.

    Args:
        words: changes, `job.setting=value`.
    Raises: UserError when no job stands there, ConfigError with every fault.
    """
    folders = [JobFolder(path.parent) for path in sorted(run.glob("*/config.yaml"))]
    if not folders:
        raise UserError(f"{run}: no run folder: no job has been started or submitted in it")
    jobs = {folder.path.name: _literal(read_job(folder)) for folder in folders}
    return _build(Tree({"jobs": jobs}), f"{run}/*/config.yaml", words, run.absolute())


def _literal(value: Any) -> Any:
    """A value in which no text is taken for a reference to an output."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return f"@{value}" if isinstance(value, str) and value.startswith("@") else value


def _build(tree: Tree, name: str, words: list[str], run: Path) -> Plan:
    builder = _Builder(run, tree, _entries(tree, name, words))
    jobs = builder.build()
    if builder.problems:
        raise ConfigError(name, builder.problems)
    return Plan(shown=name, run=run, jobs=jobs)


def load_job(folder: JobFolder) -> Job:
    """The job, or task, that stands in a folder, from the job's config.yaml alone."""
    description = read_job(folder)
    stage = load_stage(description["stage"])
    config, problems = build_settings(stage.Config, _settings_of(description))
    resources, more = build_settings(Resources, description["resources"])
    if config is None or resources is None or problems or more:
        raise ConfigError(str(folder.config), problems + more)
    whole = JobFolder(folder.whole)
    job = Job(
        name=whole.path.name,
        stage_name=description["stage"],
        stage=stage,
        config=config,
        resources=resources,
        after=tuple(description["after"]),
        folder=whole,
        run=whole.path.parent,
        origins={},
    )
    return job if folder.task is None else job.of_task(folder.task)


def _settings_of(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in RESERVED}


def _entries(tree: Tree, name: str, words: list[str]) -> dict[str, Any]:
    """The jobs of a file, words applied; tree.origins are then named `job.setting`."""
    if "stage" in tree.values:
        job = str(tree.values["stage"]).rpartition(".")[2]
        tree.values = {job: tree.values}
        tree.origins = {f"{job}.{key}": value for key, value in tree.origins.items()}
        words = [f"{job}.{word}" for word in words]
    elif set(tree.values) == {"jobs"}:
        if not isinstance(tree.values["jobs"], dict) or not tree.values["jobs"]:
            raise UserError(f"{name}: jobs: must name at least one job, `name: {{stage: ...}}`")
        tree.values = tree.values["jobs"]
        tree.origins = {key.removeprefix("jobs."): value for key, value in tree.origins.items()}
    else:
        found = ", ".join(tree.values)
        raise UserError(f"{name}: found {found}; a plan has `jobs:`, a single job has `stage:`")
    known = []
    for word in words:
        job = name_parts(tree.values, word.partition("=")[0])[0]
        if job in tree.values:
            known.append(word)
        else:
            tree.problems.append((word, no_such("job", job, sorted(tree.values))))
    apply_words(tree, known)
    underlay_presets(tree)
    return tree.values


class _Entry(Settings):
    """What every job of a plan may say beside its stage's settings."""

    stage: str
    resources: dict[str, Any] | None = None
    after: list[str] = Field(default_factory=list)
    """Jobs to wait for, beside those whose outputs are read."""


class _Builder:
    """Turns the entries of a plan into jobs, collecting every fault on the way."""

    def __init__(self, run: Path, tree: Tree, entries: dict[str, Any]) -> None:
        self.run = run
        self.tree = tree
        self.entries = entries
        self.problems = list(tree.problems)
        self.needs: dict[str, set[str]] = {}

    def build(self) -> dict[str, Job]:
        jobs: dict[str, Job] = {}
        for name, entry in self.entries.items():
            job = self._job(name, entry)
            if job is not None:
                jobs[name] = job
        for job in jobs.values():
            self._check_inputs(job, jobs)
        try:
            order = list(TopologicalSorter(self.needs).static_order())
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            self.problems.append(("jobs", f"wait for each other in a circle: {circle}"))
            return {}
        ordered = {name: jobs[name] for name in order if name in jobs}
        self._foresee(ordered)
        return ordered

    def _foresee(self, jobs: dict[str, Job]) -> None:
        """Note where a job cannot use what those before it are going to make."""
        promises: dict[str, Facts] = {}
        for name, job in list(jobs.items()):
            makers = (
                (setting, self._maker(job, path)) for setting, path in input_paths(job.config)
            )
            inputs = {setting: promises[maker] for setting, maker in makers if maker in promises}
            if hasattr(job.stage, "promise"):
                promises[name] = job.stage.promise(job.config, inputs)
            foresee = getattr(job.stage, "foresee", _no_check)
            found = foresee(job.config, inputs)
            self.problems += [(f"{name}.{setting}", sentence) for setting, sentence in found]
            if hasattr(job.stage, "memory_gb") and not job.resources.memory_gb:
                more = {"memory_gb": job.stage.memory_gb(job.config, inputs)}
                jobs[name] = replace(job, resources=job.resources.model_copy(update=more))

    def _maker(self, job: Job, path: Path) -> str:
        """The job in whose folder an input lies, or nothing."""
        return next((name for name in job.after if path.is_relative_to(self.run / name)), "")

    def _job(self, name: str, entry: Any) -> Job | None:
        if _is_no_folder(name):
            rule = f"no / and no dot first, {LONGEST_NAME} bytes at most"
            self.problems.append((repr(name), f"a job's name is a folder's: {rule}"))
            return None
        self.needs[name] = set()
        stage_name, stage = self._stage(name)
        if stage is None:
            return None
        frame, wrong = build_settings(_Entry, {k: entry[k] for k in RESERVED if k in entry})
        if frame is None:
            self.problems += [(f"{name}.{setting}", text) for setting, text in wrong]
            return None
        settings = self._resolve(name, _settings_of(entry), name)
        for other in frame.after:
            self._needs(name, other, f"{name}.after")
        config, found = build_settings(stage.Config, settings)
        resources, more = build_settings(
            Resources, stage.RESOURCES.model_dump() | (frame.resources or {})
        )
        faults = found + [(f"resources.{setting}", text) for setting, text in more]
        if config is not None and resources is not None:
            faults += list(getattr(stage, "check", _no_check)(config, resources))
            faults += _cannot_be_cut(stage_name, stage, resources)
        self.problems += [(f"{name}.{setting}", text) for setting, text in faults]
        if config is None or resources is None:
            return None
        return Job(
            name=name,
            stage_name=stage_name,
            stage=stage,
            config=config,
            resources=resources,
            after=tuple(sorted(self.needs[name])),
            folder=JobFolder(self.run / name),
            run=self.run,
            origins=self._origins(name),
        )

    def _stage(self, name: str) -> tuple[str, Stage | None]:
        """The stage that a job names; a problem is noted once, by `_job` of that job."""
        entry = self.entries[name]
        wanted = str(entry.get("stage") or "") if isinstance(entry, dict) else ""
        try:
            return wanted, load_stage(wanted)
        except UserError as error:
            problem = (f"{name}.stage", str(error) if wanted else "must be set")
            if problem not in self.problems:
                self.problems.append(problem)
            return wanted, None

    def _origins(self, name: str) -> dict[str, str]:
        found = self.tree.origins.items()
        return {k.removeprefix(f"{name}."): v for k, v in found if k.startswith(f"{name}.")}

    def _resolve(self, job: str, value: Any, dotted: str) -> Any:
        """The value with each `@other/output` replaced by its path; notes the dependency."""
        if isinstance(value, dict):
            return {k: self._resolve(job, item, f"{dotted}.{k}") for k, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(job, item, f"{dotted}.{i}") for i, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith("@"):
            return value
        if value.startswith("@@"):  # a text that begins with @
            return value[1:]
        other, _, below = value[1:].partition("/")
        if self._needs(job, other, dotted):
            self._check_output(other, below, dotted)
        return str(self.run / other / below)

    def _needs(self, job: str, other: str, dotted: str) -> bool:
        if other not in self.entries:
            self.problems.append((dotted, no_such("job", other, sorted(self.entries))))
            return False
        self.needs[job].add(other)
        return True

    def _check_output(self, other: str, below: str, dotted: str) -> None:
        stage_name, stage = self._stage(other)
        outputs = stage.OUTPUTS if stage is not None else (below.partition("/")[0],)
        if below.partition("/")[0] not in outputs:
            known = ", ".join(f"@{other}/{output}" for output in outputs)
            sentence = f"stage {stage_name} leaves no {below or 'whole folder'!r}; there is {known}"
            self.problems.append((dotted, sentence))

    def _check_inputs(self, job: Job, jobs: dict[str, Job]) -> None:
        for setting, path in input_paths(job.config):
            promised = self._maker(job, path) != ""
            told = any(name == f"{job.name}.{setting}" for name, _ in self.problems)
            if promised or told:
                continue
            sentence = input_problem(path)
            if sentence:
                self.problems.append((f"{job.name}.{setting}", sentence))


def input_problem(path: Path) -> str:
    """Why `path` cannot be read, or nothing."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except FileNotFoundError:
        return f"{path} is not there"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return ""


def _is_no_folder(name: str) -> bool:
    refused = not name or name.startswith(".") or "/" in name or "\0" in name
    return refused or len(os.fsencode(name)) > LONGEST_NAME


def _cannot_be_cut(name: str, stage: Stage, resources: Resources) -> list[Problem]:
    if resources.tasks == 1 or hasattr(stage, "gather"):
        return []
    rule = f"stage {name} cannot be cut into tasks: it has no `gather`"
    return [("resources.tasks", f"{resources.tasks}, but {rule}; leave it at 1")]


def _no_check(config: Settings, beside: Any) -> list[Problem]:
    return []
