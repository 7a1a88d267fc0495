"""Every sample's tokens against megatron-core's GPTDataset and BlendedDataset."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.data.build_index import IndexPlan, Source, build_sample_index
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.source_order import Epochs
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import DataError, UserError
from tests.megatron_datasets import megatron_datasets

SEQ_LEN = 16


class NoTokenizer:
    """As much of a tokenizer as megatron-core's datasets ask for."""

    vocab_size, eod, pad, unique_identifiers = 1000, 0, -1, "none"


def make_tokens(prefix: Path, documents: int, seed: int, mean: int = 40) -> Path:
    """A token file of documents of 0 to many tokens."""
    random = np.random.default_rng(seed)
    lengths = random.geometric(1 / mean, documents) - 1
    with write_token_file(prefix, vocab_size=1000) as writer:
        writer.add(random.integers(0, 1000, lengths.sum()), lengths.tolist())
    return prefix


def make_source(prefix: Path, weight: float | None = None, **facts: Any) -> Source:
    tokens = TokenFile.open(prefix)
    known = TokenFacts.of_bare_file(prefix, documents=len(tokens), tokens=tokens.tokens)
    return Source(prefix, tokens, TokenFacts(**(vars(known) | facts)), weight)


def make_plan(samples: tuple[int | None, ...], seed: int = 1, split: str = "90,7,3") -> IndexPlan:
    train, valid, test = samples
    asked = {"train": train, "valid": valid, "test": test}
    return IndexPlan(split=split, seq_len=SEQ_LEN, seed=seed, samples=asked)  # type: ignore[arg-type]


