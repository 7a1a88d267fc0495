"""Whatever people type as a name or a text, it reaches the job as it is, and no shell reads it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.errors import ConfigError
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.plan import load_plan
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.jobs.submit import submit_plan
from megatron_jobs.runtime.files import wait_for

EVIL = "-rf * ~ 'q' \"d\" $(touch PWNED) `touch PWNED` ; touch PWNED"
EVIL += "\n&& touch PWNED | > < # ! ü 漢 {a,b}"
JOBS = ("--help", "$(touch PWNED)\n;`id`", "'é' \"漢\" & | > * ? #~", " a  b ")
TWO = {"nodes": 2, "hours": 0.2}
ONE = {"hours": 0.2}
Entries = dict[str, dict[str, Any]]


class Desk:
    """Where somebody works whose every name is hostile; commands go through `main`, as `mj`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.run = place / "my 'runs' $(touch PWNED)" / f"-r {EVIL}"
        self.home = place / "a home; touch PWNED"
        self.home.mkdir()
        self.plan = "--plan $(touch PWNED) 'x'.yaml"
        self.profile = place / 'pro"file; touch PWNED.yaml'
        profile = load_cluster("devcluster").model_dump(mode="json")
        profile["environment"] |= {"WORDS": EVIL, "EMPTY": ""}
        profile["setup"] = [
            'export SEEN="$WORDS" WHERE=$PWD # it\'s a remark; `touch PWNED` is not run',
            "export TWO='of\nthem'",
        ]
        self.write(self.profile, profile)

    def write(self, path: Path, content: Any) -> None:
        path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")

    def submit(self, jobs: Entries) -> dict[str, str]:
        """The Slurm ids of the jobs."""
        usual = {"stage": "tests.stages.tell", "resources": TWO}
        entries = {name: usual | entry for name, entry in jobs.items()}
        self.write(self.place / self.plan, {"jobs": entries})
        words = ["--cluster", str(self.profile), "--run", str(self.run), "--", self.plan]
        assert main(["submit", *words]) == 0
        return {name: self.folder(name).slurm_ids()[-1] for name in jobs}

    def folder(self, job: str) -> JobFolder:
        return JobFolder(self.run / job)

    def states(self) -> dict[str, str]:
        return {record["job"]: record["state"] for record in plan_status(self.run)}

    def await_states(self, wanted: dict[str, str]) -> None:
        try:
            wait_for(lambda: self.states() == wanted, "states", seconds=300, every=0.2)
        except Exception as error:
            raise AssertionError(f"{plan_status(self.run)}, wanted {wanted}") from error


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    desk = Desk(tmp_path)
    monkeypatch.setenv("HOME", str(desk.home))
    monkeypatch.chdir(tmp_path)
    return desk


def nothing_ran(desk: Desk) -> bool:
    """Whether no shell took a word of a name or a text for a command."""
    return not list(desk.place.rglob("PWNED")) and not Path(__file__).with_name("PWNED").exists()


