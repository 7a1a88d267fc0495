"""Shares of tensor, pipeline and expert ranks put together, as views. T tensor ranks."""

import re
from collections.abc import Iterable, Mapping, Sequence

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.leaves import Cut, leaf_of
from megatron_jobs.convert.matrix import Block, Blocks, Matrix, Rows
from megatron_jobs.errors import DataError

Place = tuple[int, int, int]
"""Tensor, pipeline and expert rank."""
Part = dict[str, Matrix]
"""Tensors of a rank by our names, layers and experts counted within the part."""
LAYER = re.compile(r"((?:.*\.)?layers\.)(\d+)(\..*)")
EXPERT = re.compile(r"(.*\.local_experts\.)(\d+)(\..*)")


def merged(
    parts: Mapping[Place, Sequence[Part]], model: ModelConfig, where: str
) -> dict[str, Matrix]:
    """Whole tensors of all ranks' parts of the model.

    Layers go on from stage to stage, and through all stages again for each further part.

    Raises: DataError, beginning with `where`, when parts are missing or do not fit together.
    """
    turns = {len(held) for held in parts.values()}
    if len(turns) != 1:
        raise DataError(f"{where}: its ranks hold different numbers of parts of the model")
    stages = 1 + max(stage for _, stage, _ in parts)
    found: dict[str, Matrix] = {}
    before = 0
    for turn in range(turns.pop()):
        for stage in range(stages):
            held = {(t, e): p[turn] for (t, s, e), p in parts.items() if s == stage}
            _add(found, _by_name(held, before), model, where)
            before += _count(LAYER, held[0, 0])
    return found


def _count(pattern: re.Pattern[str], names: Iterable[str]) -> int:
    return len({match[2] for match in map(pattern.fullmatch, names) if match})


def _by_name(held: Mapping[tuple[int, int], Part], before: int) -> dict[str, dict[int, Matrix]]:
    """Name in the whole model -> tensor rank -> its share, of one stage."""
    found: dict[str, dict[int, Matrix]] = {}
    for (tensor, expert_rank), part in held.items():
        first = expert_rank * _count(EXPERT, part)
        for name, matrix in part.items():
            layer, expert = LAYER.fullmatch(name), EXPERT.fullmatch(name)
            if expert_rank and not expert:
                continue  # what is no expert is the same on all expert ranks
            if expert:
                name = f"{expert[1]}{first + int(expert[2])}{expert[3]}"
            layer = LAYER.fullmatch(name)
            if layer:
                name = f"{layer[1]}{before + int(layer[2])}{layer[3]}"
            found.setdefault(name, {})[tensor] = matrix
    return found


def _add(
    found: dict[str, Matrix],
    shares: Mapping[str, Mapping[int, Matrix]],
    model: ModelConfig,
    where: str,
) -> None:
    """Put a stage's tensors to those of the others."""
    for name, by_rank in shares.items():
        if name == "output_layer.weight" and model.tied:
            continue  # the last stage's copy of the embedding
        if name in found:
            raise DataError(f"{where}: {name}: is in two stages")
        ranks = max(max(by_rank) for by_rank in shares.values()) + 1
        missing = sorted(set(range(ranks)) - set(by_rank))
        if missing:
            raise DataError(f"{where}: {name}: missing on tensor rank {missing[0]}")
        try:
            found[name] = _joined(name, [by_rank[rank] for rank in range(ranks)], model)
        except KeyError as error:
            raise DataError(f"{where}: {name}: has no place in such a model") from error
        except ValueError as error:
            raise DataError(f"{where}: {name}: {error}") from error


def _joined(name: str, shares: Sequence[Matrix], model: ModelConfig) -> Matrix:
    """The whole of what each tensor rank holds; ValueError when shares differ."""
    cut: Cut = leaf_of(name).cut
    first = shares[0]
    if any(one.shape != first.shape or one.dtype != first.dtype for one in shares):
        raise ValueError("its shares on tensor ranks are not alike")
    if len(shares) == 1 or cut == "none":
        return first
    if cut == "columns":
        blocks = [Block(0, n * first.columns, one) for n, one in enumerate(shares)]
        return Blocks((first.rows, first.columns * len(shares)), first.dtype, blocks)
    shape = (first.shape[0] * len(shares), *first.shape[1:])
    if cut == "halves" and model.is_gated():
        return Blocks(shape, first.dtype, _halves(shares))
    blocks = [Block(n * first.rows, 0, one) for n, one in enumerate(shares)]
    return Blocks(shape, first.dtype, blocks)


def _halves(shares: Sequence[Matrix]) -> list[Block]:
    """All gates, then all values; each rank holds its gate above its value."""
    rows = shares[0].rows // 2
    if rows * 2 != shares[0].rows:
        raise ValueError(f"its gate and value have {shares[0].rows} rows together")
    shape = (rows, *shares[0].shape[1:])
    return [
        Block((half * len(shares) + n) * rows, 0, Rows(one, half * rows, shape))
        for n, one in enumerate(shares)
        for half in (0, 1)
    ]
