"""Tensors that are read by rows, against plain numpy."""

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from megatron_jobs.convert import matrix
from megatron_jobs.convert.matrix import (
    Array,
    Block,
    Blocks,
    Columns,
    Converted,
    Matrix,
    Ordered,
    Padded,
    Rows,
    Stored,
    Turned,
)

BF16 = np.dtype(ml_dtypes.bfloat16)
Random = np.random.Generator
Pair = tuple[Matrix, Array]


class Dribbled(Matrix):
    """Gives one or two rows at a time, each in the same buffer: as mean as `read` may be."""

    def __init__(self, array: Array) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self.whole = array.reshape(self.rows, self.columns)

    def read(self, start: int, stop: int):  # type: ignore[no-untyped-def]
        buffer = np.empty((2, self.columns), self.dtype)
        while start < stop:
            count = min(1 + start % 2, stop - start)
            buffer[:count] = self.whole[start : start + count]
            yield buffer[:count]
            start += count


def numbers(random: Random, *shape: int, dtype: np.dtype[np.generic] = BF16) -> Array:
    return random.integers(-100, 100, shape).astype(dtype)


def base(random: Random, rows: int, columns: int) -> Pair:
    """A matrix that is stored whole, with strides, or dribbles."""
    array = numbers(random, rows, columns)
    kind = random.integers(3)
    if kind == 0:
        return Stored(array), array
    if kind == 1:
        wide = numbers(random, columns * 2, rows)
        wide[::2] = array.T
        return Stored(wide[::2].T), array
    return Dribbled(array), array


def rows_of(random: Random) -> Pair:
    whole, array = base(random, int(random.integers(1, 30)), int(random.integers(1, 9)))
    start = int(random.integers(0, len(array) + 1))
    count = int(random.integers(0, len(array) - start + 1))
    return Rows(whole, start, (count, array.shape[1])), array[start : start + count]


def columns_of(random: Random) -> Pair:
    whole, array = base(random, int(random.integers(1, 30)), int(random.integers(1, 9)))
    start = int(random.integers(0, array.shape[1]))
    stop = int(random.integers(start + 1, array.shape[1] + 1))
    return Columns(whole, start, stop), array[:, start:stop]


def turned(random: Random) -> Pair:
    whole, array = base(random, int(random.integers(1, 30)), int(random.integers(1, 9)))
    return Turned(whole), array.T


def ordered(random: Random) -> Pair:
    columns = int(random.integers(1, 9))
    pairs = [base(random, int(random.integers(1, 12)), columns) for _ in range(3)]
    together = np.concatenate([array for _, array in pairs])
    order = random.permutation(len(together))
    if random.integers(2):  # long runs, as of query heads
        order = np.roll(np.arange(len(together)), int(random.integers(len(together))))
    return Ordered([whole for whole, _ in pairs], order, together.shape), together[order]


def stacked(random: Random) -> Pair:
    pairs = [base(random, int(random.integers(1, 12)), 4) for _ in range(3)]
    together = np.concatenate([array for _, array in pairs])
    return Ordered([whole for whole, _ in pairs], None, together.shape), together


def converted(random: Random) -> Pair:
    whole, array = base(random, int(random.integers(1, 30)), int(random.integers(1, 9)))
    dtype = np.dtype(random.choice([np.float32, np.float16]))
    return Converted(whole, dtype), array.astype(dtype)


def padded(random: Random) -> Pair:
    whole, array = base(random, int(random.integers(1, 30)), int(random.integers(1, 9)))
    rows = len(array) + int(random.integers(0, 9))
    mean = array.astype(np.float64).mean(0).astype(BF16)
    return Padded(whole, rows), np.concatenate([array, np.tile(mean, (rows - len(array), 1))])


def blocks(random: Random) -> Pair:
    rows, columns = (int(random.integers(2, 30)), int(random.integers(2, 9)))
    array = numbers(random, rows, columns)
    row, column = int(random.integers(1, rows)), int(random.integers(1, columns))
    whole, halved = (slice(0, row), slice(row, rows))[:: random.choice([1, -1])]
    parts = [
        Block(whole.start, 0, Stored(array[whole])),
        Block(halved.start, 0, Dribbled(array[halved, :column])),
        Block(halved.start, column, Stored(array[halved, column:])),
    ]
    random.shuffle(parts)  # type: ignore[arg-type]
    return Blocks(array.shape, BF16, parts), array


KINDS = (rows_of, columns_of, turned, ordered, stacked, converted, padded, blocks)


