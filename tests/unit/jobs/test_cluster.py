"""Profiles of clusters: every fault is named, what a cluster lacks is known without Slurm."""

from pathlib import Path

import pytest

from megatron_jobs.config.resources import Resources
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.cluster import (
    PROFILES,
    Cluster,
    cluster_of,
    load_cluster,
    profile_text,
    write_cluster,
)
from megatron_jobs.jobs.costs import prices_of
from megatron_jobs.jobs.folder import JobFolder

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
        "sbatch.time": "is set from the job's resources",
        "sbatch.job_name": "is set from the job's resources",
        "sbatch.--constraint": "is no parameter of sbatch; give its long name, no dashes",
    }


OF_RESOURCES = "is set from the job's resources"
BREAKS = "changes what sbatch answers or runs: jobs could not be followed"
PARAMETERS = {
    "partition": "has a setting of its own: partition",
    "account": "has a setting of its own: account",
    "qos": "has a setting of its own: qos",
    "signal": "has a setting of its own: signal_seconds",
    "mail-type": "has a setting of its own: notify.on",
    "mail_user": "has a setting of its own: notify.mail",
    "array": OF_RESOURCES,
    "ntasks": OF_RESOURCES,
    "ntasks-per-node": OF_RESOURCES,
    "no_requeue": OF_RESOURCES,
    "clusters": BREAKS,
    "wrap": BREAKS,
    "test-only": BREAKS,
    "test_only": BREAKS,
    "wait": BREAKS,
    "parsable": BREAKS,
    "quiet": BREAKS,
}


def test_parameters_of_sbatch_that_are_not_the_profiles(tmp_path: Path) -> None:
    given = "".join(f"  {name}: x\n" for name in PARAMETERS)
    wanted = {f"sbatch.{name}": words for name, words in PARAMETERS.items()}
    assert problems_of(tmp_path, f"name: far\nsbatch:\n{given}") == wanted
    path = tmp_path / "fine.yaml"
    path.write_text("name: far\nsbatch: {wait-all-nodes: 1, ntasks-per-socket: 2, exclusive: true}")
    assert len(load_cluster(str(path)).sbatch) == 3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("gpus_per_node: -2", "must be greater than or equal to 0, got -2"),
        ("cpus_per_node: -1", "must be greater than or equal to 0, got -1"),
        ("max_hours: -1", "must be greater than or equal to 0, got -1"),
        ("signal_seconds: -5", "must be greater than 0, got -5"),
        ("signal_seconds: 0", "must be greater than 0, got 0"),
    ],
)
def test_numbers_below_nothing(tmp_path: Path, setting: str, words: str) -> None:
    assert problems_of(tmp_path, f"name: far\n{setting}\n") == {setting.partition(":")[0]: words}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://h/x", "it begins with http:// or https://"),
        ("https://h:abc/x", "Port could not be cast to integer value as 'abc'"),
        ("https://h:99999/x", "Port out of range 0-65535"),
        ("https://h:0/x", "port 0 cannot be asked"),
        ("https:///x", "it names no host"),
        ("https://[x/", "Invalid IPv6 URL"),
    ],
)
def test_a_webhook_that_is_no_url(tmp_path: Path, url: str, words: str) -> None:
    found = problems_of(tmp_path, f"name: far\nnotify: {{webhook: '{url}'}}\n")
    assert found == {"notify.webhook": f"'{url}' is no URL: {words}"}


def test_the_profile_beside_a_job_is_its_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user, for whom it cannot be read, sees what one sees of a job without profile."""
    folder, secret = JobFolder(tmp_path), Cluster(name="x", environment={"TOKEN": "s3cret"})
    folder.cluster.write_text("name: old\n")
    folder.cluster.chmod(0o644)
    write_cluster(folder, secret)
    assert folder.cluster.stat().st_mode & 0o777 == 0o600
    assert cluster_of(folder) == secret

    def deny(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", deny)
    assert profile_text(folder) is None
    assert cluster_of(folder) is None
    assert prices_of(folder) is None


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
