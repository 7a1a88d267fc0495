"""Where Python comes from: the words that a batch script puts before it, for each kind of software.

module, venv and conda are lines at the top of the script; sbatch hands the environment that they
make on to srun. Containers are words before each Python: on the first node's host for the steps
before and after the ranks, and behind srun for the ranks. A container sees the run folder (the
copy of the code is in it), the inputs, the scratch folder and the strike list at their own paths.

Sources: apptainer-exec(1); Pyxis, github.com/NVIDIA/pyxis/wiki/Usage; conda, `conda shell.bash
hook`; the script that Environment Modules and Lmod leave in /etc/profile.d.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_jobs.config.settings import Problem, input_paths
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.fabric import fabric_environment
from megatron_jobs.jobs.plan import Job

ONE_STEP = (
    *("env", "-u", "SLURM_GPUS", "-u", "SLURM_GPUS_PER_NODE"),
    *("-u", "SLURM_GPUS_PER_TASK", "-u", "SLURM_TRES_PER_TASK"),
    *("srun", "--nodes=1", "--relative=0", "--ntasks=1", "--ntasks-per-node=1"),
    *("--overlap", "--mem=0", "--gres=none"),
)
"""On the first node of the job, beside other steps that may run there, of which it takes nothing.
srun refuses to ask for no GPUs while a variable asks for some."""
NODE_LOCAL = ("/dev/shm", "/tmp")
"""Where ranks of one node meet when the profile names no scratch."""
MODULES = """\
if ! type module >/dev/null 2>&1; then # a batch script reads no profile
  for file in /etc/profile.d/*modules.sh /etc/profile.d/*lmod.sh; do
    if [[ -r $file ]]; then . "$file"; fi
  done
fi"""


@dataclass(frozen=True, slots=True)
class Launch:
    """Words of a batch script; each word as it is, still to be quoted."""

    setup: tuple[str, ...] = ()
    """Lines of shell at its top, quoted already."""
    control: tuple[str, ...] = ()
    """Before a Python that runs on the first node, outside srun."""
    srun: tuple[str, ...] = ()
    """Options of each srun that starts Python."""
    rank: tuple[str, ...] = ()
    """Before a Python that srun starts."""


def launch_words(cluster: Cluster, job: Job, *, code: Path) -> Launch:
    """What stands before Python in the batch script of a job.

    Args:
        code: folder with the package, put on PYTHONPATH.
    """
    setup = tuple(_setup(cluster))
    if not cluster.software.contained:
        return Launch(setup)
    inside = ("env", *_assignments(cluster, job, code))  # whatever the image sets
    binds = ",".join(dict.fromkeys(_mounts(cluster, job)))
    if cluster.software.kind == "pyxis":
        options = (f"--container-image={cluster.software.image}", f"--container-mounts={binds}")
        return Launch(setup, (*ONE_STEP, *cluster.srun, *options, *inside), options, inside)
    nvidia = ("--nv",) if job.resources.gpus else ()
    bare = ("--bind", binds, cluster.software.image, *inside)
    return Launch(
        setup,
        control=("apptainer", "exec", *bare),
        rank=("apptainer", "exec", *nvidia, *bare),
    )


def python_of(cluster: Cluster) -> str:
    """The interpreter of the nodes: what the profile says, or what its software brings."""
    software = cluster.software
    if cluster.python:
        return cluster.python
    if software.kind == "venv":
        return f"{software.path}/bin/python"
    if software.kind == "conda":
        return "python"  # of the environment that the script has activated
    return "python3" if software.contained else sys.executable


def mount_problems(cluster: Cluster, job: Job) -> Iterator[Problem]:
    """Yield (setting, sentence) for each folder that no container can be given."""
    if not cluster.software.contained:
        return
    kind = cluster.software.kind
    for folder in _folders(cluster, job):
        for sign in {",", ":"} & set(str(folder)):
            rule = f"{kind} reads {sign} in a mounted folder's name as the end of it"
            yield "software", f"{folder}: {rule}; choose another name"


def _setup(cluster: Cluster) -> Iterator[str]:
    """Lines that make `python` and its libraries be found."""
    software = cluster.software
    if software.modules:
        yield MODULES
        yield f"module load {shlex.join(software.modules)}"
    if software.kind == "venv":
        yield f". {shlex.quote(software.path + '/bin/activate')}"
    if software.kind == "conda":
        yield 'eval "$(conda shell.bash hook)"'
        yield f"conda activate {shlex.quote(software.path)}"


def _assignments(cluster: Cluster, job: Job, code: Path) -> Iterator[str]:
    asked = job.resources
    fabric = fabric_environment(cluster.fabric, nodes=asked.nodes, gpus=asked.gpus)
    values = {"OMP_NUM_THREADS": str(asked.cpus), "PYTHONUNBUFFERED": "1"}
    values |= {name: value for name, (value, _) in fabric.items()} | cluster.environment
    beside = values.get("PYTHONPATH")
    values["PYTHONPATH"] = f"{code}:{beside}" if beside else str(code)
    yield from (f"{name}={value}" for name, value in values.items())


def _mounts(cluster: Cluster, job: Job) -> Iterator[str]:
    for folder in _folders(cluster, job):
        yield f"{folder}:{folder}"
    for mount in cluster.software.mounts:
        yield mount if ":" in mount else f"{mount}:{mount}"


def _folders(cluster: Cluster, job: Job) -> list[Path]:
    """What must be seen inside at its own path; nothing that lies in another of them."""
    wanted = {job.run, *(_folder_of(path) for _, path in input_paths(job.config))}
    wanted |= {Path(cluster.scratch)} if cluster.scratch else {Path(name) for name in NODE_LOCAL}
    if cluster.strikes:
        wanted.add(Path(cluster.strikes).parent)
    return sorted(
        folder
        for folder in wanted
        if not any(folder != other and folder.is_relative_to(other) for other in wanted)
    )


def _folder_of(path: Path) -> Path:
    """A folder that holds the input; an output that is still to be made is in the run folder."""
    return path if path.is_dir() else path.parent
