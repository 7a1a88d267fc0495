"""What a rank reads over a run, against the samples themselves dealt out one by one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from megatron_jobs.config.batch import BatchConfig
from megatron_jobs.config.documents import DocumentResets
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.data.build_index import IndexPlan, Source, build_sample_index
from megatron_jobs.data.cursor import DocumentEnds
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import UserError
from megatron_jobs.train import feed
from megatron_jobs.train.batch import MicroBatch
from megatron_jobs.train.feed import (
    check_index,
    check_samples,
    document_ends,
    open_feed,
    split_batches,
)

SEQ_LEN = 8
TRAIN = 48
MODEL = ModelConfig(layers=1, hidden=8, heads=2, vocab_size=300, seq_len=SEQ_LEN)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> SampleIndex:
    """Random documents; 48 train samples at least, all of 20 documents' valid, no test samples."""
    folder = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 12, 200)
    with write_token_file(folder / "tokens", vocab_size=300) as writer:
        writer.add(draw.integers(0, 300, lengths.sum()), lengths.tolist())
    facts = TokenFacts.of_bare_file(folder / "tokens", documents=200, tokens=int(lengths.sum()))
    facts = TokenFacts(**(vars(facts) | {"vocab_size": 300}))
    source = Source(folder / "tokens", TokenFile.open(folder / "tokens"), facts, None)
    samples = {"train": TRAIN, "valid": None, "test": 0}
    (folder / "index").mkdir()
    plan = IndexPlan(split="80,20", seq_len=SEQ_LEN, seed=1, samples=samples)
    build_sample_index(folder / "index", [source], plan)
    return SampleIndex.open(folder / "index")


def be_rank(monkeypatch: pytest.MonkeyPatch, place: int, of: int) -> None:
    monkeypatch.setattr(feed, "data_rank", lambda: place)
    monkeypatch.setattr(feed, "data_ranks", lambda: of)


def tokens_of(batch: MicroBatch) -> list[list[int]]:
    """The seq_len + 1 tokens of each row."""
    return torch.cat([batch["tokens"], batch["labels"][:, -1:]], dim=1).tolist()


