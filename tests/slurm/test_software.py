"""Software of each kind on a real Slurm (tests.stages.look): what the ranks and the steps beside
them run in. Modules are real where they are or root may install them, venv is; conda is a stand-in
shell function, Apptainer the stand-in program beside this file, Pyxis the plug-in of
slurm/devcluster with Pyxis's options."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for
from tests.slurm.conftest import DEVCLUSTER, ROOT, UNAVAILABLE

MODULE_SCRIPTS = [Path("/etc/profile.d") / name for name in ("modules.sh", "lmod.sh")]
SYSTEM = ["/bin", "/usr", "/lib", "/lib64", "/etc", "/proc", "/dev", "/sys"]
"""What an image would bring; the images here are empty folders."""

NONE = {"nodes": False, "links": False}
"""No preflight, which has tests of its own."""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="root alone changes a task's root folder")


pytestmark = pytest.mark.usefixtures("calm_nodes")


def run_with(tmp_path: Path, job: dict[str, Any] | None = None, **changes: Any) -> Plan:
    """Run one job of 2 nodes x 1 rank to its end."""
    asked = {"nodes": 2, "hours": 0.2}
    entry = {"stage": "tests.stages.look", "resources": asked} | (job or {})
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": {"job": entry}}))
    plan = load_plan(str(path), [], tmp_path / "r un")
    cluster = Cluster.model_validate(load_cluster("devcluster").model_dump() | changes)
    submit_plan(plan, cluster, dry_run=False)
    state = lambda: plan_status(plan.run)[0]["state"]  # noqa: E731
    wait_for(lambda: state() not in ("waiting", "running"), "its end", seconds=240, every=0.3)
    logs = plan.jobs["job"].folder.logs
    assert state() == "done", "\n".join(path.read_text() for path in logs.rglob("*.log"))
    return plan


def seen(plan: Plan) -> list[dict[str, Any]]:
    folder = plan.jobs["job"].folder.path / "seen"
    return [json.loads(path.read_text()) for path in sorted(folder.iterdir())]


@pytest.fixture
def modules() -> list[str]:
    """Lines of shell that bring `module`: none for the real one, which root installs; else a few
    that know `setenv`."""
    if os.getuid() == 0 and shutil.which("apt-get") and not there(MODULE_SCRIPTS):
        install = f". {DEVCLUSTER}/cluster.sh; . {DEVCLUSTER}/packages.sh; mkdir -p $DIR/log"
        subprocess.run(
            ["bash", "-c", f"{install}; install_packages environment-modules"], check=False
        )
    if there(MODULE_SCRIPTS):
        return []
    script = r"s/^setenv \([^ ]*\) /export \1=/p"
    return [f'module() {{ eval "$(sed -n \'{script}\' "$MODULEPATH/$2")"; }}']


def there(paths: list[Path]) -> bool:
    return any(path.exists() for path in paths)


def test_modules(tmp_path: Path, modules: list[str]) -> None:
    files = tmp_path / "module files"
    files.mkdir()
    (files / "greeting").write_text("#%Module\nsetenv GREETING hello\nsetenv NCCL_DEBUG TRACE\n")
    plan = run_with(
        tmp_path,
        {"variables": ["GREETING", "NCCL_DEBUG"]},
        software={"kind": "module", "modules": ["greeting"]},
        setup=modules,
        preflight=NONE,
        environment={"MODULEPATH": str(files), "NCCL_DEBUG": "INFO"},
    )
    for found in seen(plan):
        assert found["variables"] == {"GREETING": "hello", "NCCL_DEBUG": "INFO"}


def test_a_virtual_environment(tmp_path: Path) -> None:
    place = tmp_path / "v env"
    venv.create(place, with_pip=False, symlinks=True)
    (packages,) = place.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    software = {"kind": "venv", "path": str(place)}
    job = {"variables": ["VIRTUAL_ENV"]}
    plan = run_with(tmp_path, job, software=software, preflight=NONE)
    for found in seen(plan):
        assert found["prefix"] == found["variables"]["VIRTUAL_ENV"] == str(place)


def test_conda(tmp_path: Path) -> None:
    """The stand-in puts the environment's programs on PATH, as `conda activate` does."""
    bin_folder = tmp_path / "env" / "bin"
    bin_folder.mkdir(parents=True)
    program = bin_folder / "python"
    program.write_text(f'#!/bin/bash\nexport CONDA_SEEN=yes\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    stand_in = (
        "conda() { case $1 in shell.bash) echo true ;; activate) PATH=$2/bin:$PATH ;; esac; }"
    )
    plan = run_with(
        tmp_path,
        {"variables": ["CONDA_SEEN"]},
        setup=[stand_in],
        software={"kind": "conda", "path": str(tmp_path / "env")},
        preflight=NONE,
    )
    assert [found["variables"]["CONDA_SEEN"] for found in seen(plan)] == ["yes", "yes"]


