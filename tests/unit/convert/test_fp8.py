"""Number formats: fp8 with a scale for each block, and a bias that is fp32 everywhere."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize

from megatron_jobs.convert.fp8 import (
    Scheme,
    check_method,
    dequantised,
    of_activations,
    scheme_of,
)
from megatron_jobs.convert.leaves import in_format
from megatron_jobs.convert.matrix import PIECE, Array, Matrix, Rows, Stored
from megatron_jobs.errors import DataError, UserError

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


FINE = {"quant_method": "fp8", "weight_block_size": [16, 24]}
WEIGHTS = {"num_bits": 8, "type": "float", "symmetric": True}


def compressed(*weights: dict[str, Any]) -> dict[str, Any]:
    groups = {f"group_{n}": {"weights": WEIGHTS | more} for n, more in enumerate(weights)}
    return {"quant_method": "compressed-tensors", "config_groups": groups}


KINDS: list[tuple[dict[str, Any] | None, str, tuple[int, ...]]] = [
    (FINE, "_scale_inv", (4, 3)),
    (FINE | {"weight_block_size": None}, "_scale_inv", ()),
    (FINE | {"weight_block_size": None}, "_scale_inv", (1, 1)),
    ({"quant_method": "fp8", "activation_scheme": "static"}, "_scale", ()),
    ({"quant_method": "fp8"}, "_scale", (1,)),
    ({"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0}, "_scale", (50, 1)),
    ({"quant_method": "modelopt", "quant_algo": "FP8"}, "_scale", ()),
    (compressed({"strategy": "tensor"}), "_scale", (1,)),
    (compressed({"strategy": "channel"}), "_scale", (50, 1)),
    (compressed({"strategy": "channel"}), "_scale", (50,)),
    (compressed({"strategy": "block", "block_structure": [16, 24]}), "_scale", (4, 3)),
    (compressed({"strategy": "group", "group_size": 12}), "_scale", (50, 6)),
    (compressed({"strategy": "tensor"}, {"strategy": "block", "block_structure": [10, 10]}),
     "_scale", (5, 7)),
    (None, "_scale", (50, 1)),
    (None, "_scale_inv", (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("said", "end", "shape"), KINDS)
@pytest.mark.parametrize("scale", [np.dtype(np.float32), BF16, np.dtype(ml_dtypes.float8_e8m0fnu)])
def test_scales_of_blocks_rows_and_whole_matrices(
    said: dict[str, Any] | None, end: str, shape: tuple[int, ...], scale: np.dtype[Any]
) -> None:
    """[50, 67] against a sum over numbers: row and column divided by how many share a scale."""
    draw = np.random.default_rng(len(shape))
    numbers = draw.normal(0, 20, (50, 67)).astype(FP8)
    scales = draw.uniform(0.5, 3.0, shape).astype(scale)
    config = {} if said is None else {"quantization_config": said}
    named: dict[str, Matrix] = {"w.weight": Stored(numbers), f"w.weight{end}": Stored(scales)}
    named |= {"w.input_scale": Stored(np.ones((), np.float32)), "n": Stored(np.ones(3, BF16))}
    found = dequantised(named, scheme_of(config, np.dtype(np.float32)))
    assert list(found) == ["w.weight", "n"]
    assert of_activations(named) == ["w.input_scale"]
    grid = scales.astype(np.float64).reshape(scales.shape if scales.ndim == 2 else (-1, 1))
    high, wide = -(-50 // grid.shape[0]), -(-67 // grid.shape[1])
    block = {(4, 3): (16, 24), (50, 6): (1, 12), (5, 7): (10, 10)}.get(shape, (high, wide))
    wanted = np.empty((50, 67))
    for row in range(50):
        for column in range(67):
            share = grid[row // block[0], column // block[1]]
            wanted[row, column] = np.float64(np.float32(numbers[row, column])) * share
    assert np.array_equal(found["w.weight"].array(), wanted.astype(np.float32))


@pytest.mark.parametrize("block", [(16, 16), (1, 32), (48, 64)])
def test_numbers_are_those_of_transformers(block: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(1)
    numbers = (20 * torch.randn(48, 64, generator=draw)).to(torch.float8_e4m3fn)
    scales = torch.rand(48 // block[0], 64 // block[1], generator=draw) + 0.5
    theirs = Fp8Dequantize(None)._dequantize_one(numbers, scales, torch.bfloat16)
    said = {"quant_method": "fp8", "weight_block_size": list(block)}
    named: dict[str, Matrix] = {
        "w": Stored(numbers.view(torch.uint8).numpy().view(FP8)),
        "w_scale_inv": Stored(scales.numpy()),
    }
    ours = dequantised(named, scheme_of({"quantization_config": said}))["w"].array()
    assert np.array_equal(ours.view(np.int16), theirs.view(torch.int16).numpy())


ODD: list[tuple[dict[str, Any], dict[str, Array], str]] = [
    (FINE, {"w_scale_inv": np.ones((4, 4))}, "w: scales [4, 4]: [4, 3] are those of its blocks"),
    (FINE, {"w_scale_inv": np.ones(())}, "w: scales []: [4, 3] are those of its blocks"),
    (compressed({"strategy": "channel"}), {"w_scale": np.ones((1, 67))},
     "w: scales [1, 67]: one, or one for each of its 50 rows, is known"),
    (FINE, {"w_scale_inv": np.ones((4, 3), np.uint8)},
     "w_scale_inv: found uint8; scales are floating-point numbers"),
    (FINE, {"w_scale": np.ones(()), "w_scale_inv": np.ones((4, 3))},
     "w: has w_scale_inv and w_scale; only one can be meant"),
    (FINE | {"weight_block_size": [0, 4]}, {},
     "config: quantization_config: not read: found blocks of [0, 4], two counts are looked for"),
    (compressed({"strategy": "group"}), {},
     "config: quantization_config: not read: 'group_size'"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "scales", "told"), ODD)
def test_scales_that_fit_nothing_are_named(
    said: dict[str, Any], scales: dict[str, Array], told: str
) -> None:
    named: dict[str, Matrix] = {"w": Stored(np.zeros((50, 67), FP8))}
    named |= {name: Stored(array) for name, array in scales.items()}
    with pytest.raises(DataError) as caught:
        dequantised(named, scheme_of({"quantization_config": said}))
    assert str(caught.value) == told


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", None])
def test_other_ways_to_quantise_are_refused_with_the_cure(method: str | None) -> None:
    named: dict[str, Matrix] = {"a.qweight": Stored(np.zeros((8, 4), np.int32))}
    with pytest.raises(UserError) as caught:
        check_method(named, {"quantization_config": {"quant_method": method}}, "folder")
    told = f"folder: a.qweight: found int32, {method!r} of quantization_config; of quantised "
    cure = "weights only fp8 is read; convert a copy in bf16: "
    cure += "transformers' from_pretrained, dequantize() and save_pretrained"
    assert str(caught.value) == told + cure
    check_method(named, {}, "folder")
    buffer: dict[str, Matrix] = {"position_ids": Stored(np.zeros((1, 4), np.int64))}
    check_method(buffer, {"quantization_config": {"quant_method": method}}, "folder")
    whole: dict[str, Matrix] = {"a.weight": Stored(np.zeros((8, 4), BF16))}
    check_method(whole, {"quantization_config": {"quant_method": method}}, "folder")


def test_without_fp8_nothing_is_touched() -> None:
    named: dict[str, Matrix] = {"a.k_scale": Stored(np.ones(1, np.float32))}
    assert dequantised(named, Scheme(())) is named
    assert of_activations(named) == []


def test_fp16_that_cannot_hold_a_number_is_refused() -> None:
    named: dict[str, Matrix] = {"w": Stored(np.full((2, 3), 448, FP8))}
    named["w_scale"] = Stored(np.full(1, 200, np.float32))
    (found,) = dequantised(named, Scheme(dtype=np.dtype(np.float16))).values()
    with pytest.raises(DataError, match="w: found 89600; fp16 ends at 65504; use bf16 or fp32"):
        found.array()
    named["w_scale"] = Stored(np.full(1, 0.25, np.float32))
    (found,) = dequantised(named, Scheme(dtype=np.dtype(np.float16))).values()
    assert np.array_equal(found.array(), np.full((2, 3), 112, np.float16))
