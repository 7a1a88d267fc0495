"""Token files with documents taken out or added: those given before do not come first again."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.data.build_index import build_sample_index
from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.earlier import Note
from megatron_jobs.data.index_plan import IndexPlan, Source
from megatron_jobs.data.sample_index import SampleIndex, index_identity
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import DataError, UserError

SEQ_LEN = 16
PACKINGS = ("none", "best_fit")
LENGTHS = np.random.default_rng(0).integers(2, 60, 1000).tolist()


def make_source(
    prefix: Path, documents: Sequence[int], weight: float | None = 1.0, *, named: bool = True
) -> Source:
    """Documents of two sequences, by their numbers; every token of theirs is that number."""
    with write_token_file(prefix, vocab_size=1000) as writer:
        for number in documents:
            size = LENGTHS[number]
            writer.add_document([number] * size, [size // 2, size - size // 2])
    if named:
        with write_document_names(prefix) as names:
            names.add_names([f"document {number}" for number in documents])
    tokens = TokenFile.open(prefix)
    facts = TokenFacts.of_bare_file(prefix, documents=len(tokens), tokens=tokens.tokens)
    return Source(prefix, tokens, facts, weight)


def build(
    folder: Path, sources: Sequence[Source], samples: int | None, **changes: Any
) -> SampleIndex:
    folder.mkdir()
    wanted: Any = {"train": samples, "valid": 0, "test": 0}
    settings: dict[str, Any] = {"split": "1", "seq_len": SEQ_LEN, "seed": 3} | changes
    build_sample_index(folder, sources, IndexPlan(samples=wanted, **settings))
    return SampleIndex.open(folder)


def documents_of(index: SampleIndex, samples: int) -> set[int]:
    """The numbers of the documents that the first train samples are made of."""
    split = index.split("train")
    return {int(token) for sample in range(samples) for token in split[sample] if token >= 0}


def counts_of(index: SampleIndex) -> np.ndarray:
    """How many tokens of each document all samples that were built of its source train on."""
    split, counts = index.split("train"), np.zeros(1000, int)
    (order,), (file,) = split.orders, index.tokens
    for sample in range(len(order)):
        tokens = order.read(file, sample, SEQ_LEN)[: None if split.packed else -1]
        counts += np.bincount(tokens[tokens >= 0], minlength=1000)
    return counts


def behind(folder: Path, samples: int) -> dict[str, Any]:
    return {"earlier": folder, "earlier_samples": samples}


def note(index: SampleIndex, place: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = index.facts["earlier"]["sources"][place]
    return found


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("weight", [None, 1.0])
def test_no_document_comes_again_before_all_have_come(
    tmp_path: Path, packing: str, weight: float | None
) -> None:
    """Ten documents out and twenty new ones, then ten more out: each pass leaves out what came."""
    one = build(tmp_path / "1", [make_source(tmp_path / "a", range(200), weight)], None if weight is
                None else 300, packing=packing)  # fmt: skip
    came = documents_of(one, 50)
    kept = [*range(10, 200), *range(900, 920)]
    asked = None if weight is None else 60
    changed = make_source(tmp_path / "b", kept, weight)
    two = build(tmp_path / "2", [changed], asked, packing=packing, **behind(tmp_path / "1", 50))
    assert note(two)["left_out"] == len(came & set(kept)) > 50
    assert note(two)["documents"] == len(kept)
    first = documents_of(two, 40)
    assert not first & came
    again = make_source(tmp_path / "c", [n for n in kept if n not in range(50, 60)], weight)
    three = build(tmp_path / "3", [again], asked and 12, packing=packing,
                  **behind(tmp_path / "2", 40))  # fmt: skip
    last = documents_of(three, 12)
    assert not last & (came | first)
    assert note(three)["left_out"] == len((came | first) & set(kept) - set(range(50, 60)))
    assert index_identity(three.facts) != index_identity(two.facts)


@pytest.mark.parametrize("packing", PACKINGS)
def test_whole_passes_follow_the_first_one(tmp_path: Path, packing: str) -> None:
    """Every document that is left comes once, then all of them as often as each other."""
    one = build(tmp_path / "1", [make_source(tmp_path / "a", range(100))], 100, packing=packing)
    came = documents_of(one, 60)
    changed = make_source(tmp_path / "b", range(5, 100))
    settings = {"packing": packing}
    two = build(tmp_path / "2", [changed], 700, **settings, **behind(tmp_path / "1", 60))
    split, record = two.split("train"), two.facts["splits"]["train"]["sources"][0]
    once = counts_of(build(tmp_path / "once", [replace(changed, weight=None)], None, **settings))
    wanted = (record["epochs"] - 1) * once
    left = [n for n in range(5, 100) if n not in came]
    wanted[left] += once[left]
    assert record["epochs"] >= 3
    assert 0 < len(left) < 90
    assert np.abs(counts_of(two) - wanted).sum() <= record["epochs"] * SEQ_LEN  # ends of streams
    more = build(tmp_path / "3", [changed], 900, **settings, **behind(tmp_path / "2", 650))
    shown = [split[n].tolist() for n in range(650, len(split))]
    assert [more.split("train")[n].tolist() for n in range(len(shown))] == shown
    assert len(more.split("train")) >= 900
    assert np.array_equal(counts_of(more) > 0, once > 0)
    rows = more.split("train").orders[0].shuffle[len(shown) :]
    assert min(rows.tolist()) >= record["lead"] if packing == "best_fit" else True


def test_a_source_that_was_left_out_is_known_again_too(tmp_path: Path) -> None:
    a, b = make_source(tmp_path / "a", range(100)), make_source(tmp_path / "b", range(200, 300))
    came = documents_of(build(tmp_path / "1", [a, b], 100), 60) & set(range(100))
    build(tmp_path / "2", [b], 50, **behind(tmp_path / "1", 60))
    changed = make_source(tmp_path / "c", range(90))
    three = build(tmp_path / "3", [b, changed], 40, **behind(tmp_path / "2", 50))
    assert note(three, 1)["left_out"] == len(came & set(range(90))) > 0
    facts = json.loads((tmp_path / "3/index.json").read_text())
    assert facts["earlier"]["left_out"] == ["../a"] or facts["earlier"]["left_out"][0].endswith("a")


def test_documents_of_other_splits_are_counted(tmp_path: Path) -> None:
    """What was trained on and now stands among the held out ones."""
    split = {"split": "50,50"}
    build(tmp_path / "1", [make_source(tmp_path / "a", range(100))], 200, **split)
    changed = make_source(tmp_path / "b", range(99, -1, -1))
    two = build(tmp_path / "2", [changed], 50, **split, **behind(tmp_path / "1", 200))
    assert (note(two)["left_out"], note(two)["held_out"]) == (0, 50)
    assert str(Note(**note(two))).endswith("of its valid and test documents 50 were trained on")


def test_what_is_said_of_each_source(tmp_path: Path) -> None:
    a, bare = make_source(tmp_path / "a", range(50)), {"named": False}
    build(tmp_path / "1", [a], 200)
    sources = [
        a,
        make_source(tmp_path / "b", range(10, 40)),
        make_source(tmp_path / "c", range(500, 550)),
        make_source(tmp_path / "d", range(20), **bare),
    ]
    two = build(tmp_path / "2", sources, 40, **behind(tmp_path / "1", 10))
    assert [str(Note(**said)) for said in two.facts["earlier"]["sources"]] == [
        "a: goes on behind 10 samples",
        "b: new",  # nothing is known of it as long as its documents are those of `a`, which stays
        "c: new",
        "d: new; without names, no document given before is known again",
    ]
    three = build(tmp_path / "3", sources[1:2], 9, **behind(tmp_path / "1", 200))
    assert str(Note(**note(three))) == (
        "b: another file; 30 of its 30 train documents were given before and are left out of its "
        "first pass"
    )


def test_an_index_that_shares_nothing_must_be_asked_for(tmp_path: Path) -> None:
    a, b = make_source(tmp_path / "a", range(50)), make_source(tmp_path / "b", range(100, 150))
    build(tmp_path / "1", [a], 60)
    with pytest.raises(
        UserError, match="1 has none of this index's token files, and no document k"
    ):
        build(tmp_path / "2", [b], 20, **behind(tmp_path / "1", 30))
    asked = build(tmp_path / "3", [b], 20, only_new_sources=True, **behind(tmp_path / "1", 30))
    assert asked.facts["splits"]["train"]["left_out"][0]["first"] == 30


@pytest.mark.parametrize("packing", PACKINGS)
def test_all_documents_given_need_a_weight(tmp_path: Path, packing: str) -> None:
    """More than one pass over them, and less than two."""
    a, settings = make_source(tmp_path / "a", range(50), None), {"packing": packing}
    build(tmp_path / "1", [a], 150, **settings)
    changed = make_source(tmp_path / "b", range(40), None)
    with pytest.raises(
        UserError, match=r"has given all 80 documents of .*/b; give weights to go thr"
    ):
        build(tmp_path / "2", [changed], None, **settings, **behind(tmp_path / "1", 150))


def test_a_name_with_another_size_is_another_document(tmp_path: Path) -> None:
    """As where names are lines of a file, and a line was taken out."""
    build(tmp_path / "1", [make_source(tmp_path / "a", range(50))], 200)
    changed = make_source(tmp_path / "b", range(1, 51))
    with write_document_names(tmp_path / "b") as names:
        names.add_names([f"document {number}" for number in range(50)])
    two = build(tmp_path / "2", [changed], 9, only_new_sources=True, **behind(tmp_path / "1", 200))
    alike = sum(LENGTHS[number] == LENGTHS[number + 1] for number in range(50))
    assert note(two)["left_out"] == alike < 10


@pytest.mark.parametrize("change", ["gone", "other", "nameless"])
def test_the_old_file_must_still_be_there(tmp_path: Path, change: str) -> None:
    """Its names are in no index."""
    build(tmp_path / "1", [make_source(tmp_path / "a", range(50))], 60)
    if change == "other":
        make_source(tmp_path / "a", range(49))
    else:
        (tmp_path / ("a.idx" if change == "gone" else "a.names")).unlink()
    with pytest.raises(UserError, match="no document known by its name; set only_new_sources"):
        build(
            tmp_path / "2", [make_source(tmp_path / "b", range(40))], 9, **behind(tmp_path / "1", 9)
        )


def test_names_of_another_file_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "1", [make_source(tmp_path / "a", range(50))], 60)
    changed = make_source(tmp_path / "b", range(40))
    with write_document_names(tmp_path / "b") as names:
        names.add_names(["x"])
    with pytest.raises(
        DataError, match=r"b\.names: found 1 names for 40 documents; tokenize again"
    ):
        build(tmp_path / "2", [changed], 9, **behind(tmp_path / "1", 9))
