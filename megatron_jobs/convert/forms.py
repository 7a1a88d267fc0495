"""How tensors of theirs lie in one of ours: a permutation of rows. Both directions read the same.

G key/value groups, Q query heads of a group, D columns of a head, H hidden, F ffn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.matrix import Matrix, Ordered, Padded, Rows, Turned

Order = NDArray[np.int64]


@dataclass(frozen=True)
class Form:
    """What becomes of the rows of theirs, put one below the other, in ours."""

    order: Callable[[ModelConfig], Order] | None = None
    """Row i of ours is row `order[i]` of theirs; None: the same."""
    shares: Callable[[ModelConfig], tuple[int, ...]] | None = None
    """Rows of each of theirs, up to a common factor; None: equal."""
    turned: bool = False
    """Theirs keep their weights [in, out]."""
    padded: bool = False
    """Ours has rows of no token at its end."""

    def join(self, parts: Sequence[Matrix], model: ModelConfig, shape: tuple[int, ...]) -> Matrix:
        """Ours, of `shape`, from theirs; ValueError, in words, when they do not fit."""
        parts = [Turned(part) if self.turned else part for part in parts]
        if len({part.dtype for part in parts}) > 1:
            raise ValueError("they are of several number formats; set dtype to have them in one")
        rows = sum(part.rows for part in parts)
        tokens = (model.vocab_size if self.padded else shape[0], *shape[1:])
        if rows != tokens[0] or any(part.shape[1:] != tokens[1:] for part in parts):
            raise ValueError(f"config.json asks for {list(tokens)} together")
        order = shared_order(self.order, model) if self.order else None
        simple = order is None and len(parts) == 1
        whole = parts[0] if simple else Ordered(parts, order, tokens)
        return Padded(whole, shape[0]) if self.padded and shape != tokens else whole

    def split(self, ours: Matrix, model: ModelConfig, count: int) -> list[Matrix]:
        """Theirs, `count` of them, from ours."""
        rows = model.vocab_size if self.padded else ours.rows
        tail = ours.shape[1:]
        shares = self.shares(model) if self.shares else (1,) * count
        unit, left = divmod(rows, sum(shares))
        if left or len(shares) != count:
            raise ValueError(f"{rows} rows cannot be dealt to {count} as {shares}")
        if self.order is not None:
            ours = Ordered([ours], shared_inverse(self.order, model), ours.shape)
        parts: list[Matrix] = []
        start = 0
        for share in shares:
            whole = start == 0 and share * unit == ours.rows
            parts.append(ours if whole else Rows(ours, start, (share * unit, *tail)))
            start += share * unit
        return [Turned(part) if self.turned else part for part in parts]


@lru_cache(maxsize=16)
def shared_order(order: Callable[[ModelConfig], Order], model: ModelConfig) -> Order:
    """The permutation of a kind of tensor, one for all layers."""
    made = order(model)
    made.setflags(write=False)
    return made


@lru_cache(maxsize=16)
def shared_inverse(order: Callable[[ModelConfig], Order], model: ModelConfig) -> Order:
    """The way back of `shared_order`."""
    return inverse(shared_order(order, model))


def inverse(order: Order) -> Order:
    """The permutation that undoes another."""
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return back


def grouped(model: ModelConfig) -> Order:
    """q [G Q D], k [G D], v [G D] -> [G (Q + 2) D], each group's queries, its key and its value.

    It is how megatron-core fuses them: a tensor rank then holds whole groups.
    """
    groups, head = model.groups(), model.head_size()
    queries = np.arange(model.heads * head).reshape(groups, -1)
    keys = len(queries.reshape(-1)) + np.arange(groups * head).reshape(groups, -1)
    return np.concatenate([queries, keys, keys + groups * head], axis=1).reshape(-1)


def qkv_shares(model: ModelConfig) -> tuple[int, ...]:
    """Rows of q, k and v."""
    return (model.heads, model.groups(), model.groups())


PLAIN = Form()
"""The same; several of theirs one below the other (gate, then up)."""
VOCABULARY = Form(padded=True)
"""A row for each token, and padding that is ours alone."""
QKV = Form(grouped, qkv_shares)
"""Separate q, k and v."""
FUSED_QKV = Form(grouped)
"""One tensor that holds all of q, then all of k, then all of v."""
TURNED = Form(turned=True)
"""Conv1D of GPT-2 keeps its weights [in, out]."""
TURNED_QKV = Form(grouped, turned=True)
