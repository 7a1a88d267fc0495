"""How a token comes to be, when its parts are merged in an order that the tokens alone give.

Tiktoken's and SentencePiece's BPE know no list of merges: of all neighbours whose concatenation is
a token, those of the best rank merge first, the leftmost of equals. What becomes of a stretch of
text that nothing merges into from outside does not depend on what is beside it, so each token has
one pair at most that ever makes it; a list of these pairs merges any text the same way.
"""

from collections.abc import Mapping, Sequence
from typing import AnyStr

Pair = tuple[AnyStr, AnyStr]


def last_pair(token: AnyStr, ranks: Mapping[AnyStr, float]) -> Pair[AnyStr] | None:
    """The two parts that make `token` when it stands alone; None when it is never made.

    Args:
        token: bytes or characters, one of `ranks` or not.
        ranks: of every token, the lowest merges first.
    Source: Sennrich et al. 2016, arXiv:1508.07909, with the order of tiktoken and SentencePiece.
    """
    parts = [token[place : place + 1] for place in range(len(token))]
    last: Pair[AnyStr] | None = None
    while len(parts) > 1:
        place = _best_place(parts, ranks)
        if place is None:
            return None
        last = (parts[place], parts[place + 1])
        parts[place : place + 2] = [last[0] + last[1]]
    return last


def _best_place(parts: Sequence[AnyStr], ranks: Mapping[AnyStr, float]) -> int | None:
    best, found = float("inf"), None
    for place in range(len(parts) - 1):
        rank = ranks.get(parts[place] + parts[place + 1])
        if rank is not None and rank < best:
            best, found = rank, place
    return found