def read(one: Matrix, start: int, stop: int) -> Array:
    """Rows by `read`, each piece copied before the next is asked for."""
    found = [np.array(piece) for piece in one.read(start, stop)]
    assert all(piece.shape[1] == one.columns for piece in found)
    assert all(piece.dtype == one.dtype for piece in found)
    return np.concatenate([np.empty((0, one.columns), one.dtype), *found])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [1, 30, 4 << 20])
def test_any_rows_of_each_kind(
    kind: Callable[[Random], Pair], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "PIECE", piece)
    random = np.random.default_rng(piece)
    for _ in range(40):
        one, array = kind(random)
        assert one.shape == array.shape
        assert one.bytes == array.nbytes
        start = int(random.integers(0, len(array) + 1))
        stop = int(random.integers(start, len(array) + 1))
        assert np.array_equal(read(one, start, stop), array[start:stop])
        assert np.array_equal(one.array(), array)


def test_kinds_over_each_other() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        one, array = kind_over_kinds(random)
        assert np.array_equal(one.array(), array)
        half = len(array) // 2
        assert np.array_equal(read(one, half, len(array)), array[half:])


def kind_over_kinds(random: Random) -> Pair:
    """A turned choice of rows of an ordered, converted matrix."""
    one, array = ordered(random)
    one, array = Converted(one, np.dtype(np.float32)), array.astype(np.float32)
    order = random.permutation(len(array))
    one, array = Ordered([one], order, array.shape), array[order]
    one, array = Rows(one, 1, (len(array) - 1, array.shape[1])), array[1:]
    return Turned(one), array.T


def test_a_made_piece_is_bounded() -> None:
    array = np.zeros((3000, 1000), np.float32)
    made = [
        Turned(Dribbled(array)),
        Ordered([Stored(array)], np.random.default_rng(0).permutation(3000), array.shape),
        Converted(Stored(array), BF16),
    ]
    for one in made:
        assert max(piece.nbytes for piece in one.read(0, one.rows)) <= matrix.PIECE


def test_what_lies_there_is_not_copied() -> None:
    array = np.arange(600.0).reshape(100, 6)
    views = [
        Rows(Stored(array), 20, (50, 6)),
        Columns(Stored(array), 2, 4),
        Turned(Stored(array)),
        Ordered([Stored(array[:40]), Stored(array[40:])], None, array.shape),
        Converted(Stored(array), np.dtype(np.float64)),
    ]
    for one in views:
        assert all(np.shares_memory(piece, array) for piece in one.read(0, one.rows))


@pytest.mark.parametrize("shape", [(), (5,), (0,), (0, 4), (4, 0), (2, 3, 4), (1, 1, 1, 2)])
def test_shapes_of_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    assert np.array_equal(Stored(array).array(), array)
    assert Stored(array).array().shape == shape


def test_rounding_is_to_nearest_even() -> None:
    values = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20], np.float32)
    found = Converted(Stored(values), BF16).array().astype(np.float32)
    assert found.tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]


def test_the_mean_of_padding_is_summed_precisely() -> None:
    array = np.full((3000, 2), 1.0, BF16)
    array[0] = 256.0  # 256 + 1 is 256 in bf16
    mean = (256 + 2999) / 3000
    padding = Padded(Stored(array), 3001).array()[-1]
    assert np.array_equal(padding, np.full(2, mean).astype(BF16))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([(0, 0, 2, 4)], r"parts hold 8 numbers of 16"),
        ([(0, 0, 2, 4), (1, 0, 2, 4)], r"leave a gap or overlap in row 1"),
        ([(0, 0, 4, 2), (0, 1, 4, 2)], r"leave a gap or overlap in row 0"),
        ([(0, 0, 4, 5)], r"a part at 0, 0 lies outside \(4, 4\)"),
        ([(-1, 0, 4, 4)], r"a part at -1, 0 lies outside"),
        ([(0, 0, 2, 4), (2, 0, 2, 4), (0, 0, 0, 4)], ""),
    ],
)
def test_blocks_that_do_not_fill(place: list[tuple[int, ...]], message: str) -> None:
    parts = [Block(r, c, Stored(np.zeros((n, m), np.float32))) for r, c, n, m in place]
    if not message:
        assert Blocks((4, 4), np.dtype(np.float32), parts).array().shape == (4, 4)
        return
    with pytest.raises(ValueError, match=message):
        Blocks((4, 4), np.dtype(np.float32), parts)
