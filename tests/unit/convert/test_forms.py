"""How tensors of theirs lie in ours: against reshapes of numpy, and there and back."""

import numpy as np
import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.forms import (
    FUSED_QKV,
    PLAIN,
    QKV,
    TURNED,
    TURNED_QKV,
    VOCABULARY,
    Form,
    grouped,
    inverse,
)
from megatron_jobs.convert.matrix import Array, Stored

MODEL = ModelConfig(layers=1, hidden=12, heads=6, kv_heads=2, head_dim=4, ffn=10, vocab_size=11)
GROUPS, QUERIES, HEAD = 2, 3, 4


def numbers(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def fused(queries: Array, keys: Array, values: Array) -> Array:
    """[G, Q D], [G, D], [G, D], each with its columns -> [G (Q + 2) D, ...]."""
    parts = [part.reshape(GROUPS, -1, *part.shape[1:]) for part in (queries, keys, values)]
    whole = np.concatenate(parts, axis=1)
    return whole.reshape(-1, *whole.shape[2:])


@pytest.mark.parametrize("tail", [(12,), ()])
def test_queries_keys_and_values_lie_by_groups(tail: tuple[int, ...]) -> None:
    sizes = (GROUPS * QUERIES * HEAD, GROUPS * HEAD, GROUPS * HEAD)
    parts = [numbers(size, *tail) + 1000 * place for place, size in enumerate(sizes)]
    shape = (sum(sizes), *tail)
    joined = QKV.join([Stored(part) for part in parts], MODEL, shape)
    assert np.array_equal(joined.array(), fused(*parts))
    back = QKV.split(joined, MODEL, 3)
    assert all(np.array_equal(one.array(), part) for one, part in zip(back, parts, strict=True))


def test_one_tensor_of_all_three() -> None:
    rows = GROUPS * (QUERIES + 2) * HEAD
    whole = numbers(rows, 12)
    parts = np.split(whole, [GROUPS * QUERIES * HEAD, GROUPS * (QUERIES + 1) * HEAD])
    for form, theirs in ((FUSED_QKV, whole), (TURNED_QKV, np.ascontiguousarray(whole.T))):
        joined = form.join([Stored(theirs)], MODEL, whole.shape)
        assert np.array_equal(joined.array(), fused(*parts))
        (back,) = form.split(joined, MODEL, 1)
        assert np.array_equal(back.array(), theirs)


def test_gate_above_up() -> None:
    gate, up = numbers(10, 12), -numbers(10, 12)
    joined = PLAIN.join([Stored(gate), Stored(up)], MODEL, (20, 12))
    assert np.array_equal(joined.array(), np.concatenate([gate, up]))
    back = PLAIN.split(joined, MODEL, 2)
    assert [one.array().tolist() for one in back] == [gate.tolist(), up.tolist()]


def test_padding_of_the_vocabulary_stays_ours() -> None:
    theirs = numbers(11, 12)
    joined = VOCABULARY.join([Stored(theirs)], MODEL, (128, 12))
    assert np.array_equal(joined.array()[:11], theirs)
    assert np.allclose(joined.array()[11:], theirs.mean(0))
    (back,) = VOCABULARY.split(joined, MODEL, 1)
    assert np.array_equal(back.array(), theirs)


def test_a_turned_matrix() -> None:
    theirs = numbers(12, 5)
    joined = TURNED.join([Stored(theirs)], MODEL, (5, 12))
    assert np.array_equal(joined.array(), theirs.T)
    assert np.array_equal(TURNED.split(joined, MODEL, 1)[0].array(), theirs)


def test_the_inverse_undoes() -> None:
    order = np.random.default_rng(0).permutation(50)
    assert np.array_equal(order[inverse(order)], np.arange(50))
    assert sorted(grouped(MODEL)) == list(range(GROUPS * (QUERIES + 2) * HEAD))


@pytest.mark.parametrize(
    ("form", "parts", "shape", "message"),
    [
        (PLAIN, [(10, 12)], (20, 12), r"config.json asks for \[20, 12\] together"),
        (PLAIN, [(20, 11)], (20, 12), r"config.json asks for \[20, 12\] together"),
        (VOCABULARY, [(12, 12)], (128, 12), r"config.json asks for \[11, 12\] together"),
    ],
)
def test_shapes_that_do_not_fit(
    form: Form, parts: list[tuple[int, ...]], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        form.join([Stored(numbers(*part)) for part in parts], MODEL, shape)


def test_rows_that_cannot_be_dealt() -> None:
    with pytest.raises(ValueError, match=r"41 rows cannot be dealt to 3 as \(6, 2, 2\)"):
        QKV.split(Stored(numbers(41, 12)), MODEL, 3)
