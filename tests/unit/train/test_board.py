"""What a run writes down, and what a resume takes back."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_jobs.runtime.journal import read_journal
from megatron_jobs.runtime.progress import read_progress
from megatron_jobs.runtime.rank import ALONE, Rank
from megatron_jobs.train.board import Board, open_board


def losses(folder: Path, kind: str = "train") -> list[tuple[int, float]]:
    records = read_journal(folder / "metrics.jsonl")
    return [(r["step"], r["loss"]) for r in records if r["kind"] == kind]


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_lost_steps_are_taken_back_and_written_anew(tmp_path: Path) -> None:
    with open_board(ALONE, tmp_path, start=0, steps=9) as board:
        for step in range(1, 6):
            board.record(step, "train", {"loss": float(step)})
        board.record(3, "validation", {"loss": 0.5})
        board.record(4, "validation", {"loss": 0.25})
    with open_board(ALONE, tmp_path, start=3, steps=9) as board:
        for step in range(4, 8):
            board.record(step, "train", {"loss": step / 2})
    wanted = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 2.0), (5, 2.5), (6, 3.0), (7, 3.5)]
    assert losses(tmp_path) == wanted
    assert curve(tmp_path, "train/loss") == wanted
    assert losses(tmp_path, "validation") == [(3, 0.5)]
    assert curve(tmp_path, "validation/loss") == [(3, 0.5)]


def test_what_is_synced_is_there_without_closing(tmp_path: Path) -> None:
    board = Board(tmp_path, start=0, steps=9)
    board.record(1, "train", {"loss": 1.0})
    board.sync()
    assert losses(tmp_path) == curve(tmp_path, "train/loss") == [(1, 1.0)]
    board.close()


def test_progress_begins_where_the_run_goes_on(tmp_path: Path) -> None:
    board = Board(tmp_path, start=3, steps=9)
    shown = read_progress(tmp_path)
    assert shown is not None
    assert (shown["done"], shown["total"], shown["unit"]) == (3, 9, "steps")
    board.show(9, loss=1.5)
    last = read_progress(tmp_path)
    assert last is not None
    assert (last["done"], last["numbers"]) == (9, {"loss": 1.5})
    board.close()


def test_a_rank_that_does_not_lead_writes_nothing(tmp_path: Path) -> None:
    with open_board(Rank(index=1, world=2), tmp_path, start=0, steps=9) as board:
        board.record(1, "train", {"loss": 1.0})
        board.show(1, loss=1.0)
        board.sync()
    assert list(tmp_path.iterdir()) == []
