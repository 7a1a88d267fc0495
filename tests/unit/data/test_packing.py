"""Packed samples against the documents themselves, piece by piece."""

import collections
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.data.build_index import IndexPlan, Source, build_sample_index
from megatron_jobs.data.cursor import NO_SAMPLE, DocumentEnds, read_batch
from megatron_jobs.data.packing import PackedOrder, build_packed_order
from megatron_jobs.data.sample_index import SampleIndex, SplitSamples
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.data.unigram import counted_targets
from megatron_jobs.errors import UserError

SEQ_LEN = 16
APART = DocumentEnds(reset_positions=True, reset_attention=True)


def make_tokens(prefix: Path, lengths: list[int]) -> TokenFile:
    """Token t of the whole file has id t: each is known again wherever it turns up."""
    with write_token_file(prefix, vocab_size=100_000) as writer:
        writer.add(range(sum(lengths)), lengths)
    return TokenFile.open(prefix)


def drawn_lengths(documents: int, seed: int = 0) -> list[int]:
    draw = np.random.default_rng(seed)
    return [0, 1, 2, SEQ_LEN, SEQ_LEN + 1, SEQ_LEN + 2, *draw.integers(0, 50, documents).tolist()]


def split_of(tokens: TokenFile, order: PackedOrder) -> SplitSamples:
    return SplitSamples(SEQ_LEN, [tokens], [order], None)


def packed(tokens: TokenFile, samples: int | None = None, seed: int = 3) -> PackedOrder:
    whole = range(len(tokens))
    return build_packed_order(tokens, whole, samples=samples, seq_len=SEQ_LEN, seed=seed)[0]


def test_every_token_but_a_documents_first_is_a_target_once(tmp_path: Path) -> None:
    lengths = drawn_lengths(200)
    tokens = make_tokens(tmp_path / "tokens", lengths)
    split = split_of(tokens, packed(tokens))
    batch = read_batch(split, range(len(split)), ends=APART)
    counted = batch["loss_mask"].astype(bool)
    pairs = list(zip(batch["tokens"][counted], batch["labels"][counted], strict=True))
    firsts = set(np.cumsum([0, *lengths[:-1]]).tolist())
    assert sorted(label for _, label in pairs) == [
        token for token in range(sum(lengths)) if token not in firsts
    ]
    assert all(label == token + 1 for token, label in pairs)
    assert sorted(counted_targets(split).tolist()) == sorted(label for _, label in pairs)


