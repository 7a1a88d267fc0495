"""The probe outlasts a Slurm that is silent for a while, and leaves nothing behind."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.jobs import probe
from megatron_jobs.jobs.probe import run_probe

Answer = tuple[int, str, str]
"""Exit status, output, words on stderr."""
FAULT: Answer = (1, "", "slurm_load_jobs error: Socket timed out on send/recv operation")
FORGOTTEN: Answer = (1, "", "slurm_load_jobs error: Invalid job id specified")
RUNNING: Answer = (0, "RUNNING None", "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a folder to start from; time passes when somebody sleeps."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    now = [0.0]
    monkeypatch.setattr(probe.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(probe.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    return tmp_path / "home"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[Answer]], list[list[str]]]:
    """Let squeue answer so; what it gives back lists every call."""

    def answering(answers: Iterator[Answer]) -> list[list[str]]:
        made: list[list[str]] = []

        def call(command: list[str]) -> subprocess.CompletedProcess[str]:
            made.append(command)
            status, out, words = next(answers) if command[0] == "squeue" else (0, "7\n", "")
            return subprocess.CompletedProcess(command, status, out, words)

        monkeypatch.setattr(probe, "call_slurm", call)
        return made

    return answering


Calls = Callable[[Iterator[Answer]], list[list[str]]]


def test_a_passing_fault_of_squeue_is_no_end(home: Path, calls: Calls) -> None:
    """The job still waits while squeue fails; its words are there half a second after its end."""
    news: list[str] = []

    def answers() -> Iterator[Answer]:
        yield from [(0, "PENDING Priority", ""), FAULT, FAULT, RUNNING]
        (folder,) = Path().glob(".mj-discover-*")
        (token,) = home.glob(".mj-discover-*")
        assert made[0][-1] == token.name
        (folder / "batch.log").write_text("started\t5.0\nhost\tn1\n")
        yield FORGOTTEN

    made = calls(answers())
    assert run_probe([], news.append).value("host") == "n1"
    assert [command[0] for command in made] == ["sbatch", *["squeue"] * 5]
    assert news[1:] == ["pending (Priority)", "running"]
    assert list(home.iterdir()) == list(Path().iterdir()) == []


def test_words_that_a_file_system_shows_late(
    home: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls(iter([(0, "", "")]))
    reads = iter([[], [], [("started", "5.0"), ("host", "n1")]])
    monkeypatch.setattr(probe, "_lines", lambda path: next(reads, [("started", "5.0")]))
    assert run_probe([], print).value("started") == "5.0"
    assert list(home.iterdir()) == []


def test_a_slurm_that_stays_silent(home: Path, calls: Calls) -> None:
    made = calls(iter([RUNNING, *[FAULT] * 200]))
    with pytest.raises(UserError) as caught:
        run_probe([], print)
    assert str(caught.value) == (
        "the probe is cancelled: squeue fails for 2 minutes: slurm_load_jobs error: Socket timed "
        "out on send/recv operation"
    )
    assert made[-1] == ["scancel", "7"]
    assert len(made) == 124
    assert list(home.iterdir()) == list(Path().iterdir()) == []


def test_a_probe_that_left_nothing_is_cancelled(home: Path, calls: Calls) -> None:
    made = calls(iter([RUNNING, (0, "", "")]))
    with pytest.raises(UserError, match="the probe left nothing there"):
        run_probe([], print)
    assert made[-1] == ["scancel", "7"]
    assert list(home.iterdir()) == []


def test_a_probe_that_waits_too_long(home: Path, calls: Calls) -> None:
    made = calls(iter([(0, "PENDING Priority", "")] * 700))
    with pytest.raises(UserError) as caught:
        run_probe([], print)
    assert str(caught.value) == (
        "the probe did not start within 10 minutes (Priority); it is cancelled"
    )
    assert made[-1] == ["scancel", "7"]
    assert list(home.iterdir()) == []


def test_a_home_that_cannot_be_written_to(
    home: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home / "nowhere"))
    made = calls(iter([(0, "", "")]))
    with pytest.raises(UserError, match="the probe left nothing there"):
        run_probe([], print)
    assert made[0][-1] == ""
