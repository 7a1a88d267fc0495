"""A job's folder: the only place the job writes, and where each thing in it stands."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import megatron_jobs
from megatron_jobs.jobs.arrays import read_list
from megatron_jobs.runtime.files import read_json, remove, write_json, write_text
from megatron_jobs.runtime.switches import KILL, SAVE

SOURCE = "source.txt"
TASKS = "tasks"
GROUP = 1000
"""Tasks of a job whose folders stand in one folder: file systems dislike thousands of entries."""
MANY_NODES = 64
"""On more nodes than these a job has a folder of logs for each: 512 ranks may well create their
files in one folder at the same moment, 16,000 may not."""
RECEIPTS = "receipts"
MOVED = "moved"
VERSIONS_OF = ("torch", "megatron-core", "numpy", "tokenizers", "transformers", "submitit")


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Paths inside RUN/JOB, or inside RUN/JOB/tasks/GROUP/NUMBER, the folder of one task of it.

    What is said once for all tasks of a job, such as its settings, stands in the job's folder.
    """

    path: Path

    @property
    def task(self) -> int | None:
        """The number of the task whose folder this is; None for the folder of a job."""
        group, number = self.path.parent.name, self.path.name
        if self.path.parent.parent.name != TASKS or not number.isdecimal():
            return None
        return int(number) if group == group_of(int(number)) else None

    @property
    def whole(self) -> Path:
        """The job's folder, also for one of its tasks."""
        return self.path if self.task is None else self.path.parents[2]

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path.name if self.task is None else f"{self.whole.name}, task {self.task}"

    def of_task(self, number: int) -> "JobFolder":
        """The folder of one of the job's tasks."""
        return JobFolder(self.whole / TASKS / group_of(number) / str(number))

    @property
    def config(self) -> Path:
        """The job as text: stage, resources and settings, everything written out."""
        return self.whole / "config.yaml"

    @property
    def source(self) -> Path:
        """Which code ran: version, commit, local changes."""
        return self.whole / SOURCE

    @property
    def inputs(self) -> Path:
        """What the inputs hash to: not every start, and not every task, reads them all again."""
        return self.whole / "inputs.json"

    @property
    def started(self) -> Path:
        """Key, inputs and starts of the work that stands in this folder, finished or not."""
        return self.path / "started.json"

    @property
    def receipt(self) -> Path:
        """Those of tasks stand together: one look at a folder tells which of 1,000 are done."""
        if self.task is None:
            return self.path / "receipt.json"
        return self.path.parent / RECEIPTS / f"{self.task}.json"

    @property
    def numbers(self) -> Path:
        """What the stage's leader returned."""
        return self.path / "numbers.json"

    @property
    def outcome(self) -> Path:
        """How the last start on this machine ended."""
        return self.path / "outcome.json"

    @property
    def stopped(self) -> Path:
        """Left by a rank under Slurm that stopped in time: there is no receipt to write yet."""
        return self.path / "stopped"

    @property
    def lock(self) -> Path:
        """Held by the processes of a run on this machine; see `jobs.lock`."""
        return self.path / ".lock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def slurm(self) -> Path:
        """Slurm job ids and restarts of this job."""
        return self.path / "slurm.json"

    @property
    def cluster(self) -> Path:
        """The profile that the job was submitted with."""
        return self.whole / "cluster.yaml"

    @property
    def events(self) -> Path:
        """What happened to the job, a line each; see `jobs.events`."""
        return self.path / "events.jsonl"

    @property
    def postmortem(self) -> Path:
        """Why the last failure happened, and what was decided."""
        return self.path / "postmortem.md"

    @property
    def preflight(self) -> Path:
        """A verdict for each node of the last start."""
        return self.path / "preflight"

    @property
    def watch(self) -> Path:
        """What the watch found: stalls, stacks, stragglers."""
        return self.path / "watch"

    @property
    def next(self) -> Path:
        """A line for the batch script: what to do after the ranks have ended."""
        return self.path / "next"

    @property
    def kill_switch(self) -> Path:
        """While this file is there the job saves, stops and is not put back in the queue."""
        return self.whole / KILL

    @property
    def save_switch(self) -> Path:
        """When this file appears the job saves once, and removes it."""
        return self.path / SAVE

    @property
    def bookkeeping(self) -> frozenset[str]:
        """Names that the job layer writes: they stay when outdated work is moved aside."""
        kept = {self.config, self.source, self.logs, self.slurm, self.lock, self.cluster}
        kept |= {self.events, self.postmortem, self.preflight, self.watch, self.next}
        kept |= {self.kill_switch, self.save_switch, self.inputs}
        return frozenset({path.name for path in kept} | {"sbatch.sh", "submit.txt", "submitit"})

    def log(self, rank: int) -> Path:
        """What rank number `rank` printed, over all starts."""
        return self._of_rank(rank, "log")

    def error(self, rank: int) -> Path:
        """The last words of a rank that failed."""
        return self._of_rank(rank, "error")

    def rank_logs(self) -> list[Path]:
        """The log of every rank that has begun, in the order of the ranks."""
        return self._of_ranks("log")

    def rank_errors(self) -> list[Path]:
        """The last words of the ranks that failed, in the order of the ranks."""
        return self._of_ranks("error")

    def _of_rank(self, rank: int, ending: str) -> Path:
        name = f"rank-{rank:05d}.{ending}"
        if not node_logs(self, 0).is_dir():
            return self.logs / name
        asked = read_job(self)["resources"]
        if asked["nodes"] <= MANY_NODES:  # it was submitted again, for fewer nodes
            return self.logs / name
        return node_logs(self, rank // asked["ranks"]) / name

    def _of_ranks(self, ending: str) -> list[Path]:
        return sorted(self.logs.glob(f"**/rank-*.{ending}"), key=lambda path: path.name)

    def slurm_ids(self) -> list[str]:
        """Slurm's ids of this job, or task, the newest last; empty for a local run.

        Of a job with tasks: its arrays, and last the job that gathers.
        """
        if self.task is not None:
            arrays = JobFolder(self.whole).slurm_arrays().items()
            places = [(a, index, task) for a, tasks in arrays for index, task in tasks.items()]
            return [f"{array}_{index}" for array, index, task in places if task == self.task]
        ids = list(read_json(self.slurm)["ids"]) if self.slurm.exists() else []
        return [*self._moved_arrays(), *ids]

    def slurm_arrays(self) -> dict[str, dict[int, int]]:
        """The arrays of the newest submission by Slurm's ids: index in the array -> task."""
        submitted = read_json(self.slurm).get("arrays", {}) if self.slurm.exists() else {}
        arrays = {
            slurm_id: {index: index + array["offset"] for index in read_list(array["indexes"])}
            for slurm_id, array in submitted.items()
        }
        arrays |= self._moved_arrays()
        return {slurm_id: arrays[slurm_id] for slurm_id in sorted(arrays, key=int)}

    def _moved_arrays(self) -> dict[str, dict[int, int]]:
        """The arrays of one task each in which tasks went on."""
        found: dict[str, dict[int, int]] = {}
        for notes in (self.path / TASKS).glob(f"*/{MOVED}"):
            for name in os.listdir(notes):
                task, array, index = name.split(".")
                found[array] = {int(index): int(task)}
        return found

    def note_moved(self, array: str, index: int) -> None:
        """Note that this task goes on in another array: by a name, since many may do so at once."""
        assert self.task is not None, f"{self.path} is no task's folder"
        note = self.path.parent / MOVED / f"{self.task}.{array}.{index}"
        note.parent.mkdir(exist_ok=True)
        note.touch()

    def forget_moved(self) -> None:
        """Forget what `note_moved` noted: the tasks are about to be submitted anew."""
        for notes in (self.path / TASKS).glob(f"*/{MOVED}"):
            remove(notes)


def group_of(task: int) -> str:
    """The name of the folder in which the folders of this and other tasks stand."""
    first = task // GROUP * GROUP
    return f"{first}-{first + GROUP - 1}"


def node_logs(folder: JobFolder, node: int) -> Path:
    """Where the logs of a node's ranks stand, in a job on many nodes."""
    return folder.logs / f"node-{node:04d}"


def make_log_folders(folder: JobFolder, nodes: int) -> None:
    """Make what `log_pattern` needs: Slurm opens files only in folders that are there."""
    for node in range(nodes if nodes > MANY_NODES else 0):
        node_logs(folder, node).mkdir(exist_ok=True)


def log_pattern(nodes: int) -> str:
    """What srun is told of the logs of a job on so many nodes; see FILENAME PATTERN in srun(1)."""
    return f"logs/{'node-%4n/' if nodes > MANY_NODES else ''}rank-%5t.log"


def append_slurm_id(folder: JobFolder, slurm_id: str) -> None:
    """Note the Slurm job that is the job's newest."""
    record = read_json(folder.slurm)
    write_json(folder.slurm, record | {"ids": [*record["ids"], slurm_id]})


def write_job(folder: JobFolder, description: dict[str, Any]) -> None:
    """Write what the job is, and which code it is run with."""
    folder.logs.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    write_text(folder.config, text)
    write_text(folder.source, code_version())


def read_job(folder: JobFolder) -> dict[str, Any]:
    """What `write_job` wrote."""
    description: dict[str, Any] = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    return description


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of what the numbers depend on."""
    found = {"megatron-jobs": megatron_jobs.__version__, "python": platform.python_version()}
    for name in VERSIONS_OF:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def code_version() -> str:
    """Version, and in a checkout the commit and the uncommitted changes, as text."""
    root = Path(megatron_jobs.__file__).parent.parent
    noted = root / SOURCE
    if noted.exists():  # this is the copy in a run folder
        return noted.read_text(encoding="utf-8")
    lines = [f"megatron-jobs {megatron_jobs.__version__} from {root}", f"python {sys.version}"]
    if (root / ".git").exists():
        lines.append(f"commit {_git(root, 'rev-parse', 'HEAD')}")
        lines.append(_git(root, "status", "--porcelain", "--", "megatron_jobs", "csrc"))
        lines.append(_git(root, "diff", "HEAD", "--", "megatron_jobs", "csrc"))
    return "\n".join(lines) + "\n"


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown: git is not installed"
    return done.stdout.strip() if done.returncode == 0 else f"unknown: {done.stderr.strip()}"
