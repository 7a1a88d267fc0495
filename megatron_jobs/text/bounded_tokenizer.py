"""gigatoken's tokenizer, kept from remembering too much."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOOK_BYTES = 1 << 24
"""Of text, after which it is looked how much memory is taken."""
MOST_REMEMBERED = 1 << 27
"""Bytes; two gigabytes of English take a tenth of it."""


class BoundedTokenizer:
    """Encodes as the library does. It remembers each word that it has seen, in some 60 bytes, and
    forgets none; where that has come to MOST_REMEMBERED it is begun anew.

    Args:
        load: makes the library's tokenizer of its configuration.
    """

    def __init__(self, load: Callable[[bytes], Any], config: bytes) -> None:
        self._load, self._config = load, config
        self._inner: Any = load(config)
        self._most = own_memory() + MOST_REMEMBERED
        self._unseen = LOOK_BYTES

    def encode(self, text: bytes) -> NDArray[np.uint32]:
        """Ids of a text in UTF-8."""
        self._unseen -= len(text)
        if self._unseen < 0:
            self._look()
        ids: NDArray[np.uint32] = self._inner.encode(text)
        return ids

    def _look(self) -> None:
        self._unseen = LOOK_BYTES
        if own_memory() <= self._most:
            return
        self._inner = None  # before there are two
        self._inner = self._load(self._config)
        self._most = own_memory() + MOST_REMEMBERED


def own_memory() -> int:
    """Bytes that are resident and of no file; 0 where the system does not tell (proc(5))."""
    try:
        counts = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(counts[1]) - int(counts[2])) * resource.getpagesize()
