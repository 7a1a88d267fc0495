"""Runs that change their mix: no sample of a source comes twice, each source's order goes on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.config.curriculum import Curriculum, Phase
from megatron_jobs.data.build_index import IndexPlan, Source, build_sample_index
from megatron_jobs.data.sample_index import SampleIndex, SplitSamples, index_identity
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import UserError

SEQ_LEN = 16
LIMIT = 1 << 20
PACKINGS = ("none", "best_fit")


def make_tokens(prefix: Path, documents: int, seed: int) -> TokenFile:
    """A file whose tokens are all different, so that a sample is known by its first one."""
    lengths = np.random.default_rng(seed).integers(2, 60, documents)
    with write_token_file(prefix, vocab_size=LIMIT) as writer:
        writer.add(np.arange(lengths.sum()) + seed * 100_000, lengths.tolist())
    return TokenFile.open(prefix)


def make_source(prefix: Path, weight: float | None, seed: int, documents: int = 400) -> Source:
    tokens = TokenFile.open(prefix) if Path(f"{prefix}.idx").exists() else None
    tokens = tokens or make_tokens(prefix, documents, seed)
    facts = TokenFacts.of_bare_file(prefix, documents=len(tokens), tokens=tokens.tokens)
    return Source(prefix, tokens, facts, weight)


def build(
    folder: Path, sources: Sequence[Source], samples: int | None, **changes: Any
) -> SampleIndex:
    folder.mkdir()
    wanted: Any = {"train": samples, "valid": changes.pop("valid", 0), "test": 0}
    settings: dict[str, Any] = {"split": "90,10", "seq_len": SEQ_LEN, "seed": 3} | changes
    build_sample_index(folder, sources, IndexPlan(samples=wanted, **settings))
    return SampleIndex.open(folder)


def rows_of(split: SplitSamples, samples: int) -> list[tuple[str, int]]:
    """(source, its row) of each sample: a row is a stretch of the stream, or a bin."""
    found = []
    for sample in range(samples):
        source, number = (0, sample) if split.blend is None else split.blend[sample]
        row = int(split.orders[source].shuffle[number])
        found.append((split.tokens[source].prefix.name, row))
    return found


@pytest.mark.parametrize("packing", PACKINGS)
def test_no_sample_comes_twice_over_three_mixes(tmp_path: Path, packing: str) -> None:
    """Other weights and a new source, then a source left out, then the one that comes back."""
    a, b, c = (make_source(tmp_path / name, 1.0, i) for i, name in enumerate("abc"))

    def weighted(**weights: float) -> list[Source]:
        known = {"a": a, "b": b, "c": c}
        return [
            Source(known[n].prefix, known[n].tokens, known[n].facts, w) for n, w in weights.items()
        ]

    one = build(tmp_path / "1", weighted(a=3, b=1), 200, packing=packing)
    two = build(
        tmp_path / "2", weighted(c=1, b=1, a=1), 200, packing=packing,
        earlier=tmp_path / "1", earlier_samples=120,
    )  # fmt: skip
    three = build(
        tmp_path / "3", weighted(c=3, b=1), 200, packing=packing,
        earlier=tmp_path / "2", earlier_samples=90,
    )  # fmt: skip
    four = build(
        tmp_path / "4", weighted(b=1, a=4), 100, packing=packing,
        earlier=tmp_path / "3", earlier_samples=50,
    )  # fmt: skip
    read = [(one, 120), (two, 90), (three, 50), (four, 100)]
    rows = [row for index, taken in read for row in rows_of(index.split("train"), taken)]
    assert len(rows) == len(set(rows)) == 360
    firsts = {source.prefix.name: 0 for source in (a, b, c)}
    for index, taken in read:
        record = index.facts["splits"]["train"]["sources"]
        names = [tokens.prefix.name for tokens in index.tokens]
        assert {n: r["first"] for n, r in zip(names, record, strict=True)} == {
            name: firsts[name] for name in names
        }
        for name, _ in rows_of(index.split("train"), taken):
            firsts[name] += 1


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_order_of_a_source_goes_on_unchanged(tmp_path: Path, packing: str) -> None:
    a = make_source(tmp_path / "a", 1.0, 0)
    one = build(tmp_path / "1", [a], 300, packing=packing)
    two = build(
        tmp_path / "2", [a], 150, packing=packing, earlier=tmp_path / "1", earlier_samples=130
    )
    before, after = one.split("train"), two.split("train")
    for number in range(150):
        assert after[number].tolist() == before[130 + number].tolist()


@pytest.mark.parametrize("packing", PACKINGS)
def test_further_epochs_follow_when_a_source_runs_out(tmp_path: Path, packing: str) -> None:
    """Every row of the old epoch comes before the first row of the new ones."""
    a = make_source(tmp_path / "a", None, 0, documents=100)
    one = build(tmp_path / "1", [a], None, packing=packing)
    once = len(one.split("train"))
    two = build(
        tmp_path / "2", [a], 3 * once, packing=packing, earlier=tmp_path / "1", earlier_samples=40
    )
    split = two.split("train")
    assert len(split) >= 3 * once
    rows = rows_of(one.split("train"), 40) + rows_of(split, len(split))
    assert len(set(rows[:once])) == once
    if packing == "none":
        assert len(set(rows)) == len(rows)
        tokens = np.concatenate([split[n][:-1] for n in range(len(split))])
        counts = np.unique(np.unique(tokens, return_counts=True)[1])
        assert counts.max() <= 4
        assert two.facts["splits"]["train"]["sources"][0]["epochs"] == 4
    else:
        epochs = [rows[i : i + once] for i in range(0, len(rows), once)]
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


def test_the_stream_of_tokens_goes_on_between_epochs(tmp_path: Path) -> None:
    """Rows in stream order join without a gap, over the end of the first index too."""
    a = make_source(tmp_path / "a", None, 0, documents=60)
    one = build(tmp_path / "1", [a], None)
    once = len(one.split("train"))
    two = build(tmp_path / "2", [a], 2 * once, earlier=tmp_path / "1", earlier_samples=once // 2)
    order, (tokens,) = two.split("train").orders[0], two.tokens
    stream = np.concatenate([tokens.read(int(document)) for document in order.documents])
    for number in range(len(order)):
        row = int(order.shuffle[number])
        wanted = stream[row * SEQ_LEN : (row + 1) * SEQ_LEN + 1]
        assert two.split("train")[number].tolist() == wanted.tolist()
    old = one.split("train").orders[0].documents
    assert order.documents[: len(old)].tolist() == old.tolist()


def test_after_phases(tmp_path: Path) -> None:
    sources = [make_source(tmp_path / name, None, i) for i, name in enumerate("ab")]
    phases = [Phase(until=0.5, weights=[1, 0]), Phase(until=1, weights=[1, 1])]
    one = build(tmp_path / "1", sources, 100, phases=phases)
    for taken in (0, 30, 50, 71, 100):
        weighted = [Source(s.prefix, s.tokens, s.facts, 1.0) for s in sources]
        folder = tmp_path / f"after-{taken}"
        two = build(folder, weighted, 80, earlier=tmp_path / "1", earlier_samples=taken)
        rows = rows_of(one.split("train"), taken) + rows_of(two.split("train"), 80)
        assert len(rows) == len(set(rows))


def test_a_file_that_is_named_twice_goes_on_behind_both(tmp_path: Path) -> None:
    a = make_source(tmp_path / "a", 1.0, 0)
    twice = [a, Source(a.prefix, a.tokens, a.facts, 3.0)]
    one = build(tmp_path / "1", twice, 100)
    two = build(tmp_path / "2", [a], 50, earlier=tmp_path / "1", earlier_samples=100)
    assert two.facts["splits"]["train"]["sources"][0]["first"] == 75
    assert not set(rows_of(one.split("train"), 100)) & set(rows_of(two.split("train"), 50))


def test_a_file_that_is_named_twice_does_not_go_on_twice(tmp_path: Path) -> None:
    a = make_source(tmp_path / "a", 1.0, 0)
    build(tmp_path / "1", [a], 100)
    with pytest.raises(UserError, match=r"/a and .*/a are one file, .*; name it once and add up"):
        build(tmp_path / "2", [a, a], 50, earlier=tmp_path / "1", earlier_samples=100)


def test_token_files_of_sources_left_out_may_be_gone(tmp_path: Path) -> None:
    a, b = (make_source(tmp_path / name, 1.0, i) for i, name in enumerate("ab"))
    build(tmp_path / "1", [a, b], 100)
    for suffix in ("bin", "idx"):
        (tmp_path / f"a.{suffix}").unlink()
    two = build(tmp_path / "2", [b], 40, earlier=tmp_path / "1", earlier_samples=100)
    assert two.facts["splits"]["train"]["sources"][0]["first"] == 50
    assert two.facts["splits"]["train"]["left_out"][0]["first"] == 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"earlier_samples": 302},
            r"earlier_samples: 302 of the train split of .*/1, which has 301",
        ),
        (
            {"seq_len": 8},
            r"earlier: .*/1 has seq_len 16, this index 8; its samples go on only with",
        ),
        ({"packing": "best_fit"}, r"earlier: .*/1 has packing none, this index best_fit; its samp"),
        ({"split": "80,20"}, r"earlier: .*/1 has split 90,10, this index 80,20; its samples go on"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    a = make_source(tmp_path / "a", 1.0, 0)
    assert len(build(tmp_path / "1", [a], 301).split("train")) == 301
    with pytest.raises(UserError, match=message):
        build(tmp_path / "2", [a], 10, earlier=tmp_path / "1", **{"earlier_samples": 5} | changes)


def test_a_source_that_gave_all_needs_a_weight(tmp_path: Path) -> None:
    a, b = (make_source(tmp_path / name, None, i, documents=50) for i, name in enumerate("ab"))
    one = build(tmp_path / "1", [a], None)
    held = len(one.split("train"))
    with pytest.raises(UserError, match=f"tokens: .*a has given all its {held} samples; give wei"):
        build(tmp_path / "2", [a, b], None, earlier=tmp_path / "1", earlier_samples=held)


def test_the_index_says_what_it_follows(tmp_path: Path) -> None:
    a = make_source(tmp_path / "a", 1.0, 0)
    build(tmp_path / "1", [a], 50)
    build(tmp_path / "2", [a], 50, earlier=tmp_path / "1", earlier_samples=50, valid=10)
    facts = json.loads((tmp_path / "2/index.json").read_text())
    before = index_identity(json.loads((tmp_path / "1/index.json").read_text()))
    said = {"source": "a", "samples": 50, "documents": 0, "left_out": 0, "held_out": 0}
    assert facts["earlier"] == {
        "index": "../1",
        "identity": before,
        "samples": 50,
        "sources": [said | {"named": True}],
        "left_out": [],
    }
    assert facts["splits"]["valid"]["sources"][0]["first"] == 0


def test_an_index_is_known_again_wherever_it_lies(tmp_path: Path) -> None:
    """Not by its paths or other splits; by its sources, seed, weights, scores, what it follows."""
    a, other = (make_source(tmp_path / name, 1.0, i) for i, name in enumerate("ab"))
    (tmp_path / "copy").mkdir()
    for suffix in ("bin", "idx"):
        (tmp_path / f"copy/a.{suffix}").write_bytes((tmp_path / f"a.{suffix}").read_bytes())
    copy = make_source(tmp_path / "copy/a", 1.0, 0)
    one = index_identity(build(tmp_path / "1", [a], 50).facts)
    same = [
        build(tmp_path / "copy/1", [copy], 50),
        build(tmp_path / "2", [a], 50, valid=5),
    ]
    named = ("one", "two")
    for name, numbers in zip(named, np.random.default_rng(0).random((2, 400)), strict=True):
        np.save(tmp_path / f"{name}.npy", numbers)
    scored = [Source(a.prefix, a.tokens, a.facts, 1.0, tmp_path / f"{name}.npy") for name in named]
    by_score = Curriculum(by="score")
    others = [
        build(tmp_path / "one", scored[:1], 50, curriculum=by_score),
        build(tmp_path / "two", scored[1:], 50, curriculum=by_score),
        build(tmp_path / "3", [a], 50, seed=4),
        build(tmp_path / "4", [other], 50),
        build(tmp_path / "5", [a, other], 50),
        build(tmp_path / "6", [a], 50, earlier=tmp_path / "1", earlier_samples=10),
        build(tmp_path / "7", [a], 50, earlier=tmp_path / "1", earlier_samples=11),
        build(tmp_path / "8", [a], 50, earlier=tmp_path / "3", earlier_samples=10),
    ]
    assert {index_identity(index.facts) for index in same} == {one}
    identities = {index_identity(index.facts) for index in others}
    assert len(identities) == len(others)
    assert one not in identities