def megatron_samples(
    cache: Path, blend: tuple[list[str], list[float] | None], plan: IndexPlan
) -> list[list[list[int]]]:
    """The tokens of every sample of each split, by megatron-core."""
    modules = megatron_datasets()
    config = modules.gpt_dataset.GPTDatasetConfig(
        random_seed=plan.seed,
        sequence_length=plan.seq_len,
        blend=blend,
        split=plan.split,
        path_to_cache=str(cache),
        tokenizer=NoTokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    builder = modules.blended_megatron_dataset_builder.BlendedMegatronDatasetBuilder(
        modules.gpt_dataset.GPTDataset, list(plan.samples.values()), lambda: True, config
    )
    result = []
    for dataset in builder.build():
        items = [dataset[i] for i in range(len(dataset))] if dataset is not None else []
        result.append([[*i["tokens"].tolist(), int(i["labels"][-1])] for i in items])
    return result


def our_samples(folder: Path) -> list[list[list[int]]]:
    index = SampleIndex.open(folder)
    splits = [index.split(name) for name in ("train", "valid", "test")]
    return [[split[i].tolist() for i in range(len(split))] for split in splits]


BLENDS: dict[str, list[float | None]] = {
    "alone": [None],
    "blend of one": [3.0],
    "two": [0.3, 0.7],
    "three": [5.0, 1.0, 4.0],
    "ties": [7.0, 2.0, 1.0],
    "by size": [None, None],
}


SIZES = {"part of an epoch": (501, 37, 7), "many epochs": (3000, 0, 113)}
CASES = [
    pytest.param(blend, samples, id=f"{name}-{blend}")
    for name, samples in SIZES.items()
    for blend in BLENDS
    if (name, blend) != ("many epochs", "by size")  # refused: see the tests of the stage
]


@pytest.mark.parametrize("seed", [0, 1, 1234])
@pytest.mark.parametrize(("blend", "samples"), CASES)
def test_every_sample_equals_megatron(
    tmp_path: Path, seed: int, blend: str, samples: tuple[int, int, int]
) -> None:
    weights = BLENDS[blend]
    prefixes = [make_tokens(tmp_path / f"{i}", 211 + 100 * i, i) for i in range(len(weights))]
    plan = make_plan(samples, seed)
    sources = [make_source(p, w) for p, w in zip(prefixes, weights, strict=True)]
    (tmp_path / "index").mkdir()
    lengths = build_sample_index(tmp_path / "index", sources, plan)
    names = [str(prefix) for prefix in prefixes]
    their_weights = None if weights[0] is None else [weight or 0.0 for weight in weights]
    theirs = megatron_samples(tmp_path / "cache", (names, their_weights), plan)
    ours = our_samples(tmp_path / "index")
    assert list(lengths.values()) == [len(split) for split in ours]
    for split, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        if samples[split]:
            assert len(our) > 0
            assert our == their
        else:
            assert our == []


def test_whole_epochs_equal_megatron(tmp_path: Path) -> None:
    """Without numbers: each source once, in proportion to its size."""
    prefixes = [make_tokens(tmp_path / f"{i}", 97 + 40 * i, i) for i in range(2)]
    plan = make_plan((None, None, None))
    for name, chosen in {"one": prefixes[:1], "both": prefixes}.items():
        (tmp_path / name).mkdir()
        build_sample_index(tmp_path / name, [make_source(p) for p in chosen], plan)
        blend = ([str(p) for p in chosen], None)
        assert our_samples(tmp_path / name) == megatron_samples(tmp_path / "cache", blend, plan)


@pytest.mark.parametrize(
    ("samples", "epochs", "last_apart"),
    [(9, 1, False), (10, 2, True), (15, 2, True), (16, 2, False), (25, 3, True), (26, 3, False)],
)
def test_the_last_epoch_is_apart_below_four_fifths(
    samples: int, epochs: int, last_apart: bool
) -> None:
    """100 tokens an epoch, 10 a sample: 9 samples fit one epoch, int(0.8 x 9) = 7."""
    got = Epochs.needed(samples, 100, 10)
    assert (got.count, got.last_apart) == (epochs, last_apart)


def test_files_are_found_after_the_run_was_moved(tmp_path: Path) -> None:
    (tmp_path / "run/tokens").mkdir(parents=True)
    (tmp_path / "run/index/index").mkdir(parents=True)
    prefix = make_tokens(tmp_path / "run/tokens/tokens", 50, 0)
    build_sample_index(tmp_path / "run/index/index", [make_source(prefix)], make_plan((9, 0, 0)))
    before = our_samples(tmp_path / "run/index/index")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert our_samples(tmp_path / "moved/index/index") == before


def test_splits_without_documents_are_refused(tmp_path: Path) -> None:
    source = make_source(make_tokens(tmp_path / "few", 5, 0))
    with pytest.raises(UserError, match=r"split: 90,7,3 leaves test none of .*few's 5 documents"):
        build_sample_index(tmp_path, [source], make_plan((3, 0, 3)))


def test_splits_without_tokens_are_refused(tmp_path: Path) -> None:
    source = make_source(make_tokens(tmp_path / "empty", 10, 0, mean=1))
    with pytest.raises(UserError, match="empty: found 9 documents without a token, needs at"):
        build_sample_index(tmp_path, [source], make_plan((3, 0, 0)))


def test_an_epoch_shorter_than_a_sample_is_refused(tmp_path: Path) -> None:
    source = make_source(make_tokens(tmp_path / "short", 3, 0, mean=3))
    with pytest.raises(UserError, match=r"seq_len: .* is less than a sample of 16 \+ 1 tokens"):
        build_sample_index(tmp_path, [source], make_plan((None, 0, 0)))


def test_weights_need_numbers(tmp_path: Path) -> None:
    source = make_source(make_tokens(tmp_path / "tokens", 30, 0), weight=1.0)
    with pytest.raises(UserError, match="a blend by weights needs a number for each split"):
        build_sample_index(tmp_path, [source], make_plan((None, 0, 0)))


def test_two_tokenizers_do_not_blend(tmp_path: Path) -> None:
    prefix = make_tokens(tmp_path / "tokens", 30, 0)
    sources = [make_source(prefix, tokenizer_hash="a"), make_source(prefix, tokenizer_hash="b")]
    with pytest.raises(UserError, match=r"tokenizer_hash: found b, .* has a; tokenize both with"):
        build_sample_index(tmp_path, sources, make_plan((3, 0, 0)))


@pytest.mark.parametrize("split", ["", "a,b", "0,0,0", "-1,2", "1,2,3,4", "nan,1", "inf,1"])
def test_splits_must_be_shares(tmp_path: Path, split: str) -> None:
    source = make_source(make_tokens(tmp_path / "tokens", 30, 0))
    with pytest.raises(UserError, match="must be one to three numbers such as 98,1,1"):
        build_sample_index(tmp_path, [source], make_plan((3, 0, 0), split=split))


def test_an_index_of_other_tokens_is_refused(tmp_path: Path) -> None:
    prefix = make_tokens(tmp_path / "tokens", 30, 0)
    build_sample_index(tmp_path, [make_source(prefix)], make_plan((9, 0, 0)))
    make_tokens(prefix, 31, 1)
    with pytest.raises(DataError, match=r"the index was built of 30 and .*; build it again"):
        SampleIndex.open(tmp_path)
    (tmp_path / "index.json").write_text('{"version": 1}')
    with pytest.raises(DataError, match=r"index\.json: version: found 1, only 2 can be read; b"):
        SampleIndex.open(tmp_path)
    with pytest.raises(DataError, match=r"index\.json: no such file; the index stage writes it"):
        SampleIndex.open(tmp_path / "elsewhere")


def test_a_bare_file_may_hold_more_than_its_idx_tells(tmp_path: Path) -> None:
    """As where somebody leaves documents out of the .idx alone."""
    prefix = make_tokens(tmp_path / "tokens", 30, 0)
    plain = make_source(prefix)
    with (tmp_path / "tokens.bin").open("ab") as file:
        file.write(bytes(400))
    source = make_source(prefix)
    assert source.facts.tokens == plain.facts.tokens
    build_sample_index(tmp_path, [source], make_plan((9, 0, 0)))
    assert len(our_samples(tmp_path)[0]) >= 9
    with (tmp_path / "tokens.bin").open("ab") as file:
        file.write(bytes(2))
    with pytest.raises(DataError, match="the index was built of 30 and"):
        SampleIndex.open(tmp_path)


@pytest.mark.parametrize(
    ("case", "refused"), [(0, False), (2, False), (1, True), (3, True), (8, True)]
)
def test_a_blend_may_ask_for_more_than_was_planned(
    tmp_path: Path, case: int, refused: bool
) -> None:
    """Megatron-core gives up where a source has not that many; here it is built longer."""
    draw = np.random.default_rng(case)
    prefixes = [make_tokens(tmp_path / f"{i}", 40 + 3 * i, i, mean=30) for i in range(12)]
    weights = (draw.dirichlet(np.full(12, 0.5)) + 1e-4).tolist()
    sources = [make_source(prefix, w) for prefix, w in zip(prefixes, weights, strict=True)]
    (tmp_path / "index").mkdir()
    plan = make_plan((int(draw.integers(500, 3000)), int(draw.integers(20, 300)), 0), split="95,5")
    build_sample_index(tmp_path / "index", sources, plan)
    ours = our_samples(tmp_path / "index")
    names = [str(prefix) for prefix in prefixes]
    if refused:
        with pytest.raises(IndexError, match="oversamples the contributing datasets"):
            megatron_samples(tmp_path / "cache", (names, weights), plan)
    else:
        assert ours == megatron_samples(tmp_path / "cache", (names, weights), plan)


def test_only_samples_that_are_there_are_read(tmp_path: Path) -> None:
    build_sample_index(
        tmp_path, [make_source(make_tokens(tmp_path / "tokens", 30, 0))], make_plan((9, 0, 0))
    )
    train = SampleIndex.open(tmp_path).split("train")
    assert train[0].dtype == np.int64
    assert train[0].shape == (SEQ_LEN + 1,)
    for number in (-1, len(train)):
        with pytest.raises(IndexError, match=f"sample {number} of {len(train)}"):
            train[number]
