"""Blends that are computed on demand against megatron-core's arrays of every sample."""

from pathlib import Path

import numpy as np
import pytest

from megatron_jobs._data import BLEND_BLOCK
from megatron_jobs.data.blend import Blend, planned_samples
from megatron_jobs.errors import DataError
from tests.megatron_datasets import megatron_native


def read_all(blend: Blend, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = [blend[int(place)] for place in places]
    return np.array([f[0] for f in found]), np.array([f[1] for f in found])


def visits(random: np.random.Generator, size: int) -> np.ndarray:
    """Every sample: some in random order, over all blocks, then the rest as they come."""
    order = random.permutation(size)
    return np.concatenate([order[:50], np.sort(order[50:])])


@pytest.mark.parametrize("case", range(20))
def test_every_sample_of_random_weights_equals_megatron(case: int, tmp_path: Path) -> None:
    random = np.random.default_rng(case)
    sources = int(random.choice([1, 2, 3, 8, 13, 40]))
    shares = random.dirichlet(np.full(sources, random.choice([0.3, 1, 10]))) + 1e-6
    samples = int(random.choice([1, 2, BLEND_BLOCK - 1, BLEND_BLOCK, 2 * BLEND_BLOCK + 1, 70_001]))
    planned = Blend.plan([1 << 40] * sources, shares.tolist(), samples)
    blend = Blend.load(tmp_path, "train", planned.save(tmp_path, "train"))
    weights = np.array(shares / shares.sum())
    assert len(blend) == sum(planned_samples(weight, samples) for weight in weights.tolist())
    wanted = np.zeros(len(blend), np.int16), np.zeros(len(blend), np.int64)
    megatron_native().build_blending_indices(*wanted, weights, sources, len(blend), False)
    order = visits(random, len(blend))
    source, number = read_all(blend, order)
    np.testing.assert_array_equal(source, wanted[0][order])
    np.testing.assert_array_equal(number, wanted[1][order])
    for taken in (0, 1, len(blend) // 2, len(blend) - 1, len(blend)):
        counts = np.bincount(wanted[0][:taken], minlength=sources)
        assert blend.taken(taken) == counts.tolist()


@pytest.mark.parametrize("case", range(5))
def test_every_sample_of_all_sources_equals_megatron(case: int, tmp_path: Path) -> None:
    random = np.random.default_rng(case)
    sizes = random.integers(1, 9_000, int(random.choice([1, 3, 12]))).tolist()
    blend = Blend.load(tmp_path, "x", Blend.plan(sizes, None, None).save(tmp_path, "x"))
    assert len(blend) == sum(sizes)
    wanted = np.zeros(len(blend), np.int16), np.zeros(len(blend), np.int64)
    megatron_native().build_exhaustive_blending_indices(*wanted, np.array(sizes), len(sizes))
    order = visits(random, len(blend))
    source, number = read_all(blend, order)
    np.testing.assert_array_equal(source, wanted[0][order])
    np.testing.assert_array_equal(number, wanted[1][order])


def test_what_is_kept_is_the_number_of_sources_not_of_samples(tmp_path: Path) -> None:
    Blend.plan([1 << 40] * 8, [1.0] * 8, 2_000_000).save(tmp_path, "train")
    (kept,) = tmp_path.iterdir()
    assert kept.stat().st_size < 2_000_000 / 200


def test_a_source_without_enough_is_refused() -> None:
    with pytest.raises(DataError, match="source 1: 5 samples are asked of it, it has 4"):
        Blend.plan([5, 4], [1, 1], 10)


def test_counts_of_other_sources_are_refused(tmp_path: Path) -> None:
    rest = Blend.plan([5, 5], [1, 1], 10).save(tmp_path, "train")
    rest["weights"] = [1.0]
    with pytest.raises(DataError, match=r"train-counts\.npy: found an array of \(2, 2\), index"):
        Blend.load(tmp_path, "train", rest)
