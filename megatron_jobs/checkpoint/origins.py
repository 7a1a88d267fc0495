"""Where the rows of our tensors come from among theirs, and what the pattern means.

A conversion changes no number, so rows are found again by their bytes. N heads, D columns of a
head, R columns of a head that rotary angles turn.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """A row of theirs."""

    part: str
    row: int


def origins(ours: Tensors, theirs: Tensors) -> dict[str, list[Origin | None]]:
    """Of every row of ours, the row of theirs that it is; the one at its own place where it can.

    Args:
        ours, theirs: tensors [rows, ...] by part.
    """
    places: dict[bytes, Origin] = {}
    kept = {name: _rows(tensor) for name, tensor in theirs.items()}
    for name, rows in kept.items():
        for number, row in enumerate(rows):
            places.setdefault(row, Origin(name, number))
    found: dict[str, list[Origin | None]] = {}
    for name, tensor in ours.items():
        own = kept.get(name, [])
        found[name] = [
            Origin(name, number) if own[number : number + 1] == [row] else places.get(row)
            for number, row in enumerate(_rows(tensor))
        ]
    return found


def _rows(tensor: Tensor) -> list[bytes]:
    array = (tensor + 0.0).reshape(len(tensor), prod(tensor.shape[1:])).numpy()  # no -0.0
    return [row.tobytes() for row in array]


def order_within(found: Sequence[Origin | None], part: str) -> list[int] | None:
    """The rows of `part` that ours are, when they are all of that part, each once."""
    rows = [origin.row for origin in found if origin is not None and origin.part == part]
    whole = len(rows) == len(found) and sorted(rows) == list(range(len(rows)))
    return rows if whole else None


def order_of_heads(rows: Sequence[int], heads: int) -> tuple[list[int], list[int]] | None:
    """(heads, columns) of theirs in ours, when whole heads moved, all with the same columns."""
    size = len(rows) // heads
    by_head = torch.tensor(rows).view(heads, size)
    numbers, columns = by_head // size, by_head % size
    together = bool((numbers == numbers[:, :1]).all()) and bool((columns == columns[:1]).all())
    return (numbers[:, 0].tolist(), columns[0].tolist()) if together else None


def pairs_of_halves(size: int, turned: int) -> list[int]:
    """The columns of a head whose halves become neighbouring pairs: 0 R/2 1 R/2+1 ..."""
    halves = torch.arange(turned).view(2, -1)
    return [*halves.t().flatten().tolist(), *range(turned, size)]


def halves_of_pairs(size: int, turned: int) -> list[int]:
    """The way back: 0 2 4 ... 1 3 5 ..."""
    pairs = torch.arange(turned).view(-1, 2)
    return [*pairs.t().flatten().tolist(), *range(turned, size)]


def turned_columns(model: ModelConfig) -> int:
    """R."""
    return int(model.head_size() * model.rope_share) // 2 * 2


def layouts(model: ModelConfig) -> dict[str, list[int]]:
    """Ways to fuse q, k and v: the rows (all of q, then k, then v) in the order of each."""
    size, groups = model.head_size(), model.groups()
    sizes = [model.heads * size, groups * size, groups * size]
    rows = torch.split(torch.arange(sum(sizes)), sizes)
    ways = {"one after the other": torch.cat(rows).tolist()}
    by_group = torch.cat([part.view(groups, -1) for part in rows], dim=1)
    ways["by group"] = by_group.flatten().tolist()
    if groups == model.heads:
        ways["by head"] = ways.pop("by group")
    return ways


def misread_layout(found: Sequence[Origin | None], model: ModelConfig) -> tuple[str, str] | None:
    """(way it was read, way it is) when the rows q, k, v were fused one way and read another."""
    starts = {"q": 0, "k": model.heads * model.head_size()}
    starts["v"] = starts["k"] + model.groups() * model.head_size()
    rows = [-1 if o is None else starts[o.part] + o.row for o in found]
    ways = layouts(model)
    for (read, asked), (written, is_) in _pairs(ways):
        place = [0] * len(asked)
        for at, row in enumerate(asked):
            place[row] = at
        if rows == [is_[place[row]] for row in range(len(rows))]:
            return read, written
    return None


def _pairs(
    ways: Mapping[str, list[int]],
) -> Iterator[tuple[tuple[str, list[int]], tuple[str, list[int]]]]:
    for one in ways.items():
        for other in ways.items():
            if one[0] != other[0]:
                yield one, other