@pytest.mark.parametrize(("ranks", "micro"), [(1, 4), (2, 2), (4, 1), (3, 4)])
def test_all_ranks_together_read_each_sample_once_in_order(
    ranks: int, micro: int, index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = BatchConfig(global_size=12, micro_size=micro)
    samples = index.split("train")
    assert len(samples) >= TRAIN
    for step in range(1, TRAIN // 12 + 1):
        wanted = [samples[i].tolist() for i in range(12 * (step - 1), 12 * step)]
        for place in range(ranks):
            be_rank(monkeypatch, place, ranks)
            own = list(open_feed(index, batch).train(step))
            assert len(own) == 12 // (ranks * micro)
            for number, part in enumerate(own):
                first = (number * ranks + place) * micro
                assert tokens_of(part) == wanted[first : first + micro]
                assert part["loss_mask"].tolist() == [[1.0] * SEQ_LEN] * micro
                assert part["positions"].tolist() == [list(range(SEQ_LEN))] * micro


def test_the_last_validation_batch_is_filled_up_with_what_does_not_count(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(monkeypatch, 0, 1)
    batch = BatchConfig(global_size=8, micro_size=4)
    samples = index.split("valid")
    assert len(samples) % 8
    opened = open_feed(index, batch)
    assert opened.validation_batches == len(samples) // 8 + 1
    by_number = [list(opened.validation(n)) for n in range(opened.validation_batches)]
    rows = [row for parts in by_number for part in parts for row in tokens_of(part)]
    masks = [mask for parts in by_number for part in parts for mask in part["loss_mask"].tolist()]
    assert len(rows) == 8 * opened.validation_batches
    assert rows[: len(samples) - 1] == [samples[i].tolist() for i in range(len(samples) - 1)]
    counted = sum(int((samples[i][1:] >= 0).sum()) for i in range(len(samples)))
    assert sum(map(sum, masks)) == counted
    assert masks[len(samples) :] == [[0.0] * SEQ_LEN] * (len(rows) - len(samples))
    again = [[tokens_of(part) for part in parts] for parts in split_batches(index, "valid", batch)]
    assert again == [[tokens_of(part) for part in parts] for parts in by_number]


def test_a_split_without_samples_has_no_batches(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(monkeypatch, 0, 1)
    assert list(split_batches(index, "test", BatchConfig(global_size=8))) == []


def test_an_index_that_fits_is_opened(index: SampleIndex) -> None:
    held = len(index.split("train"))
    assert check_index(index.folder, MODEL, samples=held).folder == index.folder


def test_a_rank_opens_each_array_once(index: SampleIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    load = np.load

    def note(path: Path, **how: object) -> np.ndarray:
        opened.append(Path(path).name)
        return load(path, **how)

    be_rank(monkeypatch, 0, 1)
    monkeypatch.setattr(np, "load", note)
    again = check_index(index.folder, MODEL, samples=1)
    check_samples(again, TRAIN, index_step=2)
    open_feed(again, BatchConfig(global_size=8))
    assert opened
    assert sorted(opened) == sorted(path.name for path in index.folder.glob("*.npy"))


@pytest.mark.parametrize(
    ("change", "mesh", "samples", "message"),
    [
        (
            {"vocab_size": 299},
            Mesh(),
            1,
            "model.vocab_size: 299 is below the tokenizer's 300 tokens; give at least 300",
        ),
        (
            {"seq_len": 7},
            Mesh(),
            1,
            "model.seq_len: 7 is below the index's seq_len 8; give at least 8",
        ),
        (
            {"seq_len": 12},
            Mesh(context=3),
            1,
            "index: seq_len: 8 cannot be cut into 6 pieces, two for each context rank; "
            "build it with another",
        ),
        (
            {},
            Mesh(),
            1000,
            "index: steps x batch.global_size = 1000 samples, the index holds {held}; "
            "build it with train_samples: 1000",
        ),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    change: dict[str, int], mesh: Mesh, samples: int, message: str, index: SampleIndex
) -> None:
    model = MODEL.model_copy(update=change)
    with pytest.raises(UserError) as caught:
        check_index(Path(index.folder), model, samples=samples, mesh=mesh)
    assert str(caught.value) == message.format(held=len(index.split("train")))


def test_targets_after_an_end_of_document_can_be_left_out(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(monkeypatch, 0, 1)
    batch = BatchConfig(global_size=12, micro_size=4)
    eod = int(index.split("train")[0][2])
    (masked, *_), (plain, *_) = (
        list(open_feed(index, batch, ends=DocumentEnds(eod=eod, mask_eod=masked)).train(1))
        for masked in (True, False)
    )
    assert torch.equal(masked["tokens"], plain["tokens"])
    assert plain["loss_mask"].all()
    for row, mask in zip(masked["tokens"].tolist(), masked["loss_mask"].tolist(), strict=True):
        assert mask == [0.0 if token == eod else 1.0 for token in row]
    assert masked["loss_mask"].sum() < plain["loss_mask"].sum()


def test_resets_go_by_the_form_of_the_samples(index: SampleIndex) -> None:
    """Without a word concatenated samples stay as they are, and packed ones are taken apart."""
    known = {"eod": 7}
    plain = SampleIndex(index.folder, index.facts | known, index.tokens)
    packed = SampleIndex(index.folder, index.facts | {"packing": "best_fit"}, index.tokens)
    apart = DocumentResets(reset_attention_mask=True, reset_position_ids=True)
    together = DocumentResets(reset_attention_mask=False, reset_position_ids=False)
    resets = {"reset_positions": True, "reset_attention": True}
    assert document_ends(plain) == DocumentEnds(eod=7)
    assert document_ends(plain, apart) == DocumentEnds(eod=7, **resets)
    assert document_ends(packed) == DocumentEnds(**resets)
    assert document_ends(packed, together) == DocumentEnds()


@pytest.mark.parametrize("setting", ["mask_eod", "reset_attention_mask", "reset_position_ids"])
def test_ends_that_nothing_shows_are_refused(setting: str, index: SampleIndex) -> None:
    message = f"{setting}: {index.folder} knows no id that ends a document; tokenize with append_eo"
    asked = DocumentResets() if setting == "mask_eod" else DocumentResets(**{setting: True})
    with pytest.raises(UserError) as caught:
        document_ends(index, asked, mask_eod=setting == "mask_eod")
    assert str(caught.value).startswith(message)


def test_validation_keeps_documents_apart_and_counts_what_follows_them(
    index: SampleIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_rank(monkeypatch, 0, 1)
    eod = int(index.split("valid")[0][2])
    ends = DocumentEnds(eod=eod, mask_eod=True, reset_attention=True)
    opened = open_feed(index, BatchConfig(global_size=4, micro_size=4), ends=ends)
    (part,) = opened.validation(0)
    assert part["loss_mask"].all()
    assert part["documents"][0, :4].tolist() == [0, 0, 0, 1]
