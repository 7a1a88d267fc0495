"""Train, valid and test as contiguous ranges of documents: `98,1,1`."""

from itertools import accumulate
from math import inf
from typing import Literal, get_args

from megatron_jobs.errors import UserError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
INT32_MAX = 2**31 - 1
"""Numbers of documents and places in them are int32, as megatron-core has them."""


def parse_split(text: str) -> list[float]:
    """The shares of train, valid and test, adding up to 1, of a text such as `98,1,1`.

    Raises: UserError for anything but one to three numbers >= 0, not all zero.
    """
    try:
        shares = [float(word) for word in text.split(",")]
    except ValueError:
        shares = []
    good = 1 <= len(shares) <= len(SPLITS) and all(0 <= share < inf for share in shares)
    if not good or not any(shares):
        raise UserError(f"split: found {text!r}, must be one to three numbers such as 98,1,1")
    shares += [0.0] * (len(SPLITS) - len(shares))
    return [share / sum(shares) for share in shares]


def document_ranges(text: str, documents: int) -> dict[Split, range]:
    """Which of `documents` documents each split takes: megatron-core's rounding, to the document.

    Python rounds halves to even here, as there; an empty share has an empty range.
    """
    shares = parse_split(text)
    ends = [0.0, *accumulate(shares)]
    places = [round(end * float(documents)) for end in ends]
    return {
        split: range(first, last) if share_end > share_start else range(first, first)
        for split, first, last, share_start, share_end in zip(
            SPLITS, places, places[1:], ends, ends[1:], strict=False
        )
    }
