"""Memory that was freed is kept for what comes next, where the C library can be told so."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
LARGEST = 1 << 25
"""Bytes; the most that glibc takes on all machines for M_MMAP_THRESHOLD."""


def keep_freed_memory(size: int) -> bool:
    """From now on up to `size` bytes that were freed stay this process's; whether that was done.

    Blocks of a mebibyte that come and go are else given back to the system and asked for again,
    each page of them: a quarter of a second for 200 MB that are read, encoded and written.
    Source: mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):  # as in other C libraries
        return False
    kept = library.mallopt(M_MMAP_THRESHOLD, min(size, LARGEST))
    return bool(kept and library.mallopt(M_TRIM_THRESHOLD, size))
