"""Blends that are computed on demand against megatron-core's arrays of every sample."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from megatron_jobs._data import BLEND_BLOCK
from megatron_jobs.data.blend import Blend
from megatron_jobs.errors import DataError
from tests.megatron_datasets import megatron_datasets, megatron_native


def read_all(blend: Blend, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = [blend[int(place)] for place in places]
    return np.array([f[0] for f in found]), np.array([f[1] for f in found])


def visits(random: np.random.Generator, size: int) -> np.ndarray:
    """Every sample: some in random order, over all blocks, then the rest as they come."""
    order = random.permutation(size)
    return np.concatenate([order[:50], np.sort(order[50:])])


class Endless:
    """As much of a dataset as megatron-core's BlendedDataset asks for."""

    index_split, unique_identifiers = SimpleNamespace(name="train"), ""

    def __len__(self) -> int:
        return 1 << 40


def megatron_blend(weights: Sequence[float], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Source and number of each sample, by the steps of BlendedMegatronDatasetBuilder."""
    builder = megatron_datasets().blended_megatron_dataset_builder
    shares = builder.normalize(list(weights))
    sizes = builder._get_size_per_split_per_dataset(shares, [samples])
    config = SimpleNamespace(defer_npy_index_mmap=False, path_to_cache=None)
    endless = [Endless() for _ in shares]
    blend = builder.BlendedDataset(endless, shares, sum(size for (size,) in sizes), config)
    return blend.dataset_index, blend.dataset_sample_index


def draw_weights(random: np.random.Generator, kind: str) -> list[float]:
    """Shares of any size, or whole numbers, whose shares tie and do not add up to 1 to the bit."""
    if kind == "whole":
        return random.integers(1, 100, int(random.integers(1, 9))).astype(float).tolist()
    sources = int(random.choice([1, 2, 3, 8, 13, 40]))
    shares = random.dirichlet(np.full(sources, random.choice([0.3, 1, 10]))) + 1e-6
    return list(shares.tolist())


TABLES = [
    [7.0, 2.0, 1.0], [1.0, 4.0, 2.0], [67, 15, 4.5, 4.5, 4.5, 2.5, 2.0], [0.3, 0.7]
]  # fmt: skip
WEIGHTS = TABLES + [
    draw_weights(np.random.default_rng(case), kind)
    for kind in ("whole", "shares")
    for case in range(15)
]


@pytest.mark.parametrize("case", range(len(WEIGHTS)))
def test_every_sample_of_weights_equals_megatron(case: int, tmp_path: Path) -> None:
    random, weights = np.random.default_rng(case), WEIGHTS[case]
    sizes = [1, 2, BLEND_BLOCK - 1, BLEND_BLOCK, 2 * BLEND_BLOCK + 1, 70_001]
    samples = 70_001 if case < len(TABLES) else int(random.choice(sizes))
    planned = Blend.by_weights(weights, samples)
    blend = Blend.load(tmp_path, "train", planned.save(tmp_path, "train"))
    wanted = megatron_blend(weights, samples)
    assert len(blend) == len(wanted[0]) >= samples
    order = visits(random, len(blend))
    source, number = read_all(blend, order)
    np.testing.assert_array_equal(source, wanted[0][order])
    np.testing.assert_array_equal(number, wanted[1][order])
    for taken in (0, 1, len(blend) // 2, len(blend) - 1, len(blend)):
        counts = np.bincount(wanted[0][:taken], minlength=len(weights))
        assert blend.taken(taken) == counts.tolist()


def test_samples_are_found_by_source_and_number() -> None:
    """In every block."""
    blend = Blend.by_weights([7, 2, 1], 70_001)
    for sample in [*range(0, len(blend), 997), BLEND_BLOCK - 1, BLEND_BLOCK, len(blend) - 1]:
        source, number = blend[sample]
        assert blend.find(source, [number]) == [sample]
    assert blend.find(1, [0, blend.taken(len(blend))[1]]) == [1]


@pytest.mark.parametrize("case", range(5))
def test_every_sample_of_all_sources_equals_megatron(case: int, tmp_path: Path) -> None:
    random = np.random.default_rng(case)
    sizes = random.integers(1, 9_000, int(random.choice([1, 3, 12]))).tolist()
    blend = Blend.load(tmp_path, "x", Blend.by_size(sizes, None).save(tmp_path, "x"))
    assert len(blend) == sum(sizes)
    wanted = np.zeros(len(blend), np.int16), np.zeros(len(blend), np.int64)
    megatron_native().build_exhaustive_blending_indices(*wanted, np.array(sizes), len(sizes))
    order = visits(random, len(blend))
    source, number = read_all(blend, order)
    np.testing.assert_array_equal(source, wanted[0][order])
    np.testing.assert_array_equal(number, wanted[1][order])


@pytest.mark.parametrize("samples", [BLEND_BLOCK, 2_000_000])
def test_kept_are_eight_bytes_a_source_for_every_block(tmp_path: Path, samples: int) -> None:
    blend = Blend.by_weights([1.0] * 8, samples)
    blend.save(tmp_path, "train")
    (kept,) = tmp_path.iterdir()
    blocks = -(-len(blend) // BLEND_BLOCK)
    assert 0 <= kept.stat().st_size - 8 * 8 * (blocks + 1) <= 128  # of the .npy's head
    assert samples < 2_000_000 or kept.stat().st_size < 10 * samples / 2_000


@pytest.mark.parametrize("case", range(40))
def test_no_source_gives_more_than_it_has(case: int) -> None:
    """By size, of all samples or of some: as megatron-core's where that asks for no more either."""
    random = np.random.default_rng(case)
    lengths = random.integers(1, 40, int(random.integers(2, 30))).tolist()
    samples = int(random.integers(sum(lengths) // 2, sum(lengths) + 1))
    blend = Blend.by_size(lengths, samples)
    found = [blend[sample] for sample in range(samples)]
    for source, length in enumerate(lengths):
        numbers = [number for place, number in found if place == source]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) <= length
    wanted = np.zeros(samples, np.int16), np.zeros(samples, np.int64)
    shares = np.array(lengths) / sum(lengths)
    megatron_native().build_blending_indices(*wanted, shares, len(lengths), samples, False)
    if (np.bincount(wanted[0], minlength=len(lengths)) <= lengths).all():
        assert [source for source, _ in found] == wanted[0].tolist()


def test_counts_of_other_sources_are_refused(tmp_path: Path) -> None:
    rest = Blend.by_weights([1, 1], 10).save(tmp_path, "train")
    rest["weights"] = [1.0]
    with pytest.raises(DataError, match=r"train-counts\.npy: found an array of \(2, 2\), index"):
        Blend.load(tmp_path, "train", rest)