def test_names_and_texts_reach_the_ranks_over_a_requeue(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third, fourth = JOBS
    variables = ["WORDS", "EMPTY", "SEEN", "WHERE", "TWO", "HOME"]
    ids = desk.submit(
        {
            first: {"text": EVIL, "variables": variables},
            second: {"text": EVIL, "seconds": 600},
            third: {"resources": ONE, "reads": f"@{first}/told", "text": f"{EVIL}\n"},
            fourth: {"resources": ONE, "after": [second, third], "text": EVIL[::-1]},
        }
    )
    log = desk.folder(second).log(1)
    wait_for(lambda: log.exists() and "tells" in log.read_text(), "the rank", seconds=240)
    subprocess.run(["scancel", "--signal=USR2", ids[second]], check=True)
    desk.await_states(dict.fromkeys(JOBS, "done"))

    folder = desk.folder(first).path
    wanted = {"text": EVIL, "WORDS": EVIL, "EMPTY": "", "SEEN": EVIL, "WHERE": str(folder)}
    wanted |= {"TWO": "of\nthem", "HOME": str(desk.home)}
    for rank in range(2):
        assert json.loads((folder / "told" / f"{rank}.json").read_text()) == wanted
    told = json.loads((desk.folder(fourth).path / "told" / "0.json").read_text())
    assert told == {"text": EVIL[::-1]}
    assert log.read_text().count(f"rank 1 tells {EVIL!r}") == 2
    receipt = read_receipt(desk.folder(second))
    assert receipt is not None
    assert (receipt["starts"], receipt["slurm_job_ids"]) == (2, [ids[second]])

    capsys.readouterr()
    assert main(["status", str(desk.run)]) == 0
    assert capsys.readouterr().out.count("done") >= len(JOBS)
    assert main(["logs", str(desk.run), "--rank", "1", "--", second]) == 0
    assert f"rank 1 tells {EVIL!r}" in capsys.readouterr().out.replace("\n", "")
    shown = ["squeue", "--noheader", "--states=all", f"--jobs={','.join(ids.values())}", "-o%j"]
    labels = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    assert len(labels.splitlines()) == len(JOBS)
    assert not set(labels) & set(" $`;'\"*#&|<>ü漢é")
    assert nothing_ran(desk)


def test_failing_cancelled_and_submitted_again(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, long, later, _ = JOBS
    jobs: Entries = {bad: {"bad": True, "text": EVIL}, long: {"resources": ONE, "seconds": 600}}
    last: Entries = {later: {"resources": ONE, "after": [bad]}}
    ids = desk.submit(jobs | last)
    wait_for(lambda: desk.states()[bad] == "failed", "the failure", seconds=240, every=0.2)
    desk.await_states({bad: "failed", long: "running", later: "cancelled"})
    capsys.readouterr()
    assert main(["cancel", str(desk.run), "--", long]) == 0
    assert ids[long] in capsys.readouterr().out
    desk.await_states({bad: "failed", long: "cancelled", later: "cancelled"})
    assert EVIL.splitlines()[0] in desk.folder(bad).postmortem.read_text()
    assert main(["logs", str(desk.run), "--failed"]) == 0
    assert "touch PWNED | > < # !" in capsys.readouterr().out

    jobs[bad] = {"text": "good"}
    jobs[long] = {"resources": ONE, "text": EVIL}
    again = desk.submit(jobs | last)
    desk.await_states(dict.fromkeys([bad, long, later], "done"))
    assert not set(again.values()) & set(ids.values())
    assert nothing_ran(desk)


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        ("%", "Slurm reads % in a folder's name as a pattern; choose another name"),
        ("\\", "Slurm reads \\ in a folder's name as a pattern; choose another name"),
        (":", "PYTHONPATH, which names the copy of the code, is cut at a :; choose another name"),
    ],
)
def test_names_that_cannot_work_are_refused_with_the_reason(
    tmp_path: Path, sign: str, words: str
) -> None:
    path = tmp_path / "plan.yaml"
    name = f"a{sign}b"
    for job, run in ((name, "run"), ("job", name)):
        path.write_text(yaml.safe_dump({"jobs": {job: {"stage": "tests.stages.tell"}}}))
        plan = load_plan(str(path), [], tmp_path / run)
        with pytest.raises(ConfigError) as caught:
            submit_plan(plan, load_cluster("devcluster"), dry_run=False)
        assert caught.value.problems == [(job, f"{plan.run / job}: {words}")]
        assert not plan.run.exists()


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/", "nul\0", "x" * 300, "é" * 150]
)
def test_names_that_are_no_folders_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"jobs": {name: {"stage": "tests.stages.tell"}}}))
    with pytest.raises(ConfigError) as caught:
        load_plan(str(path), [], tmp_path / "run")
    ((where, sentence),) = caught.value.problems
    assert where == repr(name)
    assert sentence.startswith("a job's name is a folder's: ")
