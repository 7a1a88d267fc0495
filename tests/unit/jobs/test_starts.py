"""The starts of a job, from its files and from Slurm."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_jobs.config.resources import Resources
from megatron_jobs.jobs.starts import (
    Start,
    join_starts,
    node_names,
    noted_starts,
    short_names,
    with_gpus,
)
from megatron_jobs.runtime.files import write_json
from tests.runs import FIRST, add_event, add_receipt, add_starts, make_job


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-10],m3", ["n08", "n09", "n10", "m3"]),
        ("r[1-2]c[1,3]", ["r1c1", "r1c3", "r2c1", "r2c3"]),
        ("a-[1-2]-b,gpu-7", ["a-1-b", "a-2-b", "gpu-7"]),
    ],
)
def test_names_of_nodes(short: str, names: list[str]) -> None:
    assert node_names(short) == names


def test_names_of_nodes_in_short() -> None:
    names = ["n1", "n2", "n07", "n8", "m3", "login", "login", "a-9", "a-10", "x-098", "x-099"]
    short = short_names(names)
    assert short == "n[1-2],n07,n8,m3,login,login,a-9,a-10,x-[098-099]"
    assert node_names(short) == names
    many = [f"gpu{number:04d}" for number in range(2000)]
    assert short_names(many) == "gpu[0000-1999]"


def test_starts_that_files_tell_of(tmp_path: Path) -> None:
    folder = make_job(tmp_path, "job")
    resources = Resources(nodes=2, ranks=4, cpus=3, gpus=5).model_dump()
    assert noted_starts(folder, resources) == []
    add_starts(folder, (0, 60), (100, None), slurm_id="7")
    add_event(folder, 1, "start", nodes=["n1", "n2"])
    add_event(folder, 101, "start", nodes=["n1", "n3"])
    add_receipt(folder, 160)
    first, second = noted_starts(folder, resources)
    assert (first.began, first.ended, first.nodes) == (FIRST, FIRST + 60, ("n1", "n2"))
    assert (second.nodes, second.ended) == (("n1", "n3"), FIRST + 160)
    assert (first.cpus, first.gpus, first.slurm_id) == (24, 10, "7")
    assert noted_starts(folder, resources, running=True)[1].ended is None


def test_the_last_end_is_that_of_the_receipt_wherever_it_is_copied(tmp_path: Path) -> None:
    """A copied file is as old as its copy; a job without a receipt ended with its last words."""
    folder = make_job(tmp_path, "job")
    resources = Resources().model_dump()
    add_starts(folder, (0, None))
    add_receipt(folder, 60)
    os.utime(folder.receipt, (FIRST + 90_000, FIRST + 90_000))
    assert noted_starts(folder, resources)[0].ended == FIRST + 60
    folder.receipt.unlink()
    write_json(folder.outcome, {"status": 1})
    os.utime(folder.outcome, (FIRST + 70, FIRST + 70))
    assert noted_starts(folder, resources)[0].ended == FIRST + 70


def test_gpus_that_slurm_does_not_account_are_those_asked_for() -> None:
    """3 nodes with 8 each; where Slurm counts them itself it is believed."""
    told = Start(slurm_id="7", began=100, nodes=("n1", "n2", "n3"), cpus=24)
    assert with_gpus(told, 8).gpus == 24
    assert with_gpus(replace(told, gpus=6), 8).gpus == 6
    assert with_gpus(told, 0).gpus == 0


def test_a_start_that_slurm_tells_of_is_not_told_twice() -> None:
    told = [Start(slurm_id="7", began=100, ended=160), Start(slurm_id="7", began=170)]
    noted = [Start(slurm_id="7", began=b) for b in (101, 163, 171)] + [Start(began=50)]
    found = join_starts(told, noted)
    assert [(start.slurm_id, start.began) for start in found] == [
        ("", 50), ("7", 100), ("7", 163), ("7", 170),
    ]  # fmt: skip
