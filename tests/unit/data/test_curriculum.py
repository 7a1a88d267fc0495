"""Orders from easy to hard against the documents' own scores, one sample at a time."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from megatron_jobs.config.curriculum import Curriculum
from megatron_jobs.data import difficulty
from megatron_jobs.data.curriculum import build_paced_order, competence, draw_epochs, pace_packed
from megatron_jobs.data.difficulty import document_scores
from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.packing import build_packed_order
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import DataError, UserError

SEQ_LEN = 16
LINEAR = Curriculum(pacing="linear", start=0.1, until=0.5)
ROOT = Curriculum(start=0.1, until=1.0)
SCORES = Curriculum(by="score", key="metadata.perplexity")


def make_tokens(prefix: Path, documents: int = 300) -> TokenFile:
    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 40, documents)
    ids = draw.zipf(1.3, lengths.sum()) % 500
    with write_token_file(prefix, vocab_size=500) as writer:
        writer.add(ids, lengths.tolist())
    return TokenFile.open(prefix)


def test_competence_is_the_papers() -> None:
    """Eq. 5 and 7 at t = T / 4: 0.1 + 0.9 / 4, and the root of 0.01 + 0.99 / 4."""
    quarter = np.array([0.0, 0.25, 1.0, 2.0])
    assert competence(LINEAR, quarter) == pytest.approx([0.1, 0.325, 1, 1])
    assert competence(ROOT, quarter) == pytest.approx([0.1, math.sqrt(0.2575), 1, 1])


@pytest.mark.parametrize("pacing", [LINEAR, ROOT])
@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_is_drawn_before_its_time(pacing: Curriculum, seed: int) -> None:
    """Each sample once an epoch, of rank below the competence of its moment."""
    ranked = [np.arange(1000, 1400), np.arange(2000, 2400)]
    drawn = draw_epochs(ranked, pacing, samples=800, seed=seed)
    epochs = drawn.reshape(2, 400)
    for epoch, values in enumerate(ranked):
        assert sorted(epochs[epoch].tolist()) == values.tolist()
        shares = (np.arange(400) + 400 * epoch) / (800 * pacing.until)
        reach = np.ceil(400 * competence(pacing, shares))
        left = np.maximum(reach, np.arange(1, 401))
        assert (epochs[epoch] - values[0] < left).all()
    second = float(np.mean(epochs[1][:100] - 2000))
    assert second == pytest.approx(200 * competence(pacing, shares[:1])[0], abs=35), "goes on"
    early = int((np.diff(epochs[0][:100]) < 0).sum())
    assert 30 < early < 70, "among those in reach there is no order"


def test_orders_depend_on_the_seed_alone() -> None:
    ranked = [np.arange(50)] * 2
    orders = [draw_epochs(ranked, ROOT, samples=None, seed=s).tolist() for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:50] != orders[0][50:]


def test_a_slow_curriculum_takes_the_next_easiest() -> None:
    """Three epochs, all within a curriculum that opens only at the end of the third."""
    slow = Curriculum(pacing="linear", start=0.01, until=1.0)
    first = draw_epochs([np.arange(90)] * 3, slow, samples=270, seed=0)[:90]
    assert np.abs(first - np.arange(90)).max() <= 1


def score_of(tokens: TokenFile, by: str) -> list[float]:
    """Counted by hand."""
    rows = [tokens.read(i).tolist() for i in range(len(tokens))]
    counts = Counter(token for row in rows for token in row)
    total = sum(counts.values())
    if by == "length":
        return [float(len(row)) for row in rows]
    return [
        sum(-math.log(counts[t] / total) for t in row) / len(row) if row else 0.0 for row in rows
    ]


@pytest.mark.parametrize("by", ["length", "rarity"])
@pytest.mark.parametrize("look", [1, 50, 1 << 20])
def test_scores_equal_counting_by_hand(
    by: str, look: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(difficulty, "LOOK_TOKENS", look)
    tokens = make_tokens(tmp_path / "tokens")
    found = document_scores(tokens, range(len(tokens)), Curriculum(by=by))  # type: ignore[arg-type]
    np.testing.assert_allclose(found, score_of(tokens, by), rtol=1e-12)
    part = document_scores(tokens, range(7, 90), Curriculum())
    assert part.tolist() == score_of(tokens, "length")[7:90]


def test_scores_of_a_file(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 5)
    path = tmp_path / "scores.npy"
    np.save(path, np.array([3, 1, 4, 1, 5], np.float32))
    assert document_scores(tokens, range(1, 4), SCORES, path).tolist() == [1, 4, 1]
    with pytest.raises(UserError, match=r"has none; curriculum\.by: score needs them"):
        document_scores(tokens, range(5), SCORES)
    bad: list[tuple[NDArray[np.generic], str]] = [
        (np.ones(4), r"found float64 \[4\], must be a number for each of 5 documents"),
        (np.array(["a"] * 5), "must be a number for each of 5 documents"),
        (np.array([1, 2, np.nan, 4, 5]), "document 2: found nan, must be finite"),
    ]
    for values, message in bad:
        np.save(path, values)
        with pytest.raises(DataError, match=message):
            document_scores(tokens, range(5), SCORES, path)
    path.write_text("3 1 4 1 5")
    with pytest.raises(DataError, match=r"scores\.npy: not a \.npy of numbers"):
        document_scores(tokens, range(5), SCORES, path)


def test_scores_of_records(tmp_path: Path) -> None:
    """By their names, in order; lines that became no document are passed over."""
    tokens = make_tokens(tmp_path / "tokens", 4)
    with write_document_names(tmp_path / "tokens") as writer:
        writer.add_names(["a", "7", "rows.jsonl:5", "d"])
    lines = [
        '{"id": "a", "metadata": {"perplexity": 2.5}}',
        '{"id": "rejected", "metadata": {"perplexity": "none"}}',
        "no JSON",
        '{"id": 7, "metadata": {"perplexity": 3}}',
        '{"metadata": {"perplexity": 0.5}}',
        '{"id": "d", "metadata": {"perplexity": 1}}',
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    assert document_scores(tokens, range(4), SCORES, path).tolist() == [2.5, 3, 0.5, 1]
    path.write_text("\n".join([*lines[:5], '{"id": "d", "metadata": {}}']))
    with pytest.raises(DataError, match=r"rows\.jsonl:6: metadata\.perplexity: found None, must b"):
        document_scores(tokens, range(4), SCORES, path)
    path.write_text("\n".join(lines[:5]))
    with pytest.raises(DataError, match=r"document 3, 'd', is not found; give the records that"):
        document_scores(tokens, range(4), SCORES, path)


@pytest.mark.parametrize("order", [["a", "b", "a"], ["a", "a", "b"], ["b", "a", "a"]])
def test_a_rejected_record_lends_no_document_its_score(tmp_path: Path, order: list[str]) -> None:
    """Two records of one id, one document of that name: it may be either."""
    tokens = make_tokens(tmp_path / "tokens", 2)
    with write_document_names(tmp_path / "tokens") as writer:
        writer.add_names(sorted(set(order), key=order.index))
    path = tmp_path / "rows.jsonl"
    lines = [
        f'{{"id": "{name}", "metadata": {{"perplexity": {n}}}}}' for n, name in enumerate(order)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"'a' names more records than documents, so which became"):
        document_scores(tokens, range(2), SCORES, path)


def test_sentences_have_no_scores(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", 4)
    with write_document_names(tmp_path / "tokens") as writer:
        writer.add_names(["a"])
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "metadata": {"perplexity": 2}}')
    with pytest.raises(DataError, match="found 1 documents of 4 sequences; sentences have no sco"):
        document_scores(tokens, range(4), SCORES, tmp_path / "rows.jsonl")


def test_a_concatenated_epoch_goes_from_easy_to_hard(tmp_path: Path) -> None:
    """Rows of an epoch, ranked, hold documents of rising length, and together all tokens."""
    tokens = make_tokens(tmp_path / "tokens")
    part = range(10, 260)
    scores = document_scores(tokens, part, Curriculum())
    order, epochs = build_paced_order(
        tokens, part, scores, LINEAR, samples=500, seq_len=SEQ_LEN, seed=1
    )
    assert len(order) >= 500
    visits = np.asarray(order.documents).reshape(epochs, len(part))
    assert (np.sort(visits) == np.arange(10, 260)).all()
    assert (np.diff(tokens.lengths[visits], axis=1) >= 0).all()
    assert sorted(order.shuffle.tolist()) == list(range(len(order)))
    epochs_of_rows = order.starts[order.shuffle][:, 0] // len(part)
    assert (np.diff(epochs_of_rows) >= 0).all(), "no epoch begins before the last one is over"
    first = [int(tokens.lengths[order.documents[order.starts[row][0]]]) for row in order.shuffle]
    epoch = len(order) // epochs
    assert np.mean(first[:50]) < np.mean(first[epoch - 50 : epoch]) / 1.5
    assert order.read(tokens, 0, SEQ_LEN).shape == (SEQ_LEN + 1,)
    falling = LINEAR.model_copy(update={"descending": True})
    order, _ = build_paced_order(tokens, part, scores, falling, samples=9, seq_len=SEQ_LEN, seed=1)
    assert (np.diff(tokens.lengths[order.documents]) <= 0).all()


def test_packed_bins_come_by_the_mean_of_their_tokens(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens")
    part = range(10, 260)
    plain, facts = build_packed_order(tokens, part, samples=200, seq_len=SEQ_LEN, seed=1)
    scores = np.random.default_rng(1).random(len(part))
    paced = pace_packed(plain, part, scores, LINEAR, samples=200, seed=1)
    assert len(paced) == len(plain)
    means = []
    for sample in range(facts.bins):
        pieces = paced.pieces(sample)
        lengths = paced.lengths[pieces]
        means.append(float((scores[paced.documents[pieces] - 10] * lengths).sum() / lengths.sum()))
    ranks = np.argsort(np.argsort(means))
    shares = np.arange(facts.bins) / (200 * LINEAR.until)
    reach = np.ceil(facts.bins * competence(LINEAR, shares))
    assert (ranks < np.maximum(reach, np.arange(1, facts.bins + 1))).all()
