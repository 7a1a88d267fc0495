"""Which log tells why a job failed."""

import os
from pathlib import Path

import pytest

from megatron_jobs.cli import main
from megatron_jobs.errors import UserError
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.logs import blame, find_guilty, job_logs, last_part
from megatron_jobs.jobs.status import failed_jobs, latest_job
from megatron_jobs.terminal.logs import follow_logs, show_failed
from tests.runs import add_event, add_starts, make_job


def write_logs(folder: JobFolder, *ranks: int) -> None:
    for rank in ranks:
        folder.log(rank).write_text(f"words of {rank}\n")


def test_the_verdict_comes_before_the_words_of_ranks(tmp_path: Path) -> None:
    folder = make_job(tmp_path, "job")
    write_logs(folder, 0, 1)
    folder.error(0).write_text("ValueError: what followed\n")
    assert find_guilty(folder).rank == 0
    add_event(folder, 0, "failed", rank=1, node="n7", cause="out of memory", decision="stop")
    assert blame(folder) == f"rank 1 on n7: out of memory; see {folder.log(1)}"
    add_event(folder, 9, "start", nodes=["n1"])
    assert find_guilty(folder).rank == 0


def test_logs_in_folders_below(tmp_path: Path) -> None:
    """As those of many nodes lie."""
    folder = make_job(tmp_path, "job")
    deep = folder.logs / "00"
    deep.mkdir()
    (deep / "rank-00012.log").write_text("of 12\n")
    (deep / "rank-00012.error").write_text("Traceback\nOSError: disk\n")
    assert job_logs(folder, 12) == [deep / "rank-00012.log"]
    assert blame(folder) == f"rank 12: OSError: disk; see {deep / 'rank-00012.log'}"


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {i} é\n" for i in range(100_000)))
    assert last_part(path, lines=2) == "line 99998 é\nline 99999 é"
    assert len(last_part(path, lines=10**9, most=1000)) <= 1000


def test_what_is_printed_of_those_that_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = make_job(tmp_path, "bad"), make_job(tmp_path, "good")
    for folder in (bad, good):
        write_logs(folder, 0, 1)
    with pytest.raises(UserError, match="nothing failed; see: mj status"):
        failed_jobs(tmp_path)
    with pytest.raises(UserError, match="no such job: 'bed'; did you mean bad"):
        failed_jobs(tmp_path, "bed")
    add_starts(bad, (0, None))
    bad.outcome.write_text('{"status": 1, "guilty": 1, "signal": ""}')
    bad.error(1).write_text("KeyError: 'x'\n")
    bad.postmortem.write_text("# why\n")
    show_failed(failed_jobs(tmp_path))
    printed = capsys.readouterr().out
    assert printed.startswith("==> bad, rank 1: KeyError: 'x'\n")
    assert "words of 1" in printed
    assert "words of 0" not in printed
    assert str(bad.postmortem) in printed


def test_the_job_that_wrote_last(tmp_path: Path) -> None:
    for name, second in (("a", 30), ("b", 50), ("c", 40)):
        folder = make_job(tmp_path, name)
        write_logs(folder, 0)
        os.utime(folder.log(0), (second, second))
    assert latest_job(tmp_path) == "b"


def test_the_job_that_wrote_last_also_on_many_nodes_and_in_tasks(tmp_path: Path) -> None:
    """Where its logs lie in folders below logs/, or below tasks/."""
    plain, wide, cut = (make_job(tmp_path, name) for name in ("a", "b", "c"))
    with pytest.raises(UserError, match="no log yet; no job has started"):
        latest_job(tmp_path)
    logs = [plain.log(0), wide.logs / "node-0070/rank-00560.log", cut.of_task(1003).log(0)]
    for second, log in enumerate(logs):
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("words\n")
        os.utime(log, (second + 1, second + 1))
    assert latest_job(tmp_path) == "c"
    os.utime(logs[1], (9, 9))
    assert latest_job(tmp_path) == "b"


@pytest.mark.parametrize(("ranks", "followed"), [(16, range(16)), (17, range(1))])
def test_of_many_ranks_the_first_is_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ranks: int, followed: range
) -> None:
    folder = make_job(tmp_path, "job")
    write_logs(folder, *range(ranks))
    (folder.logs / "batch.log").write_text("of the script\n")
    asked = iter([True, True, False])
    follow_logs(lambda: job_logs(folder), lambda: next(asked), ask_every=0)
    printed = capsys.readouterr()
    words = [f"words of {rank}" for rank in followed]
    assert [w for w in printed.out.splitlines() if "==>" not in w] == ["of the script", *words]
    few = "rank-00000.log: 16 ranks beside it are not followed; for another: --rank\n"
    assert printed.err == (few if ranks == 17 else "")


def test_words_that_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path)
    cure = "only one of them; it finds the rank itself, and prints what is there\n"
    for words in (["--rank", "1"], ["--task", "0"], ["--follow"]):
        assert main(["logs", run, "--failed", *words]) == 2
        assert capsys.readouterr().err == f"mj logs: --failed and {words[0]}: {cure}"
    assert main(["status", run, "--watch", "--json"]) == 2
    told = "--watch and --json: only one of them; for JSON ask again and again\n"
    assert capsys.readouterr().err == f"mj status: {told}"
