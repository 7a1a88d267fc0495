"""A run remembers how it was submitted, and can be made again of its own folders."""

import dataclasses
import getpass
import os
from pathlib import Path

import pytest

from megatron_jobs.cli import main
from megatron_jobs.errors import ConfigError, UserError
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.folder import JobFolder, write_job
from megatron_jobs.jobs.plan import load_plan, load_run
from megatron_jobs.jobs.resubmit import call_of, remember, resubmit_run, waiting_in_vain
from megatron_jobs.jobs.strikes import strike, strikes_now
from megatron_jobs.runtime.files import read_json

PLAN = """
jobs:
  second: {stage: tests.stages.echo, reads: "@first/words", text: "@@home", count: 2}
  first: {stage: tests.stages.echo, resources: {nodes: 2, hours: 0.5}}
  third: {stage: tests.stages.echo, after: [second]}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path / "run"


def planned(run: Path, *words: str) -> dict[str, object]:
    """The jobs as text, as they stand in their folders after a submission."""
    plan = load_plan(str(run.parent / "plan.yaml"), list(words), run)
    for job in plan.jobs.values():
        write_job(job.folder, job.description())
    return {name: job.description() for name, job in plan.jobs.items()}


def test_a_plan_made_of_the_jobs_own_folders_is_the_plan(run: Path) -> None:
    jobs = planned(run, "first.count=7")
    found = load_run(run, [])
    assert {name: job.description() for name, job in found.jobs.items()} == jobs
    assert list(found.jobs) == ["first", "second", "third"]
    assert found.jobs["second"].config.text == "@home"  # type: ignore[attr-defined]
    assert load_run(run, ["second.count=3"]).jobs["second"].config.count == 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="no such setting: 'cuont'"):
        load_run(run, ["second.cuont=3"])
    with pytest.raises(UserError, match="no run folder"):
        load_run(run.parent, [])


def test_what_is_remembered(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    monkeypatch.setenv("LOGNAME", "me")
    (run.parent / "site.yaml").write_text("name: site\n")
    call = call_of("plan.yaml", ["first.count=7"], "site.yaml")
    remember(run, call)
    record = read_json(run / "submit.json")
    assert record.pop("time") > 0
    assert record == {
        "plan": str(run.parent / "plan.yaml"),
        "shown": "plan.yaml",
        "words": ["first.count=7"],
        "cluster": str(run.parent / "site.yaml"),
        "folder": str(run.parent),
        "user": "me",
    }
    assert call_of("plans/quickstart.yaml", [], "devcluster").cluster == "devcluster"
    assert Path(call_of("plans/quickstart.yaml", [], "devcluster").plan).exists()


def test_a_user_without_a_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose passwd lacks the user: the jobs are submitted by then."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    planned(run)
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert call_of(str(run.parent / "plan.yaml"), [], "devcluster").user == "4711"
    cluster = Cluster(name="here", strikes=str(run.parent / "strikes.jsonl"))
    strike(cluster, "n1", "hot", JobFolder(run / "first"))
    assert strikes_now(cluster)["n1"]["user"] == "4711"


def test_a_dry_run_takes_the_plan_as_it_is_now_and_all_words(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plan was edited, words were added; nothing is written, the switch stays."""
    planned(run)
    monkeypatch.chdir(run.parent)
    remember(run, call_of("plan.yaml", ["first.resources.cpus=3"], "devcluster"))
    before = (run / "submit.json").read_bytes()
    (run.parent / "plan.yaml").write_text(PLAN.replace("hours: 0.5", "hours: 0.25"))
    (run / "first/KILL").touch()
    monkeypatch.chdir("/")
    ids = resubmit_run(run, ["second.resources.cpus=5"], cluster="", dry_run=True)
    assert [name for name, _ in ids] == ["first", "second", "third"]
    printed = capsys.readouterr().out
    assert "#SBATCH --time=15" in printed
    assert printed.count("#SBATCH --cpus-per-task=3") == 1
    assert printed.count("#SBATCH --cpus-per-task=5") == 1
    assert "#SBATCH --account=dev" in printed
    assert (run / "submit.json").read_bytes() == before
    assert (run / "first/KILL").exists()


def test_without_the_plan(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(run, "first.resources.cpus=3")
    monkeypatch.chdir(run.parent)
    call = call_of("plan.yaml", ["first.resources.cpus=9"], "devcluster")
    remember(run, dataclasses.replace(call, plan="/gone/plan.yaml"))
    resubmit_run(run, [], cluster="", dry_run=True)
    said = capsys.readouterr()
    assert said.out.count("#SBATCH --cpus-per-task=3") == 1
    assert said.err.startswith("/gone/plan.yaml is gone: the plan is made of the jobs' own config")


def test_what_can_never_start() -> None:
    """What gathers the tasks of a job that failed, and all that comes after it."""

    def record(job: str, state: str, *after: str) -> dict[str, object]:
        return {"job": job, "state": state, "after": list(after)}

    records = [
        record("tasks", "failed"),
        record("good", "done"),
        record("next", "waiting", "good", "tasks"),
        record("last", "waiting", "next"),
        record("other", "waiting", "good"),
        record("busy", "running", "tasks"),  # it began before they ran again
    ]
    assert waiting_in_vain(records) == {"tasks", "next", "last"}


def test_without_a_profile(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(run)
    assert main(["resubmit", str(run), "--dry-run"]) == 2
    assert "--cluster: not given" in capsys.readouterr().err


def test_switches_by_hand(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(run)
    assert main(["stop", str(run), "first"]) == 0
    assert (run / "first/KILL").exists()
    said = capsys.readouterr().out
    assert said.endswith("\nnor will those begin that wait for it: second, third\n")
    assert main(["stop", str(run), "second"]) == 0
    assert capsys.readouterr().out.endswith("that wait for it: third\n")
    (run / "second/KILL").unlink()
    assert main(["save", str(run), "first"]) == 2
    said = capsys.readouterr().err
    assert said == "mj save: first: its stage, tests.stages.echo, does not save before its end\n"
    assert main(["stop", str(run), "frist"]) == 2
    assert "no such job: 'frist'; did you mean first?" in capsys.readouterr().err
    config = (run / "first/config.yaml").read_text().replace("tests.stages.echo", "pretrain")
    (run / "first/config.yaml").write_text(config)
    assert main(["save", str(run), "first"]) == 2
    assert "first: neither waits nor runs" in capsys.readouterr().err
    assert not (run / "first/SAVE").exists()
