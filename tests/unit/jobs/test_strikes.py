"""The strike list: shared, expiring, and never broken by a line that is none."""

import json
import multiprocessing
import os
import stat
import time
from pathlib import Path

import pytest

from megatron_jobs.cli import main
from megatron_jobs.errors import UserError
from megatron_jobs.jobs import strikes
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.strikes import forget, in_words, nodes_to_leave_out, strike, struck

FOLDER = JobFolder(Path("/runs/a/job"))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(name="here", strikes=str(tmp_path / "team" / "strikes.jsonl"), strike_days=2)


def test_a_node_is_struck_until_its_time_is_over(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert struck(cluster) == {}
    strike(cluster, "n2", "hot", FOLDER)
    strike(cluster, "n1", "silent", FOLDER)
    strike(cluster, "n2", 'hot\n"again"', FOLDER)
    assert struck(cluster) == {"n1": "silent", "n2": 'hot\n"again"'}
    assert struck(cluster.model_copy(update={"name": "another"})) == {}
    later = time.time() + 2 * 86400 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert struck(cluster) == {}


def test_a_list_is_the_groups(cluster: Cluster) -> None:
    path = Path(cluster.strikes)
    path.parent.mkdir()
    os.chown(path.parent, -1, os.getgroups()[0] if os.getgroups() else os.getgid())
    before = os.umask(0o077)
    try:
        strike(cluster, "n1", "hot", FOLDER)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert path.stat().st_gid == path.parent.stat().st_gid


def test_a_line_that_is_no_strike_is_named_and_stays(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(cluster.strikes)
    path.parent.mkdir()
    path.write_text('{"node": "n0", "cau')  # a disk was full
    strike(cluster, "n1", "hot", FOLDER)
    with path.open("a") as file:
        file.write('[]\n\n{"time": "now", "cluster": "here", "node": "n3", "cause": ""}\n')
    strike(cluster, "n4", "cold", FOLDER)
    assert struck(cluster) == {"n1": "hot", "n4": "cold"}
    words = capsys.readouterr().err.splitlines()
    assert words[0] == f'{path}:1: is no strike, skipped: {{"node": "n0", "cau'
    assert [line.split(":")[1] for line in words] == ["1", "3", "5"]
    assert path.read_text().startswith('{"node": "n0", "cau\n')


def test_strikes_of_many_at_once_are_all_there(cluster: Cluster) -> None:
    def add(first: int) -> None:
        for number in range(first, first + 25):
            strike(cluster, f"n{number}", "x" * 5000, FOLDER)

    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add, args=(first,)) for first in (0, 25, 50, 75)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert set(struck(cluster)) == {f"n{number}" for number in range(100)}


def test_a_node_is_forgotten_until_it_fails_again(cluster: Cluster) -> None:
    strike(cluster, "n1", "hot", FOLDER)
    forget(cluster, "n1")
    assert struck(cluster) == {}
    with pytest.raises(UserError, match=r"^n1: is not on the strike list of here; on it: none$"):
        forget(cluster, "n1")
    strike(cluster, "n1", "hot again", FOLDER)
    assert struck(cluster) == {"n1": "hot again"}


def test_without_a_list_nothing_is_noted_or_left_out() -> None:
    without = Cluster(name="here")
    strike(without, "n1", "hot", FOLDER)
    assert struck(without) == {}
    assert in_words(without) == ["here: the profile names no strike list (`strikes: FILE`)"]


def test_a_list_that_cannot_be_written_to_stops_no_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = Cluster(name="here", strikes=str(tmp_path))
    strike(lost, "n1", "hot", FOLDER)
    assert capsys.readouterr().err == f"{tmp_path}: n1 is not noted: Is a directory\n"
    assert struck(lost) == {}
    assert "no node is left out: Is a directory" in capsys.readouterr().err


def test_slurm_is_only_told_to_leave_out_what_it_has(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sinfo = tmp_path / "sinfo"
    sinfo.write_text(
        "#!/bin/sh\n[ \"$*\" = '--all --noheader --Node --format=%N' ] && printf 'n1\\nn2\\n'"
    )
    sinfo.chmod(0o755)
    strike(cluster, "n1", "hot", FOLDER)
    strike(cluster, "gone", "hot", FOLDER)
    monkeypatch.setenv("PATH", "")
    assert set(nodes_to_leave_out(cluster)) == {"n1", "gone"}
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert set(nodes_to_leave_out(cluster)) == {"n1"}


def test_people_see_and_mend_it(
    cluster: Cluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "here.yaml"
    profile.write_text(f"name: here\nstrikes: {json.dumps(cluster.strikes)}\nstrike_days: 2\n")
    strike(cluster, "n1", "hot", FOLDER)
    assert main(["cluster", "strikes", str(profile)]) == 0
    until = time.strftime("%Y-%m-%d", time.localtime(time.time() + 2 * 86400))
    shown = capsys.readouterr().out
    assert shown.startswith(f"n1  until {until}")
    assert shown.endswith(f"  hot  ({strikes.user_name()}, /runs/a/job)\n")
    assert main(["cluster", "strikes", str(profile), "--forget", "n1"]) == 0
    assert capsys.readouterr().out == f"here: no node is on the strike list {cluster.strikes}\n"
    assert main(["cluster", "strikes", str(profile), "--forget", "n1"]) == 2
