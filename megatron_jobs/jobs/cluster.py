"""The profile of one site: the only home of its partitions, limits, environment and oddness."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt

from megatron_jobs.config.build import build_settings
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem, Settings
from megatron_jobs.config.site import (
    Fabric,
    NonNegative,
    Notify,
    Preflight,
    Prices,
    Software,
    Watch,
)
from megatron_jobs.config.tree import read_tree
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.runtime.files import whole_file

PROFILES = Path(__file__).parents[2] / "slurm" / "clusters"
"""Where the profiles lie in a checkout: they may be named without folder and ending."""
OURS = re.compile(
    "array|chdir|cpus-per-task|dependency|error|gpus-per-node|job-name|kill-on-invalid-dep|mem"
    "|no-requeue|nodes|ntasks|ntasks-per-node|open-mode|output|requeue|time"
)
"""Parameters of sbatch that follow from the job."""
OWN_SETTINGS = {name: name for name in ("partition", "account", "qos")} | {
    "mail-type": "notify.on",
    "mail-user": "notify.mail",
    "signal": "signal_seconds",
}
"""Parameters of sbatch -> the setting of the profile that sets them."""
BREAKING = re.compile("clusters|parsable|quiet|test-only|wait|wrap")
"""Parameters of sbatch that change what it answers or runs."""
OWNER_ONLY = 0o600


class Cluster(Settings):
    """One Slurm cluster, seen by one user."""

    name: str
    """What it is called in messages."""
    partition: str = ""
    """Several, joined by commas: the first that can start the job. Empty: Slurm's default."""
    cpu_partition: str = ""
    """For jobs that ask for no GPU; empty: the same. They get no words about GPUs."""
    account: str = ""
    """Empty: the user's default."""
    qos: str = ""
    """Empty: the default."""
    gpus_per_node: NonNegativeInt = 0
    """GPUs of a node; a job that asks for more is refused."""
    gpu_type: str = ""
    """Slurm's name of the GPU model, as in `h100`; empty: any."""
    gpu_option: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How the site wants GPUs asked for."""
    cpus_per_node: NonNegativeInt = 0
    """CPU cores of a node; 0: known to Slurm only."""
    max_hours: NonNegative = 0
    """Longest time limit of a job; 0: known to Slurm only."""
    signal_seconds: PositiveInt = 120
    """Before its time limit a job is told to save and stop, this long or a quarter of the limit."""
    again: Literal["requeue", "submit", "ahead"] = "requeue"
    """How a job that is not done goes on. `requeue`: under its id, by scontrol on the node, or else
    as `submit`; `submit`: by sbatch on the node, under a new id; `ahead`: no command of Slurm on
    the nodes is needed, successors are submitted with the job."""
    successors: PositiveInt = 4
    """With `again: ahead`, how many wait behind each job."""
    max_restarts: NonNegativeInt = 50
    """How often a job is put back in the queue."""
    stuck_restarts: PositiveInt = 3
    """A job is stopped after so many restarts in a row that made no headway."""
    scratch: str = ""
    """Folder local to each node; empty: /dev/shm, or else /tmp."""
    strikes: str = ""
    """File in which the team notes nodes that failed: its nodes are excluded. Empty: none."""
    strike_days: Annotated[float, Field(gt=0)] = 3
    """How long a strike counts."""
    max_array_size: PositiveInt = 1001
    """Slurm's MaxArraySize: larger arrays are submitted in parts."""
    fabric: Fabric = ""
    """Which network joins the nodes; sets NCCL's variables for it."""
    software: Software = Software()
    preflight: Preflight = Preflight()
    watch: Watch = Watch()
    prices: Prices = Prices()
    notify: Notify = Notify()
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of every job; they have the last word over `fabric` and what modules set."""
    setup: tuple[str, ...] = ()
    """Lines of shell before anything else: `module load cuda`, `source env.sh`."""
    python: str = ""
    """The Python on the nodes; empty: the one of `software`, or the one that submits, at the same
    path."""
    sbatch: dict[str, str | int | bool] = Field(default_factory=dict)
    """More parameters of sbatch, without dashes: `constraint: ib`; true: a flag without value."""
    srun: tuple[str, ...] = ()
    """More words for srun: `--mpi=none`, `--container-image=...`."""

    def problems(self) -> Iterator[Problem]:
        """Values that no batch script can hold, and parameters that are not the profile's."""
        lines = {name: getattr(self, name) for name in ("partition", "account", "qos", "gpu_type")}
        lines |= {f"sbatch.{key}": value for key, value in self.sbatch.items()}
        for setting, value in lines.items():
            if "\n" in str(value):
                yield setting, f"must be one line, got {value!r}"
        for setting in ("scratch", "strikes"):
            path = getattr(self, setting)
            if path and not path.startswith("/"):
                yield setting, f"{path!r} is no absolute path: jobs run in folders of their own"
        for key in self.sbatch:
            fault = _fault_of_parameter(key)
            if fault:
                yield f"sbatch.{key}", fault
        for variable in self.environment:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
                yield f"environment.{variable}", "is no name of a variable"

    def refusals(self, resources: Resources) -> Iterator[Problem]:
        """Yield (setting, sentence) for what a job asks for and this cluster does not have."""
        cpus = resources.ranks * resources.cpus
        elsewhere = self.cpu_partition and not resources.gpus  # Slurm knows those nodes, not we
        if self.cpus_per_node and cpus > self.cpus_per_node and not elsewhere:
            ranks = f"{resources.ranks} ranks x {resources.cpus} cpus = {cpus}"
            yield "resources.cpus", f"{ranks}; a node of {self.name} has {self.cpus_per_node}"
        if resources.gpus > self.gpus_per_node:
            found = f"{resources.gpus}; a node of {self.name} has {self.gpus_per_node}"
            yield "resources.gpus", found
        if self.max_hours and resources.hours > self.max_hours:
            rule = f"{resources.hours:g} is over the {self.max_hours:g} that {self.name} allows"
            cure = "give less: a job that stops in time is put back in the queue and goes on"
            yield "resources.hours", f"{rule}; {cure}"


