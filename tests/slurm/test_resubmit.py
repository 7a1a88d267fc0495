"""A plan whose third job fails: nothing after it starts; once cured only what is missing runs."""

import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from megatron_jobs.cli import main
from megatron_jobs.jobs.cluster import load_cluster
from megatron_jobs.jobs.events import read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import read_json, wait_for

NAMES = ("one", "two", "three", "four", "five")


class Hook(http.server.BaseHTTPRequestHandler):
    """Notes what it is told."""

    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Be quiet."""


@pytest.fixture
def hook() -> Iterator[str]:
    Hook.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def write_plan(path: Path, **changes: dict[str, Any]) -> None:
    """Five jobs in a row, each on two nodes."""
    jobs: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        jobs[name] = {"stage": "tests.stages.echo", "resources": {"nodes": 2, "hours": 0.2}}
        jobs[name] |= {"after": list(jobs)[-2:-1]} | changes.get(name, {})
    path.write_text(yaml.safe_dump({"jobs": jobs}))


def write_profile(path: Path, hook: str) -> None:
    """The devcluster's, with people to be told."""
    values = load_cluster("devcluster").model_dump(mode="json", exclude_defaults=True)
    told = {"webhook": hook, "mail": "me@example.org"}
    values |= {"notify": told, "preflight": {"nodes": False, "links": False}}
    path.write_text(yaml.safe_dump(values))


def states(run: Path) -> list[str]:
    return [record["state"] for record in plan_status(run)]


def over(run: Path) -> bool:
    return not {"waiting", "running"} & set(states(run))


@pytest.mark.usefixtures("calm_nodes")
def test_a_plan_whose_third_job_fails(
    tmp_path: Path, hook: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, profile, run = (tmp_path / name for name in ("plan.yaml", "site.yaml", "run"))
    hold = tmp_path / "hold"
    hold.touch()
    write_plan(plan, one={"hold": str(hold)}, three={"trouble": "bug", "guilty": 1})
    write_profile(profile, hook)
    assert main(["submit", str(plan), "--run", str(run), "--cluster", str(profile)]) == 0
    assert main(["resubmit", str(run)]) == 2
    assert "still at work: one (" in capsys.readouterr().err
    hold.unlink()
    wait_for(lambda: over(run), "the failure", seconds=240, every=0.3)

    assert states(run) == ["done", "done", "failed", "cancelled", "cancelled"], plan_status(run)
    queue = ["squeue", "--noheader"]  # tells of what cleans up as well
    wait_for(lambda: not subprocess.check_output(queue), "an empty queue", seconds=60, every=0.2)
    for name in NAMES[3:]:
        assert [event["event"] for event in read_events(JobFolder(run / name))] == ["submit"]
    check_postmortem(run)
    assert main(["status", str(run)]) == 0
    assert "rank 1 on node2: ZeroDivisionError" in " ".join(capsys.readouterr().out.split())
    told = [(news["job"], news["event"]) for news in Hook.seen]
    assert told == [("one", "end"), ("two", "end"), ("three", "fail")]
    assert "a planted bug" in Hook.seen[2]["reason"]
    first = {name: (read_receipt(JobFolder(run / name)) or {}).get("ended") for name in NAMES[:2]}

    write_plan(plan, one={"hold": str(hold)})
    assert main(["resubmit", str(run), "five.text=again"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["one: done before", "two: done before"]
    assert len(printed) == 5
    wait_for(lambda: over(run), "the end", seconds=240, every=0.3)
    assert states(run) == ["done"] * 5, plan_status(run)
    assert first == {n: (read_receipt(JobFolder(run / n)) or {})["ended"] for n in NAMES[:2]}
    assert (run / "five/words/0.txt").read_text() == "again\n"
    assert read_json(run / "submit.json")["words"] == ["five.text=again"]
    assert main(["resubmit", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: done before" for name in NAMES]
    check_mails(run)


def check_postmortem(run: Path) -> None:
    postmortem = (run / "three/postmortem.md").read_text()
    assert "- **cause**: ZeroDivisionError: a planted bug (" in postmortem
    assert "- **where**: rank 1 on node2\n" in postmortem
    assert f"mend the code or its settings; then `mj resubmit {run}`" in postmortem


def check_mails(run: Path) -> None:
    """Slurm's own: one for each job that ended, and for the one that failed."""
    log = Path(os.environ["SLURM_CONF"]).parents[1] / "log/mail.log"
    ids = {name: JobFolder(run / name).slurm_ids() for name in NAMES}
    wait_for(lambda: len(log.read_text().splitlines()) >= 6, "the mails", seconds=60)
    mails = log.read_text()
    assert f"Job_id={ids['one'][0]} Name=run.one Ended" in mails
    assert f"Job_id={ids['three'][0]} Name=run.three Failed" in mails
    assert mails.count("me@example.org") == len(mails.splitlines())


def test_what_waits_in_vain_does_not_stand_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm drops what can never start, but only when it looks next; here it never does."""
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    keeps = 'exec "$real" "${@/--kill-on-invalid-dep=yes/--kill-on-invalid-dep=no}"'
    sbatch.write_text(f"#!/bin/bash\nreal={shutil.which('sbatch')}\n{keeps}\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    plan, profile, run = (tmp_path / name for name in ("plan.yaml", "site.yaml", "run"))
    write_profile(profile, "http://127.0.0.1:9/")
    row = {"one": {"trouble": "bug"}, "two": {"after": ["one"]}, "three": {"after": ["two"]}}
    jobs = {name: {"stage": "tests.stages.echo", **more} for name, more in row.items()}
    plan.write_text(yaml.safe_dump({"jobs": jobs}))
    assert main(["submit", str(plan), "--run", str(run), "--cluster", str(profile)]) == 0
    wanted = ["failed", "waiting", "waiting"]
    wait_for(lambda: states(run) == wanted, "the failure", seconds=120, every=0.1)
    old = [JobFolder(run / name).slurm_ids()[-1] for name in jobs]

    assert main(["resubmit", str(run), "one.trouble=''"]) == 0, capsys.readouterr().err
    wait_for(lambda: states(run) == ["done"] * 3, "the end", seconds=120, every=0.3)
    asked = ["sacct", "-nPXo", "state", "-j", ",".join(old)]
    ended = subprocess.check_output(asked, text=True).splitlines()
    assert [line.split()[0] for line in ended] == ["FAILED", "CANCELLED", "CANCELLED"]
