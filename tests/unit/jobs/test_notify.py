"""A webhook is told by HTTP; one that cannot be is named, and nothing else happens."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.site import Notify
from megatron_jobs.jobs import notify
from megatron_jobs.jobs.cluster import Cluster, write_cluster
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.notify import mail_words, tell


class Hook(http.server.BaseHTTPRequestHandler):
    """Notes what it is sent; the path is the status that it answers with."""

    seen: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        if self.path == "/sleep":
            threading.Event().wait(1)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.headers["Content-Type"], json.loads(body)))
        self.send_response(int(self.path.strip("/")) if self.path[1:].isdecimal() else 200)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Be quiet."""


@pytest.fixture
def hook() -> Iterator[str]:
    """The URL of a server that listens."""
    Hook.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def job_of(tmp_path: Path, **words: Any) -> JobFolder:
    folder = JobFolder(tmp_path / "books" / "pretrain")
    folder.path.mkdir(parents=True)
    write_cluster(folder, Cluster(name="x", notify=Notify(**words)))
    return folder


def test_what_arrives(tmp_path: Path, hook: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    folder = job_of(tmp_path, webhook=f"{hook}/200")
    tell(folder, "fail", "stopped: a “planted” bug", reason="a bug", rank=3, node=None)
    kind, body = Hook.seen[0]
    assert kind == "application/json"
    assert body == {
        "text": "books: pretrain: stopped: a “planted” bug",
        "run": "books",
        "job": "pretrain",
        "event": "fail",
        "slurm_id": "17",
        "folder": str(folder.path),
        "reason": "a bug",
        "rank": 3,
        "node": None,
    }


def test_only_what_was_asked_for(tmp_path: Path, hook: str) -> None:
    folder = job_of(tmp_path, webhook=hook, on=("requeue", "end"))
    for event in ("fail", "requeue", "end"):
        tell(folder, event, event)  # type: ignore[arg-type]
    assert [body["event"] for _, body in Hook.seen] == ["requeue", "end"]


def test_of_tasks_only_failures_are_told(tmp_path: Path, hook: str) -> None:
    folder = job_of(tmp_path, webhook=hook).of_task(4)
    for event in ("end", "fail"):
        tell(folder, event, "words")  # type: ignore[arg-type]
    assert [body["event"] for _, body in Hook.seen] == ["fail"]
    assert Hook.seen[0][1]["text"] == "books: pretrain, task 4: words"


def test_without_a_webhook_or_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(job_of(tmp_path), "fail", "words")
    tell(JobFolder(tmp_path), "fail", "words")
    assert capsys.readouterr().out == ""


def test_one_that_cannot_be_told_is_named_without_its_secret(
    tmp_path: Path, hook: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "SECONDS", 0.2)
    said = {
        f"{hook}/500": "it answered 500 Internal Server Error",
        f"{hook}/sleep": "timed out",
        "http://127.0.0.1:9/secret": "[Errno 111] Connection refused",
        "http://127.0.0.1:port/secret": "nonnumeric port: 'port'",
    }
    for number, (url, fault) in enumerate(said.items()):
        tell(job_of(tmp_path / str(number), webhook=url), "fail", "words")
        words = capsys.readouterr().out
        assert words == f"notify.webhook: 127.0.0.1 was not told: {fault}\n"


def test_words_for_slurms_mails() -> None:
    assert mail_words(Notify(mail="me@x.org")) == {"mail-user": "me@x.org", "mail-type": "END,FAIL"}
    assert mail_words(Notify(mail="m", on=("requeue",)))["mail-type"] == "REQUEUE"
    assert mail_words(Notify()) == {}
    assert mail_words(Notify(mail="m", on=())) == {}