def test_documents_are_cut_only_where_longer_than_a_sample(tmp_path: Path) -> None:
    lengths = drawn_lengths(200)
    tokens = make_tokens(tmp_path / "tokens", lengths)
    order, facts = build_packed_order(
        tokens, range(len(lengths)), samples=None, seq_len=SEQ_LEN, seed=3
    )
    pieces = collections.defaultdict(list)
    for document, offset, length in zip(order.documents, order.offsets, order.lengths, strict=True):
        pieces[int(document)].append((int(offset), int(length)))
    for document, length in enumerate(lengths):
        found = sorted(pieces[document])
        assert len(found) == -(-max(length - 1, 0) // SEQ_LEN)
        assert all(offset == SEQ_LEN * place for place, (offset, _) in enumerate(found))
        assert all(size == SEQ_LEN + 1 for _, size in found[:-1])
        assert not found or sum(found[-1]) == length
    assert (facts.documents, facts.bins) == (len(lengths), len(order))
    assert facts.cut == sum(length > SEQ_LEN + 1 for length in lengths)
    assert facts.left_out == sum(length < 2 for length in lengths)
    rows = [order.read(tokens, sample, SEQ_LEN) for sample in range(len(order))]
    assert facts.padding == pytest.approx(np.mean(np.stack(rows) == -1))


def test_rows_say_what_is_of_one_piece(tmp_path: Path) -> None:
    """9 + 7 + 1 of padding, and 13: nothing else fits into 17."""
    tokens = make_tokens(tmp_path / "tokens", [9, 13, 7])
    split = split_of(tokens, packed(tokens))
    number = next(i for i in range(2) if split.pieces(i).max() == 1)
    batch = read_batch(split, [number, 1 - number, NO_SAMPLE], ends=APART)
    sizes = [9, 7] if batch["tokens"][0, 0] == 0 else [7, 9]
    first = [*[0] * sizes[0], *[1] * sizes[1]]
    assert batch["documents"].tolist() == [first, [0] * 13 + [-1] * 3, [-1] * 16]
    assert batch["documents"].dtype == np.int32
    ends = {sizes[0] - 1, 15}
    assert batch["loss_mask"][0].tolist() == [float(i not in ends) for i in range(16)]
    assert batch["loss_mask"][1].tolist() == [1.0] * 12 + [0.0] * 4
    places = [*range(sizes[0]), *range(sizes[1])]
    assert batch["positions"].tolist()[:2] == [places, [*range(13), *range(3)]]
    together = read_batch(split, [number])
    assert together["positions"].tolist() == [list(range(16))]
    assert together["loss_mask"].tolist() == batch["loss_mask"].tolist()[:1]
    assert "documents" not in together


def test_a_document_that_goes_on_has_a_target_at_the_cut(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", [2 * SEQ_LEN + 1])
    split = split_of(tokens, packed(tokens))
    batch = read_batch(split, range(2), ends=APART)
    assert batch["loss_mask"].tolist() == [[1.0] * SEQ_LEN] * 2
    assert sorted(batch["labels"].ravel().tolist()) == list(range(1, 2 * SEQ_LEN + 1))


def test_epochs_have_all_bins_in_orders_of_their_own(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", drawn_lengths(100))
    bins = len(packed(tokens))
    order = packed(tokens, samples=2 * bins + 1)
    epochs = np.asarray(order.shuffle).reshape(3, bins)
    assert (np.sort(epochs) == np.arange(bins)).all()
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 3
    again, other = packed(tokens, 2 * bins + 1), packed(tokens, 2 * bins + 1, seed=4)
    assert all(np.array_equal(getattr(order, n), getattr(again, n)) for n in vars(order))
    assert not np.array_equal(order.documents, other.documents)


def test_an_index_of_packed_samples(tmp_path: Path) -> None:
    """Two sources, blended by size: what is saved is what is read."""
    sources = []
    for name in ("a", "b"):
        tokens = make_tokens(tmp_path / name, drawn_lengths(60, seed=ord(name)))
        facts = TokenFacts.of_bare_file(
            tmp_path / name, documents=len(tokens), tokens=tokens.tokens
        )
        sources.append(Source(tmp_path / name, tokens, facts))
    plan = IndexPlan(
        split="1", seq_len=SEQ_LEN, seed=5, packing="best_fit",
        samples={"train": None, "valid": 0, "test": 0},
    )  # fmt: skip
    (tmp_path / "index").mkdir()
    build_sample_index(tmp_path / "index", sources, plan)
    index = SampleIndex.open(tmp_path / "index")
    train = index.split("train")
    assert index.packed
    assert train.packed
    fresh = [packed(source.tokens, seed=5) for source in sources]
    assert len(train) == sum(map(len, fresh))
    for place, (source, order) in enumerate(zip(sources, fresh, strict=True)):
        record = index.facts["splits"]["train"]["sources"][place]
        assert (record["epochs"], record["packing"]["bins"]) == (1, len(order))
        assert train.blend is not None
        own = [train[n].tolist() for n in range(len(train)) if train.blend[n][0] == place]
        assert own == [order.read(source.tokens, n, SEQ_LEN).tolist() for n in range(len(order))]


def test_documents_without_a_target_are_refused(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", [1, 0, 1])
    with pytest.raises(
        UserError, match="found 3 documents, none of more than one token, needs one"
    ):
        packed(tokens)
