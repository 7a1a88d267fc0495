"""A save gives signs of life between its phases: it is long, and no stall."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.checkpoint import save
from megatron_jobs.runtime.heartbeat import beat, open_heartbeat, read_beats
from megatron_jobs.runtime.rank import Rank


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = signal.getsignal(signal.SIGUSR1)
    yield tmp_path / "beats"
    signal.signal(signal.SIGUSR1, before)


def test_each_phase_begins_and_ends_with_a_sign_of_life(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []

    def look() -> None:
        times.append(read_beats(folder)[0].time)

    def gather(value: Any) -> list[Any]:
        look()
        return [value]

    def work() -> None:
        look()
        time.sleep(0.05)

    monkeypatch.setattr(save.dist, "get_rank", lambda: 0)
    monkeypatch.setattr(save, "gather", gather)
    with open_heartbeat(Rank(), folder):
        beat(7, "save")
        look()
        time.sleep(0.05)
        save.agree(folder, work)
        assert read_beats(folder)[0].what == "save"
    began, in_work, in_wait = times
    assert in_work - began > 0.04
    assert in_wait - in_work > 0.04
