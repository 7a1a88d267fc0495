"""Profiles of clusters: every fault is named, what a cluster lacks is known without Slurm."""

from pathlib import Path

import pytest

from megatron_jobs.config.resources import Resources
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.cluster import PROFILES, load_cluster

FAULTY = """
name: far
partition: "a\\nb"
signal_secnds: 5
"""
FAULTY_TOGETHER = """
strikes: bad.jsonl
name: far
partition: "a\\nb"
environment: {NCCL-DEBUG: "1"}
sbatch: {time: 5, job_name: x, --constraint: ib, licenses: fluent}
"""


def problems_of(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "far.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_cluster(str(path))
    return dict(caught.value.problems)


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_profiles_load_by_their_name(path: Path) -> None:
    assert load_cluster(path.stem) == load_cluster(str(path))


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, FAULTY)
    assert problems == {
        "signal_secnds": "no such setting: 'signal_secnds'; did you mean signal_seconds?"
    }


def test_every_fault_is_named(tmp_path: Path) -> None:
    assert problems_of(tmp_path, FAULTY_TOGETHER) == {
        "partition": "must be one line, got 'a\\nb'",
        "environment.NCCL-DEBUG": "is no name of a variable",
        "strikes": "'bad.jsonl' is no absolute path: jobs run in folders of their own",
        "sbatch.time": "is set from the job's resources or another setting",
        "sbatch.job_name": "is set from the job's resources or another setting",
        "sbatch.--constraint": "is no parameter of sbatch; give its long name, no dashes",
    }


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "--cluster: not given; must be a profile's file, or one that ships: "),
        ("mars", "--cluster: no such profile: 'mars'; must be"),
    ],
)
def test_a_profile_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load_cluster(name)
    assert str(caught.value).startswith(words)
    assert "devcluster" in str(caught.value)


def test_what_a_cluster_does_not_have() -> None:
    cluster = load_cluster("devcluster")
    most = Resources(nodes=99, ranks=8, cpus=2, gpus=8, hours=168)
    assert list(cluster.refusals(most)) == []
    too_much = Resources(ranks=8, cpus=3, gpus=9, hours=168.5)
    assert dict(cluster.refusals(too_much)) == {
        "resources.cpus": "8 ranks x 3 cpus = 24; a node of devcluster has 16",
        "resources.gpus": "9; a node of devcluster has 8",
        "resources.hours": "168.5 is over the 168 that devcluster allows; give less: a job that "
        "stops in time is put back in the queue and goes on",
    }
