"""Files that other nodes write, read through a network file system that remembers."""

import errno
import os
from pathlib import Path


def read_shared(path: Path) -> str:
    """What a process on another node has written to a file; nothing as long as it has not.

    A client remembers for up to a minute that a file was not there (nfs(5), acdirmax); at one that
    is there it looks anew each time it opens it (close-to-open). So a file that is absent is made,
    empty: that is asked of the server, and leaves alone what somebody else has made meanwhile.
    """
    try:
        return _read(path, os.O_RDONLY)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _read(path, os.O_RDONLY | os.O_CREAT)


def _read(path: Path, flags: int) -> str:
    try:
        with open(os.open(path, flags, 0o666), encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        if error.errno == errno.ESTALE:  # it was replaced under our hands: the next look finds it
            return ""
        raise
