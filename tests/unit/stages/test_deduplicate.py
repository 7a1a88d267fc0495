"""The whole chain: what goes, what stays, that nothing is lost; spans cut after their first."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import deduplicate
from megatron_jobs.text.copies.in_memory import find_copies
from tests.unit.stages.copies import book_texts, planted_corpus, records_of, run_chain


def test_copies_go_and_all_else_stays(tmp_path: Path) -> None:
    records = planted_corpus(tmp_path / "in")
    numbers = run_chain(tmp_path / "in", tmp_path)
    kept, gone = (records_of(tmp_path / "deduplicate", kind) for kind in ("documents", "rejected"))
    assert numbers["records_in"] == len(kept) + len(gone) + 3 == 163
    place = {record["id"]: i for i, record in enumerate(records)}
    assert [record["id"] for record in kept] == sorted(
        (r["id"] for r in kept), key=place.__getitem__
    )
    by_id = {record["id"]: record for record in records}
    for record in gone:
        verdict = record["verdict"]
        assert verdict["rule"] == "duplicate.minhash"
        assert place[verdict["found"]["kept"]] < place[record["id"]]
        assert verdict["found"]["size"] == 2
        assert verdict["found"]["kept"] in (record["id"][5:], f"copy-{record['id']}")
    assert all(record["text"] == by_id[record["id"]]["text"] for record in [*kept, *gone])
    labels = find_copies([record["text"] for record in records]).tolist()
    found = {record["id"] for i, record in enumerate(records) if labels[i] != i}
    assert {record["id"] for record in gone} == found
    assert len(gone) > 30


@pytest.mark.parametrize(("tasks", "ranks"), [(3, 2), (16, 4)])
def test_tasks_and_ranks_change_nothing(tmp_path: Path, tasks: int, ranks: int) -> None:
    planted_corpus(tmp_path / "in", originals=60)
    one = run_chain(tmp_path / "in", tmp_path / "one")
    assert run_chain(tmp_path / "in", tmp_path / "many", tasks=tasks, ranks=ranks) == one
    for name in deduplicate.OUTPUTS:
        hashes = {tree_hash(tmp_path / which / "deduplicate" / name) for which in ("one", "many")}
        assert len(hashes) == 1, name


def write(folder: Path, texts: list[str]) -> Path:
    folder.mkdir()
    lines = [json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("method", ["minhash", "simhash", "exact", "line", "sentence"])
def test_little_and_empty_texts(tmp_path: Path, method: str) -> None:
    """More tasks and ranks than there is work for."""
    texts = ["x", "", "x", "?!", "x", "a b c d e f", " "]
    for name, tasks, ranks in (("one", 1, 1), ("many", 3, 3)):
        corpus = write(tmp_path / f"in-{name}", texts)
        run_chain(corpus, tmp_path / name, tasks=tasks, ranks=ranks, method=method, least_letters=1)
        kept = records_of(tmp_path / name / "deduplicate")
        assert [record["id"] for record in kept] == ["0", "1", "3", "5", "6"]
        assert [record["text"] for record in kept] == ["x", "", "?!", "a b c d e f", " "]


def test_documents_with_the_same_letters(tmp_path: Path) -> None:
    texts = ["One, two.", "Three four", "one TWO", "", "", "ONE 2", "one 33", "three fóur!"]
    run_chain(write(tmp_path / "in", texts), tmp_path, method="exact")
    assert [r["id"] for r in records_of(tmp_path / "deduplicate")] == ["0", "1", "3", "4", "5"]
    gone = records_of(tmp_path / "deduplicate", "rejected")
    verdicts = {r["id"]: r["verdict"]["found"]["kept"] for r in gone}
    assert verdicts == {"2": "0", "6": "5", "7": "1"}
    assert {r["verdict"]["rule"] for r in gone} == {"duplicate.exact"}


def test_simhash_finds_copies_too(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in")
    run_chain(tmp_path / "in", tmp_path, method="simhash", ngram=2, differing_bits=6, blocks=8)
    gone = records_of(tmp_path / "deduplicate", "rejected")
    right = [r for r in gone if r["verdict"]["found"]["kept"] in (r["id"][5:], f"copy-{r['id']}")]
    assert len(right) == len(gone) > 20


@pytest.mark.parametrize("method", ["line", "paragraph", "sentence"])
def test_repeated_spans_are_cut_after_their_first(tmp_path: Path, method: str) -> None:
    between = {"line": "\n", "paragraph": "\n\n", "sentence": " "}[method]
    words = "".join(book_texts()[:40]).split()
    spans = [" ".join(words[i : i + 12]).strip(".?! ") + "." for i in range(0, 1200, 12)]
    spans = [span.replace("! ", ", ").replace("? ", ", ").replace(". ", ", ") for span in spans]
    texts = [between.join(spans[i : i + 5]) for i in range(0, 95, 3)]  # overlaps of two
    texts += [spans[1], between.join([spans[0], "Short one.", spans[2], "Short one."])]
    run_chain(write(tmp_path / "in", texts), tmp_path, ranks=2, method=method, least_letters=20)
    wanted, seen = [], Counter[str]()
    for i, text in enumerate(texts):
        left = []
        for span in text.split(between) if method != "sentence" else _sentences(text):
            again = seen[_letters(span)] and len(_letters(span)) >= 20
            seen[_letters(span)] += 1
            left += [] if again else [span]
        wanted.append((str(i), left))
    kept = {r["id"]: r["text"] for r in records_of(tmp_path / "deduplicate")}
    gone = {r["id"]: r["verdict"] for r in records_of(tmp_path / "deduplicate", "rejected")}
    for name, left in wanted:
        whole = between.join(left)
        if name in gone:
            assert gone[name] == {"rule": f"duplicate.{method}", "found": len(whole), "limit": 100}
            assert len(whole) < 100
        else:
            assert kept[name] == whole
    assert len(gone) == 2
    assert sum(map(len, kept.values())) < 0.7 * sum(map(len, texts))


def _sentences(text: str) -> list[str]:
    return [part + "." for part in text.rstrip(".").split(". ")]


def _letters(span: str) -> str:
    kept = "".join(c.lower() if c.isalnum() else " " for c in span)
    return " ".join(kept.split())


def run(tmp_path: Path, **settings: Any) -> None:
    config = deduplicate.Config(removals=tmp_path / "cluster/removals", **settings)
    deduplicate.run(config, Rank(), tmp_path / "again")


def test_another_input_is_refused(tmp_path: Path) -> None:
    planted_corpus(tmp_path / "in", originals=30)
    run_chain(tmp_path / "in", tmp_path)
    wrong = r"found 1 units, other than the \d+ of .*removals; give the input and the unit_mb"
    with pytest.raises(DataError, match=wrong):
        run(tmp_path, input=(tmp_path / "in",))
    with pytest.raises(DataError, match=r"has no about\.json; give the removals of a cluster job"):
        config = deduplicate.Config(input=(tmp_path / "in",), removals=tmp_path / "in")
        deduplicate.run(config, Rank(), tmp_path / "none")


@pytest.mark.parametrize("method", ["minhash", "paragraph"])
def test_what_is_read_otherwise_is_refused(tmp_path: Path, method: str) -> None:
    """With other rules other lines are records, and removals, by number, would hit others."""
    planted_corpus(tmp_path / "in", originals=30)
    run_chain(tmp_path / "in", tmp_path, method=method)
    read = {"input": (tmp_path / "in",), "unit_mb": 0.05, "removals": tmp_path / "cluster/removals"}
    for name, value, words in (
        (
            "max_record_mb",
            0.001,
            r"max_record_mb \(here in bytes\): found 1000, the fingerprint job",
        ),
        ("key", "id", "key: found 'id', the fingerprint job had 'text'; give the same"),
        ("format", "txt", "other than the"),
    ):
        config = deduplicate.Config(**read, max_quarantined_share=1, **{name: value})
        with pytest.raises(DataError, match=words):
            deduplicate.run(config, Rank(), tmp_path / name)
    file = tmp_path / "in/0.jsonl"
    file.write_text(file.read_text().replace('{"id"', '{"no"', 1).replace('"text"', '"next"', 1))
    config = deduplicate.Config(**read, max_quarantined_share=1)
    words = r"input: found \d+ documents in unit 0, fingerprints were taken of \d+; has it been"
    with pytest.raises(DataError, match=words):
        deduplicate.run(config, Rank(), tmp_path / "changed")
