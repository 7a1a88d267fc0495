"""Pickles of weights, read by a machine of our own that can make plain data alone.

Python's own unpickler runs what a file names, and may be made to take any memory, to hash for ever
or to overflow the stack of C. This one never looks a name up in Python, counts what it makes, and
hashes flat keys only. It reads protocols 0 to 5.

Source: the documentation of each opcode in Python's pickletools.
"""

import struct
from typing import Any

from megatron_jobs.convert.pickle_codes import CODES
from megatron_jobs.convert.pickle_machine import Bytes, Machine, Persistent, Refused
from megatron_jobs.errors import DataError

MOST_WORDS = 500
"""Letters of an error, which may tell what a file holds."""
STOP = ord(".")


def read_pickle(
    data: Bytes, where: str, *, start: int = 0, persistent: Persistent | None = None
) -> tuple[Any, int]:
    """The value of the pickle that begins at `start`, and where it ends.

    Args:
        where: begins every error.
        persistent: makes what the pickle keeps outside of itself (torch: storages) of its
            description; ValueError when that is none.
    Raises: DataError when it is no pickle, or asks for anything but plain data and tensors.
    """
    machine = Machine(data, start, persistent)
    try:
        return run(machine), machine.at
    except Refused as error:
        raise DataError(f"{where}: {error}") from error
    except (IndexError, KeyError, struct.error, ValueError, TypeError, OverflowError) as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise DataError(f"{where}: not a pickle of weights: {kind}{error}"[:MOST_WORDS]) from error


def run(machine: Machine) -> Any:
    """Go on until the pickle stops; its value."""
    while True:
        if machine.at >= machine.end:
            raise Refused(f"its pickle does not end within {machine.end:,} bytes")
        code = machine.data[machine.at]
        machine.at += 1
        if code == STOP:
            break
        operation = CODES.get(code)
        if operation is None:
            raise Refused(f"its pickle holds the opcode {code}, which weights do not need")
        operation(machine)
    if machine.below or len(machine.stack) != 1:
        raise Refused(f"its pickle stops with {len(machine.stack)} values")
    return machine.stack.pop()
