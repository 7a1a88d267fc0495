"""Mapped files that no longer hold what is read of them: told by name, never taken for numbers.

A file that is cut short while it is mapped, or that its disk refuses to give, would end the process
by SIGBUS. Within `told_faults` zeros stand in its place, whoever reads them, and no result of that
is believed: whoever keeps one asks `check_faults` before, and the end asks it in any case.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megatron_jobs._maps import catch_faults, first_fault, release_faults
from megatron_jobs.errors import DataError, Stopped

GONE = " (deleted)"
"""Behind the name of a file that was removed, or replaced, as the kernel tells it."""
CURE = "put it right, and the same command begins again"


class CutShort(DataError):
    """A file was not there any more where it was read."""

    def __init__(self, words: str, tensor: str) -> None:
        super().__init__(words)
        self.tensor = tensor


@contextmanager
def told_faults() -> Iterator[None]:
    """What is read inside is of whole files; else there is a `CutShort`, whatever came of it."""
    catch_faults()
    try:
        yield
        check_faults()
    except (CutShort, Stopped):
        raise
    except Exception as error:  # perhaps of zeros that were believed
        check_faults(error)
        raise
    finally:
        release_faults()


def check_faults(cause: Exception | None = None, *, tensor: str = "") -> None:
    """Raise `CutShort` if a mapped file could not be read since `told_faults` began.

    Args:
        cause: what came of that.
        tensor: what this thread has just read.
    """
    fault = first_fault()
    if fault is None:
        return
    name, offset, thread = fault
    tensor = tensor if thread == threading.get_native_id() else ""
    raise CutShort(_words(os.fsdecode(name), offset, tensor), tensor) from cause


def _words(name: str, offset: int, tensor: str) -> str:
    path = Path(name.removesuffix(GONE))
    where = f"{path}: {tensor}" if tensor else str(path)
    replaced = name.endswith(GONE) or not path.is_file()
    size = 0 if replaced else path.stat().st_size
    why = f"it was cut short to {size:,} bytes" if size <= offset else "its disk refuses"
    why = "it was removed or replaced" if replaced else why
    return f"{where}: could not be read at byte {offset:,}: {why}; {CURE}"