def test_a_job_without_gpus_goes_to_their_partition(tmp_path: Path) -> None:
    job = {"variables": ["SLURM_JOB_PARTITION", "NCCL_DEBUG"], "resources": {"hours": 0.2}}
    plan = run_with(tmp_path, job, cpu_partition="debug", fabric="roce", preflight=NONE)
    assert [found["variables"] for found in seen(plan)] == [
        {"SLURM_JOB_PARTITION": "debug", "NCCL_DEBUG": ""}
    ]


def contained_job(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A job that looks around, and the profile's changes for an image without anything in it."""
    for name in ("image", "scratch", "inputs", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "inputs" / "words.txt").write_text("hello")
    paths = [str(tmp_path / name) for name in ("r un/job", "scratch", "inputs", "elsewhere")]
    job = {
        "reads": str(tmp_path / "inputs" / "words.txt"),
        "paths": paths,
        "variables": ["NCCL_DEBUG", "OWN"],
        "resources": {"nodes": 2, "gpus": 1, "hours": 0.2},
    }
    python = [sys.prefix, str(Path(sys.base_prefix).resolve()), str(ROOT)]
    mounts = [path for path in SYSTEM if Path(path).exists()]
    mounts += sorted({path for path in python if not path.startswith("/usr/")})
    changes = {
        "python": sys.executable,
        "scratch": paths[1],
        "environment": {"OWN": "it's $mine", "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
        "software": {"image": str(tmp_path / "image"), "mounts": mounts},
    }
    return job, changes


def assert_contained(tmp_path: Path, plan: Plan) -> None:
    for found in seen(plan):
        assert found["paths"] == [
            str(tmp_path / name) for name in ("r un/job", "scratch", "inputs")
        ]
        assert found["read"] == "hello"
        assert found["variables"] == {"NCCL_DEBUG": "WARN", "OWN": "it's $mine"}
    assert [found["host"] for found in seen(plan)] == ["node1", "node2"]
    receipt = read_receipt(plan.jobs["job"].folder)
    assert receipt is not None
    assert receipt["numbers"] == {"ranks": 2}


@pytest.fixture
def _pyxis() -> Iterator[None]:
    done = subprocess.run([DEVCLUSTER / "pyxis", "on"], check=False)
    if done.returncode == UNAVAILABLE:
        pytest.skip("Slurm's headers cannot be had here")
    assert done.returncode == 0
    yield
    subprocess.run([DEVCLUSTER / "pyxis", "off"], check=True)


@needs_root
@pytest.mark.usefixtures("_pyxis")
def test_pyxis(tmp_path: Path) -> None:
    job, changes = contained_job(tmp_path)
    changes["software"]["kind"] = "pyxis"
    plan = run_with(tmp_path, job, **changes)
    assert_contained(tmp_path, plan)


@needs_root
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_apptainer(tmp_path: Path) -> None:
    job, changes = contained_job(tmp_path)
    words = tmp_path / "words"
    changes["software"]["kind"] = "apptainer"
    changes["environment"] |= {
        "APPTAINER_WORDS": str(words),
        "PATH": f"{Path(__file__).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
    }
    plan = run_with(tmp_path, job, **changes)
    assert_contained(tmp_path, plan)
    calls = words.read_text().splitlines()
    assert calls[0].startswith("<exec><--bind>")
    assert "<--begin>" in calls[0]
    ranks = [call for call in calls if call.startswith("<exec><--nv>")]
    assert len([call for call in ranks if call.endswith(f"<{plan.run}/job>")]) >= 2
    assert [call for call in calls[1:] if call.startswith("<exec><--bind>") and "--finish" in call]
