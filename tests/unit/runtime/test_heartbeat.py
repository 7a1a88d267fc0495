"""A rank's record: what is written is read, whole and in microseconds, from another process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.heartbeat import (
    Beat,
    beat,
    beat_file,
    birth_of,
    node_folder,
    open_heartbeat,
    pulse,
    read_beats,
    record_collectives,
    remove_leftovers,
    rest,
    stack_file,
    starts_on_node,
)
from megatron_jobs.runtime.rank import Rank

LOOP = """
import sys, time
from pathlib import Path
from megatron_jobs.runtime.heartbeat import beat, open_heartbeat
from megatron_jobs.runtime.rank import Rank

def innermost():
    time.sleep(60)

with open_heartbeat(Rank(index=7), Path(sys.argv[1])):
    beat(3, "data")
    innermost()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = signal.getsignal(signal.SIGUSR1)
    yield tmp_path / "node"
    signal.signal(signal.SIGUSR1, before)


def test_what_is_written_is_read(folder: Path) -> None:
    with open_heartbeat(Rank(index=5), folder) as place:
        (first,) = read_beats(place)
        assert first == Beat(5, os.getpid(), birth_of(os.getpid()), time=first.time)
        began = time.time()
        beat(12, "forward and backward", own_seconds=2.0)
        (second,) = read_beats(place)
        assert (second.step, second.what, second.own_seconds) == (12, "forward and backward", 2.0)
        assert second.watched
        assert began <= second.time <= time.time()
        pulse("optimizer")
        pulse()
        (third,) = read_beats(place)
        assert (third.step, third.what, third.own_seconds) == (12, "optimizer", 2.0)
        rest("end")
        assert not read_beats(place)[0].watched
        assert second.lives()
    assert not folder.exists()
    assert read_beats(folder) == []


def test_own_seconds_are_a_mean_that_follows(folder: Path) -> None:
    """By the definition: 0.2 of the newest, 0.8 of what was; the first counts whole."""
    with open_heartbeat(Rank(), folder):
        expected = 1.0
        for step, seconds in enumerate((1.0, 3.0, 3.0, 0.5)):
            beat(step, "log", own_seconds=seconds)
            expected = 0.2 * seconds + 0.8 * expected
        assert read_beats(folder)[0].own_seconds == pytest.approx(expected)
        beat(9, "data")
        assert read_beats(folder)[0].own_seconds == pytest.approx(expected)


def test_a_rank_that_never_beats_is_not_watched(folder: Path) -> None:
    with open_heartbeat(Rank(), folder):
        pulse("data")
        (found,) = read_beats(folder)
        assert (found.watched, found.what) == (False, "")


def test_without_an_open_heartbeat_nothing_happens(tmp_path: Path) -> None:
    beat(1, "data", own_seconds=1.0)
    pulse("data")
    rest("end")
    assert not list(tmp_path.iterdir())


def test_a_sign_of_life_costs_microseconds(folder: Path) -> None:
    with open_heartbeat(Rank(), folder):
        seconds = []
        for _ in range(20):
            began = time.perf_counter()
            for step in range(100):
                beat(step, "data", own_seconds=1.0)
            seconds.append((time.perf_counter() - began) / 100)
    assert min(seconds) < 50e-6


def test_a_torn_or_foreign_record_is_none(folder: Path) -> None:
    with open_heartbeat(Rank(), folder):
        beat(1, "data")
        file = beat_file(folder, 0)
        whole = file.read_bytes()
        for place in range(len(whole)):
            torn = bytearray(whole)
            torn[place] ^= 1
            file.write_bytes(torn)
            assert read_beats(folder) == []
        for size in range(len(whole)):
            file.write_bytes(whole[:size])
            assert read_beats(folder) == []
        file.write_bytes(whole)
        assert read_beats(folder)[0].step == 1


def test_a_place_that_cannot_be_written_is_said_and_does_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with open_heartbeat(Rank(), tmp_path / "file" / "node"):
        beat(1, "data")
    assert capsys.readouterr().out.startswith("no heartbeat: [Errno 20] Not a directory")


def test_a_sleeping_process_shows_its_stack_and_a_dead_one_is_dead(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)])
    try:
        wait_for(lambda: any(found.watched for found in read_beats(tmp_path)), "beat", seconds=20)
        (found,) = read_beats(tmp_path)
        assert (found.rank, found.pid, found.step) == (7, process.pid, 3)
        file = stack_file(tmp_path, 7)
        for times in (1, 2):
            os.kill(process.pid, signal.SIGUSR1)
            wait_for(lambda n=times: file.read_text().count("in innermost") == n, "it", seconds=5)
        assert process.poll() is None
        assert found.lives()
    finally:
        process.kill()
        process.wait()
    assert not found.lives()


def test_a_late_signal_after_the_end_does_no_harm(folder: Path) -> None:
    with open_heartbeat(Rank(), folder):
        pass
    os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN


def test_names_keep_jobs_starts_and_nodes_apart(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "job")
    scratch = str(tmp_path)
    jobs, starts, hosts = ("job", "other"), ("12.0", "12.1"), ("node1", "node2")
    names = {
        node_folder(tmp_path / job, start=start, host=host, scratch=scratch)
        for job in jobs
        for start in starts
        for host in hosts
    }
    assert len(names) == 8
    through = node_folder(tmp_path / "link", start="12.0", host="node1", scratch=scratch)
    assert through in names
    assert through.parent == tmp_path
    for name in names:
        name.mkdir()
    ours = starts_on_node(tmp_path / "job", host="node1", scratch=scratch)
    assert [place.name.split("-", 3)[3] for place in ours] == ["12.0-node1", "12.1-node1"]


def test_a_scratch_that_is_not_there_is_left_aside(tmp_path: Path) -> None:
    found = node_folder(tmp_path, start="1.0", host="n", scratch=str(tmp_path / "absent"))
    assert found.parent in (Path("/dev/shm"), Path("/tmp"))


def test_only_old_leftovers_of_the_dead_are_removed(folder: Path, tmp_path: Path) -> None:
    def made(name: str, *, old: bool) -> Path:
        place = node_folder(tmp_path / name, start="1.0", host="n", scratch=str(tmp_path))
        place.mkdir()
        if old:
            os.utime(place, (0, 0))
        return place

    dead, young = made("dead", old=True), made("young", old=False)
    alive = node_folder(tmp_path / "alive", start="1.0", host="n", scratch=str(tmp_path))
    with open_heartbeat(Rank(), alive):
        os.utime(beat_file(alive, 0), (0, 0))
        os.utime(alive, (0, 0))
        remove_leftovers(host="n", scratch=str(tmp_path))
        assert (dead.exists(), young.exists(), alive.exists()) == (False, True, True)


def test_nccl_is_told_where_and_what_a_user_set_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("TRACE_BUFFER_SIZE", "DEBUG_INFO_TEMP_FILE", "DEBUG_INFO_PIPE_FILE")
    for name in names:
        monkeypatch.delenv(f"TORCH_NCCL_{name}", raising=False)
    monkeypatch.setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "7")
    record_collectives(tmp_path)
    found = [os.environ.pop(f"TORCH_NCCL_{name}") for name in names]
    assert found == ["7", f"{tmp_path}/nccl-", f"{tmp_path}/nccl-"]
