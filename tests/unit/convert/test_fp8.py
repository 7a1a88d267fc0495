"""Number formats: fp8 with a scale for each block, and a bias that is fp32 everywhere."""

import ml_dtypes
import numpy as np
import pytest

from megatron_jobs.convert.fp8 import dequantised
from megatron_jobs.convert.leaves import in_format
from megatron_jobs.convert.matrix import PIECE, Array, Matrix, Rows, Stored
from megatron_jobs.errors import DataError

FP8, BF16 = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.bfloat16)


def quantised(rows: int, columns: int) -> tuple[Array, Array]:
    """fp8 [rows, columns], and fp32 scales of its blocks of 128 x 128."""
    draw = np.random.default_rng(rows + columns)
    scales = draw.uniform(0.5, 3.0, (-(-rows // 128), -(-columns // 128))).astype(np.float32)
    return draw.normal(0, 20, (rows, columns)).astype(FP8), scales


def obvious(numbers: Array, scales: Array) -> Array:
    made = np.empty(numbers.shape, np.float32)
    for row in range(numbers.shape[0]):
        for column in range(numbers.shape[1]):
            made[row, column] = np.float32(numbers[row, column]) * scales[row // 128, column // 128]
    return made.astype(BF16)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (128, 128), (129, 257), (300, 64)])
def test_numbers_are_those_times_the_scale_of_their_block(rows: int, columns: int) -> None:
    numbers, scales = quantised(rows, columns)
    named: dict[str, Matrix] = {"a.weight": Stored(numbers), "a.weight_scale_inv": Stored(scales)}
    named["norm.weight"] = Stored(np.ones(3, BF16))
    found = dequantised(named)
    assert set(found) == {"a.weight", "norm.weight"}
    assert found["norm.weight"] is named["norm.weight"]
    whole, expected = found["a.weight"], obvious(numbers, scales)
    assert (whole.shape, whole.dtype) == ((rows, columns), BF16)
    assert np.array_equal(whole.array(), expected)
    some = Rows(whole, rows // 2, (rows - rows // 2, columns))
    assert np.array_equal(some.array(), expected[rows // 2 :])


def test_of_many_rows_few_are_made_at_once() -> None:
    numbers, scales = quantised(600, 2048)
    named: dict[str, Matrix] = {"w": Stored(numbers), "w_scale_inv": Stored(scales)}
    pieces = list(dequantised(named)["w"].read(0, 600))
    assert max(piece.nbytes for piece in pieces) <= PIECE // 4
    factors = np.kron(scales, np.ones((128, 128), np.float32))[:600]
    direct = numbers.astype(np.float32) * factors
    assert np.array_equal(np.concatenate(pieces), direct.astype(BF16))


def test_what_has_no_scales_or_others_is_refused() -> None:
    numbers, scales = quantised(200, 10)
    with pytest.raises(DataError) as caught:
        dequantised({"a.weight": Stored(numbers)})
    told = "a.weight: float8_e4m3fn without a.weight_scale_inv, its scales"
    assert str(caught.value) == told
    with pytest.raises(DataError) as caught:
        dequantised({"a.weight": Stored(numbers), "a.weight_scale_inv": Stored(scales[:1])})
    assert str(caught.value) == "a.weight: scales [1, 1]: [2, 1] are those of its blocks"


def test_a_bias_of_experts_stays_fp32() -> None:
    bias = Stored(np.linspace(9, 10, 4, dtype=np.float32))
    assert in_format("decoder.layers.3.mlp.router.expert_bias", bias, BF16) is bias
    assert in_format("decoder.layers.3.mlp.router.weight", bias, BF16).dtype == BF16
