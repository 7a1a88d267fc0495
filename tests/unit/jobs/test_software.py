"""Words before Python for each kind of software; what a profile's `software:` may not say."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.errors import ConfigError
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.plan import Job, load_plan
from megatron_jobs.jobs.software import Launch, launch_words, mount_problems, python_of

CODE = Path("/c o/de")


def job_of(tmp_path: Path, **resources: int) -> Job:
    """An echo job that reads a file outside its run folder."""
    data = tmp_path / "da ta"
    data.mkdir(exist_ok=True)
    (data / "0.txt").write_text("")
    entry = {"stage": "tests.stages.echo", "reads": str(data), "resources": resources}
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"job": entry}}))
    return load_plan(str(path), [], tmp_path / "run").jobs["job"]


def cluster_of(**changes: Any) -> Cluster:
    return Cluster.model_validate({"name": "far", "gpus_per_node": 8} | changes)


def words(tmp_path: Path, software: dict[str, Any], gpus: int = 0, **changes: Any) -> Launch:
    job = job_of(tmp_path, gpus=gpus)
    return launch_words(cluster_of(software=software, **changes), job, code=CODE)


def run_lines(lines: tuple[str, ...], before: str, after: str) -> str:
    script = "\n".join(["set -eo pipefail", before, *lines, after])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return done.stdout


def test_none_adds_nothing(tmp_path: Path) -> None:
    assert words(tmp_path, {}) == Launch()


def test_modules_are_loaded_in_order_whatever_their_names(tmp_path: Path) -> None:
    launch = words(tmp_path, {"kind": "module", "modules": ["cuda/12 x", "nccl"]})
    assert launch.control == launch.srun == launch.rank == ()
    function = "module() { printf '<%s>' \"$@\"; }"
    assert run_lines(launch.setup, function, "") == "<load><cuda/12 x><nccl>"


def test_venv_puts_its_python_first(tmp_path: Path) -> None:
    venv = tmp_path / "it's a venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "activate").write_text("seen=yes\n")
    launch = words(tmp_path, {"kind": "venv", "path": str(venv)})
    assert run_lines(launch.setup, "", 'echo "$seen"') == "yes\n"
    cluster = cluster_of(software={"kind": "venv", "path": str(venv)})
    assert python_of(cluster) == f"{venv}/bin/python"


def test_conda_is_made_ready_and_activated(tmp_path: Path) -> None:
    """`conda` is a stand-in: what the real one prints for a shell is a function of that name."""
    launch = words(tmp_path, {"kind": "conda", "path": "/envs/my env"})
    stand_in = """conda() {
      case $1 in shell.bash) echo 'ready=yes' ;; *) printf '<%s>' "$ready" "$@" ;; esac; }"""
    assert run_lines(launch.setup, stand_in, "") == "<yes><activate></envs/my env>"
    assert python_of(cluster_of(software={"kind": "conda", "path": "x"})) == "python"


def test_apptainer_sees_the_run_the_inputs_and_the_scratch(tmp_path: Path) -> None:
    software = {
        "kind": "apptainer",
        "image": "/i mage.sif",
        "mounts": ["/lustre", "/a:/b", "/nvme"],
    }
    changes = {"scratch": "/nvme", "strikes": "/team/strikes.jsonl"}
    launch = words(
        tmp_path, software, gpus=1, environment={"A": "b c", "PYTHONPATH": "/mine"}, **changes
    )
    own = [f"{tmp_path}/da ta", f"{tmp_path}/run"]
    folders = sorted(["/nvme", "/team", *own])
    binds = ",".join([f"{folder}:{folder}" for folder in folders] + ["/lustre:/lustre", "/a:/b"])
    inside = ("/i mage.sif", "env")
    assert launch.control[:6] == ("apptainer", "exec", "--bind", binds, *inside)
    assert launch.rank[:7] == ("apptainer", "exec", "--nv", "--bind", binds, *inside)
    assert {"A=b c", f"PYTHONPATH={CODE}:/mine", "NCCL_DEBUG=WARN"} <= set(launch.rank[7:])
    assert launch.srun == launch.setup == ()
    assert python_of(cluster_of(software=software)) == "python3"


def test_pyxis_starts_a_step_for_each_python(tmp_path: Path) -> None:
    software = {"kind": "pyxis", "image": "nvcr.io#nvidia/pytorch:26.06-py3"}
    launch = words(tmp_path, software, srun=["--mpi=none"])
    folders = sorted([f"{tmp_path}/da ta", f"{tmp_path}/run", "/dev/shm", "/tmp"])
    if str(tmp_path).startswith("/tmp/"):
        folders = ["/dev/shm", "/tmp"]  # the others lie in them
    binds = ",".join(f"{folder}:{folder}" for folder in folders)
    assert launch.srun == (
        "--container-image=nvcr.io#nvidia/pytorch:26.06-py3",
        f"--container-mounts={binds}",
    )
    variables = ("GPUS", "GPUS_PER_NODE", "GPUS_PER_TASK", "TRES_PER_TASK")
    unset = (word for name in variables for word in ("-u", f"SLURM_{name}"))
    first = ("--nodes=1", "--relative=0", "--ntasks=1", "--ntasks-per-node=1")
    step = ("env", *unset, "srun", *first, "--overlap", "--mem=0", "--gres=none")
    assert launch.control == (*step, "--mpi=none", *launch.srun, *launch.rank)
    inside = {"OMP_NUM_THREADS=1", "PYTHONUNBUFFERED=1", f"PYTHONPATH={CODE}"}
    assert (launch.rank[0], set(launch.rank[1:])) == ("env", inside)


@pytest.mark.parametrize("kind", ["apptainer", "pyxis"])
def test_folders_that_no_container_can_be_given(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "a,b"
    place.mkdir()
    cluster = cluster_of(software={"kind": kind, "image": "x"}, scratch="/nvme")
    rule = f"{kind} reads , in a mounted folder's name as the end of it; choose another name"
    assert list(mount_problems(cluster, job_of(place))) == [
        ("software", f"{place}/da ta: {rule}"),
        ("software", f"{place}/run: {rule}"),
    ]
    assert list(mount_problems(cluster_of(), job_of(place))) == []


@pytest.mark.parametrize(
    ("software", "wanted"),
    [
        ({"kind": "venv"}, {"software.path": "must be set: kind is venv"}),
        ({"kind": "conda"}, {"software.path": "must be set: kind is conda"}),
        ({"kind": "module"}, {"software.modules": "must be set: kind is module"}),
        ({"kind": "pyxis"}, {"software.image": "must be set: kind is pyxis"}),
        ({"path": "/x"}, {"software.path": "'/x' is of no use: kind is none"}),
        (
            {"kind": "venv", "path": "x"},
            {"software.path": "'x' must be absolute: jobs run in folders of their own"},
        ),
        ({"mounts": ["/x"]}, {"software.mounts": "are of no use: kind is none"}),
        (
            {"kind": "apptainer", "image": "i", "mounts": ["/a:/b", "a", "/a:/b:ro"]},
            {
                "software.mounts.1": "'a' must be HOST or HOST:CONTAINER, absolute, "
                "without a comma",
                "software.mounts.2": "'/a:/b:ro' must be HOST or HOST:CONTAINER, absolute, "
                "without a comma",
            },
        ),
    ],
)
def test_faults_of_a_profile(
    tmp_path: Path, software: dict[str, Any], wanted: dict[str, str]
) -> None:
    path = tmp_path / "far.yaml"
    path.write_text(yaml.safe_dump({"name": "far", "software": software}))
    with pytest.raises(ConfigError) as caught:
        load_cluster(str(path))
    assert dict(caught.value.problems) == wanted
