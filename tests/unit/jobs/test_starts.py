"""The starts of a job, from its files and from Slurm."""

from pathlib import Path

import pytest

from megatron_jobs.config.resources import Resources
from megatron_jobs.jobs.starts import Start, join_starts, node_names, noted_starts, short_names
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
    add_receipt(folder)
    first, second = noted_starts(folder, resources)
    assert (first.began, first.ended, first.nodes) == (FIRST, FIRST + 60, ("n1", "n2"))
    assert (second.nodes, second.ended) == (("n1", "n3"), folder.receipt.stat().st_mtime)
    assert (first.cpus, first.gpus, first.slurm_id) == (24, 10, "7")
    assert noted_starts(folder, resources, running=True)[1].ended is None


def test_a_start_that_slurm_tells_of_is_not_told_twice() -> None:
    told = [Start(slurm_id="7", began=100, ended=160), Start(slurm_id="7", began=170)]
    noted = [Start(slurm_id="7", began=b) for b in (101, 163, 171)] + [Start(began=50)]
    found = join_starts(told, noted)
    assert [(start.slurm_id, start.began) for start in found] == [
        ("", 50), ("7", 100), ("7", 163), ("7", 170),
    ]  # fmt: skip