def _fault_of_parameter(key: str) -> str:
    """Why a parameter of sbatch is not the profile's to give, or nothing."""
    name = key.replace("_", "-")
    if OURS.fullmatch(name):
        return "is set from the job's resources"
    if name in OWN_SETTINGS:
        return f"has a setting of its own: {OWN_SETTINGS[name]}"
    if BREAKING.fullmatch(name):
        return "changes what sbatch answers or runs: jobs could not be followed"
    if not re.fullmatch(r"[a-z][a-z_-]*", key):
        return "is no parameter of sbatch; give its long name, no dashes"
    return ""


def write_cluster(folder: JobFolder, cluster: Cluster) -> None:
    """Keep the profile beside the job; for its owner alone, as a webhook's address is a secret."""
    text = yaml.safe_dump(cluster.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with whole_file(folder.cluster) as part:
        part.touch(OWNER_ONLY)
        part.chmod(OWNER_ONLY)
        part.write_text(text, encoding="utf-8")


def cluster_of(folder: JobFolder) -> Cluster | None:
    """The profile that a job was submitted with; None when it never was, or is another user's."""
    text = profile_text(folder)
    return None if text is None else Cluster.model_validate(yaml.safe_load(text))


def profile_text(folder: JobFolder) -> str | None:
    """The file behind `cluster_of`; None when it is not there, or is another user's."""
    try:
        return folder.cluster.read_text(encoding="utf-8")
    except (FileNotFoundError, PermissionError):
        return None


def load_cluster(name: str) -> Cluster:
    """The profile in the file `name`, or the one of that name in slurm/clusters of a checkout.

    Raises: UserError when there is none, ConfigError with every fault of it.
    """
    path = _find_profile(name)
    tree = read_tree(path, name)
    cluster, problems = build_settings(Cluster, tree.values)
    if cluster is None or problems or tree.problems:
        raise ConfigError(name, tree.problems + problems)
    return cluster


def _find_profile(name: str) -> Path:
    shipped = PROFILES / f"{name}.yaml"
    if name and "/" not in name and shipped.is_file():
        return shipped
    path = Path(name)
    if name and path.is_file():
        return path
    known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml"))) or "none"
    found = f"no such profile: {name!r}" if name else "not given"
    raise UserError(f"--cluster: {found}; must be a profile's file, or one that ships: {known}")
