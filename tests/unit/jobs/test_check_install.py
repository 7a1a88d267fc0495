"""Each line of `mj doctor` about the installation and the run folder; the sentence in full."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.jobs import check_install
from megatron_jobs.jobs.check_install import (
    WANTED,
    check_installation,
    check_run_folder,
    judge_installation,
    look_at,
)
from tests.unit.jobs.checks import cluster, failing, lines

ROOT = Path(__file__).parents[3]
HEALTHY = {
    "python": "3.12.1",
    "versions": {"torch": "2.13.0+cu130", "megatron-core": "0.19.2", "submitit": "1.5.4"},
    "data": "",
    "torch": "",
    "cuda": "13.0",
    "gpus": 8,
    "kernels": {"cpu": "is not built", "cuda": "is not built"},
}


@pytest.mark.parametrize(
    ("changes", "gpus", "wanted"),
    [
        ({"python": "3.9.2"}, 0, ["Python: 3.9.2 is too old; install 3.11 or newer"]),
        (
            {"versions": {"torch": "2.5.1", "megatron-core": "0.12.0", "submitit": ""}},
            0,
            [
                "megatron-core: found 0.12.0, must be ==0.19.2; pip install "
                "'megatron-core==0.19.2'",
                "submitit: found none, must be ==1.5.4; pip install 'submitit==1.5.4'",
                "torch: found 2.5.1, must be >=2.6; pip install 'torch>=2.6'",
            ],
        ),
        (
            {"data": "ModuleNotFoundError: no _data"},
            0,
            [
                "C++ extension: ModuleNotFoundError: no _data; build it: pip install -e . in the "
                "checkout, with a C++20 compiler"
            ],
        ),
        (
            {"torch": "ImportError: libcudart"},
            8,
            ["torch: cannot be imported: ImportError: libcudart; install it again"],
        ),
        (
            {"cuda": "", "gpus": 0},
            8,
            [
                "CUDA: torch is built without it, the plan asks for 8 GPUs a node; install torch "
                "with CUDA"
            ],
        ),
        ({"cuda": "", "gpus": 0}, 0, []),
        ({}, 8, []),
    ],
)
def test_installations(changes: dict[str, Any], gpus: int, wanted: list[str]) -> None:
    assert failing(judge_installation(HEALTHY | changes, gpus)) == wanted


def test_the_wanted_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {need.partition(";")[0].strip() for need in project["dependencies"]}
    assert {name + rule for name, rule in WANTED.items()} <= needs
    assert project["requires-python"] == ">=" + ".".join(map(str, check_install.LEAST_PYTHON))


def test_a_python_that_says_nothing(tmp_path: Path) -> None:
    mute = tmp_path / "python"
    mute.write_text("#!/bin/sh\nexit 1\n")
    mute.chmod(0o755)
    (line,) = failing(check_installation(cluster(python=str(mute))))
    assert line.startswith(f"installation: {mute}: gives no answer: ")
    assert line.endswith("; install megatron-jobs there; see Makefile")
    far = list(check_installation(cluster(python="/far/python")))
    assert lines(far, "note") == ["installation: /far/python is not on this machine: not looked at"]


def test_another_python_is_asked_and_not_this_one(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text(f"#!/bin/sh\necho noise\necho '{json.dumps(HEALTHY)}'\n")
    other.chmod(0o755)
    assert look_at(str(other)) == HEALTHY


def test_run_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cure = "choose --run on a file system that all nodes share"
    run = Path("/tmp/runs/x")
    assert failing(check_run_folder(run, nodes_here=False)) == [
        f"run folder: {run} is seen by this machine alone; {cure}"
    ]
    assert failing(check_run_folder(tmp_path, nodes_here=True)) == []
    monkeypatch.setattr(check_install, "no_locks", lambda folder: f"{folder}: not supported")
    assert failing(check_run_folder(tmp_path / "new", nodes_here=True)) == [
        f"file locks: {tmp_path}: not supported; mount it with locks (Lustre: -o flock)"
    ]
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert failing(check_run_folder(tmp_path / "new", nodes_here=True)) == [
        f"run folder: {tmp_path} cannot be written to; {cure}"
    ]
