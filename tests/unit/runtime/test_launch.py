import os
import signal
import time
from pathlib import Path

from megatron_jobs.errors import EXIT_BUG, EXIT_STOPPED, EXIT_USER, Stopped, UserError
from megatron_jobs.runtime.launch import Outcome, fork_ranks
from megatron_jobs.runtime.rank import Rank


def launch(work: object, world: int, folder: Path) -> Outcome:
    return fork_ranks(
        work,  # type: ignore[arg-type]
        world,
        error_file=lambda i: folder / f"{i}.error",
        output_file=lambda i: folder / f"{i}.log",
    )


def test_every_rank_runs_and_logs_by_itself(tmp_path: Path) -> None:
    outcome = launch(lambda rank: print(f"i am {rank.index} of {rank.world}"), 3, tmp_path)
    assert outcome == Outcome(0)
    assert [(tmp_path / f"{i}.log").read_text() for i in range(3)] == [
        f"i am {i} of 3\n" for i in range(3)
    ]


def test_the_first_to_fail_is_named_and_takes_the_others_down(tmp_path: Path) -> None:
    def work(rank: Rank) -> None:
        if rank.index != 1:
            time.sleep(300)
        raise ZeroDivisionError("planted")

    start = time.monotonic()
    assert launch(work, 3, tmp_path) == Outcome(EXIT_BUG, 1)
    assert time.monotonic() - start < 10
    assert "ZeroDivisionError: planted" in (tmp_path / "1.error").read_text()
    assert not (tmp_path / "0.error").exists()


def test_a_killed_rank_is_named_with_its_signal(tmp_path: Path) -> None:
    def work(rank: Rank) -> None:
        if rank.index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(300)

    outcome = launch(work, 3, tmp_path)
    assert (outcome.guilty, outcome.status, outcome.signal) == (2, -9, "SIGKILL")


def test_each_kind_of_error_has_its_exit_status(tmp_path: Path) -> None:
    def user(rank: Rank) -> None:
        raise UserError("mend it")

    def stopped(rank: Rank) -> None:
        raise Stopped("by TERM")

    assert launch(user, 1, tmp_path) == Outcome(EXIT_USER, 0)
    assert (tmp_path / "0.error").read_text() == "mend it\n"
    assert launch(stopped, 1, tmp_path) == Outcome(EXIT_STOPPED, 0)


def test_a_real_failure_counts_before_one_that_stopped(tmp_path: Path) -> None:
    def work(rank: Rank) -> None:
        if rank.index == 0:
            raise Stopped("by TERM")
        time.sleep(0.3)
        raise ZeroDivisionError

    assert launch(work, 2, tmp_path) == Outcome(EXIT_BUG, 1)
