"""Stretches of text that stand more than once; see csrc/repeats."""

import numpy as np
from numpy.typing import NDArray

def suffix_array(text: bytes) -> NDArray[np.int32]:
    """[bytes], the starts of all suffixes in their order (SA-IS, linear in time).

    Raises: ValueError from 2^31 - 2 bytes on.
    """

def repeated_stretches(
    text: bytes, ends: NDArray[np.int64], *, length: int, threads: int
) -> NDArray[np.int64]:
    """[stretches, 2], (start, end) in bytes of what can be cut out of documents; in order, apart.

    It is each byte that lies in a window of `length` bytes, within one document, that stands
    earlier too, in the same document or another.

    Args:
        text: documents end to end.
        ends: [documents], where each ends, rising; the last is len(text).
    Takes some 6 bytes a byte. Raises: ValueError.
    """
