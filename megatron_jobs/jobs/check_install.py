"""What `mj doctor` looks at in the installation: versions, the C++ part, CUDA, file systems.

torch is looked at by another process: jobs/ never imports it.
"""

import fcntl
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_jobs.jobs import check_kernels
from megatron_jobs.jobs.check import Check, bad, cannot_write, good, judge, nearest_folder, remark
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.queue import call_slurm
from megatron_jobs.jobs.software import python_of

WANTED = {"megatron-core": "==0.19.2", "submitit": "==1.5.4", "torch": ">=2.6"}
"""As in pyproject.toml; both pinned ones are used by their private parts."""
LEAST_PYTHON = (3, 11)
OF_ONE_NODE = ("/tmp", "/var/tmp", "/dev/shm", "/run")
LOOK = (
    check_kernels.LOOK
    + """
import importlib.metadata as metadata, json, platform
found = {"python": platform.python_version(), "versions": {}, "kernels": kernels}
for name in %r:
    try:
        found["versions"][name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        found["versions"][name] = ""
try:
    import megatron_jobs._data
    found["data"] = ""
except Exception as error:
    found["data"] = f"{type(error).__name__}: {error}"
try:
    from torch import cuda, version
    found["cuda"], found["gpus"] = version.cuda or "", cuda.device_count()
    found["torch"] = ""
except Exception as error:
    found["torch"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""
)


def check_installation(cluster: Cluster | None, *, gpus: int = 0) -> Iterator[Check]:
    """The Python of the jobs and what it can import.

    Args:
        cluster: whose Python is meant; None for the one that runs this.
        gpus: the most GPUs on a node that a job of the plan asks for.
    """
    python = sys.executable if cluster is None else python_of(cluster)
    if cluster is not None and (cluster.software.contained or not os.access(python, os.X_OK)):
        yield remark("installation", f"{python} is not on this machine: not looked at")
        return
    found = look_at(python)
    if isinstance(found, str):
        yield bad("installation", f"{python}: {found}", "install megatron-jobs there; see Makefile")
        return
    yield from judge_installation(found, gpus)


def look_at(python: str) -> dict[str, Any] | str:
    """What a Python says of itself, or why it says nothing; some seconds for importing torch."""
    root = str(Path(__file__).parents[2])
    command = [python, "-c", LOOK % (list(WANTED),)]
    environment = os.environ | {"PYTHONPATH": root}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        answer: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"gives no answer: {error}"
    return answer


def judge_installation(found: dict[str, Any], gpus: int) -> Iterator[Check]:
    """Lines for what `look_at` found."""
    least = ".".join(map(str, LEAST_PYTHON))
    wrong = "" if _parts(found["python"]) >= LEAST_PYTHON else f"{found['python']} is too old"
    yield judge(wrong, "Python", found["python"], f"install {least} or newer")
    for name, wanted in WANTED.items():
        version = found["versions"][name]
        fits = bool(version) and _fits(version, wanted)
        wrong = "" if fits else f"found {version or 'none'}, must be {wanted}"
        yield judge(wrong, name, version, f"pip install '{name}{wanted}'")
    cure = "build it: pip install -e . in the checkout, with a C++20 compiler"
    yield judge(found["data"], "C++ extension", "loads", cure)
    yield _judge_cuda(found, gpus)
    yield from check_kernels.judge_kernels(found["kernels"])


def _judge_cuda(found: dict[str, Any], gpus: int) -> Check:
    if found["torch"]:
        return bad("torch", f"cannot be imported: {found['torch']}", "install it again")
    cuda, seen = found["cuda"], found["gpus"]
    if not cuda and gpus:
        wanted = f"the plan asks for {gpus} GPUs a node"
        return bad("CUDA", f"torch is built without it, {wanted}", "install torch with CUDA")
    if not cuda:
        return good("CUDA", "torch is built without it; nothing here needs it")
    return good("CUDA", f"{cuda}, {seen} GPUs on this machine")


def check_run_folder(run: Path, *, nodes_here: bool | None) -> Iterator[Check]:
    """Whether jobs can work in the run folder, those on other nodes too.

    Args:
        nodes_here: whether all nodes are this machine, as in slurm/devcluster; None: no nodes.
    """
    cure = "choose --run on a file system that all nodes share"
    wrong = cannot_write(run)
    if wrong:
        yield bad("run folder", wrong, cure)
        return
    alone = any(run.is_relative_to(place) for place in OF_ONE_NODE)
    if alone and nodes_here is False:
        yield bad("run folder", f"{run} is seen by this machine alone", cure)
    else:
        yield good("run folder", f"{run}{', all nodes are this machine' if nodes_here else ''}")
    wrong = no_locks(nearest_folder(run))
    yield judge(wrong, "file locks", "work there", "mount it with locks (Lustre: -o flock)")


def no_locks(folder: Path) -> str:
    """Why files there cannot be locked; nothing when they can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""


def nodes_are_here() -> bool:
    """Whether every node's address is one of this machine's own."""
    done = call_slurm(["sinfo", "--noheader", "--format=%o"])
    addresses = done.stdout.split()
    return bool(addresses) and all(address.startswith("127.") for address in addresses)


def _fits(version: str, wanted: str) -> bool:
    exact = wanted.removeprefix("==")
    if exact != wanted:
        return version.partition("+")[0] == exact
    return _parts(version) >= _parts(wanted.removeprefix(">="))


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
