"""Tests on several processes: `@ranks(4)` runs the test once in each of four forked ranks.

The ranks meet at a temporary folder, a collective that waits in vain ends, and what is reported
is the traceback of the rank that failed first.
"""

import functools
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.parallel.groups import close, connect
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import Rank

SECONDS = 60
"""How long a rank waits for the others."""


def ranks(world: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test as `test(rank, ...)` on `world` connected ranks."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**words: Any) -> None:
            on_ranks(world, lambda rank: test(rank, **words))

        signature = inspect.signature(test)
        others = [value for name, value in signature.parameters.items() if name != "rank"]
        run.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return run

    return decorate


def on_ranks(world: int, work: Callable[[Rank], Any]) -> list[Any]:
    """What `work(rank)` returned on each of `world` connected ranks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def whole_life(rank: Rank) -> None:
            torch.set_num_threads(1)
            connect(rank, folder, seconds=SECONDS)
            torch.save(work(rank), folder / f"{rank.index}.pt")
            torch.distributed.barrier()  # nobody leaves while another still talks
            close()

        outcome = fork_ranks(whole_life, world, error_file=lambda index: folder / f"{index}.txt")
        if outcome.status:
            pytest.fail(report(folder, outcome.guilty, outcome.signal), pytrace=False)
        files = [folder / f"{index}.pt" for index in range(world)]
        return [torch.load(file, weights_only=False) for file in files]


def apart(work: Callable[[], Any]) -> Any:
    """What `work()` returns in a process of its own, which connects nothing; its errors come back.

    What it opens (groups, threads, a model) is gone with it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def whole_life(rank: Rank) -> None:
            torch.set_num_threads(1)
            found: tuple[Any, BaseException | None] = (None, None)
            try:
                found = (work(), None)
            except MegatronJobsError as error:
                found = (None, type(error)(str(error)))
            torch.save(found, folder / "found.pt")

        outcome = fork_ranks(whole_life, 1, error_file=lambda index: folder / f"{index}.txt")
        if outcome.status:
            pytest.fail(report(folder, outcome.guilty, outcome.signal), pytrace=False)
        value, error = torch.load(folder / "found.pt", weights_only=False)
    if error is not None:
        raise error
    return value


def report(folder: Path, guilty: int, signal: str) -> str:
    """The guilty rank's own words."""
    words = folder / f"{guilty}.txt"
    text = words.read_text() if words.exists() else f"ended by {signal}, without a word"
    return f"rank {guilty}:\n{text}"
