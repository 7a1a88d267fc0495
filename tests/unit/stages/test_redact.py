"""The redact stage: counts, sample, and the same output for any number of tasks."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import redact
from megatron_jobs.text.redact_records import partly
from megatron_jobs.text.shards import read_shard, shards_below
from tests.unit.text.personal_lines import INNOCENT_LINES, LINES, unmarked
from tests.unit.text.test_redact_lines import FIGURES


def corpus(folder: Path) -> Path:
    """300 records: an address in each third, two numbers in each fifth."""
    path = folder / "in.jsonl"
    lines = []
    for i in range(300):
        text = f"Record {i} of é many."
        text += f" Write to someone{i}@example.org today." if i % 3 == 0 else ""
        text += " Call +1 415 555 2671 or +44 20 7946 0958." if i % 5 == 0 else ""
        lines.append(json.dumps({"id": f"r{i}", "text": text}))
    path.write_text("\n".join(lines))
    return path


def settings(folder: Path, **changed: Any) -> redact.Config:
    return redact.Config(input=[corpus(folder)], unit_mb=0.003, review=7, **changed)


def texts(folder: Path) -> dict[str, str]:
    found = (json.loads(line) for s in shards_below(folder / "documents") for line in read_shard(s))
    return {record["id"]: record["text"] for record in found}


def reviewed(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "review.jsonl").read_text().splitlines()]


def test_records_are_redacted_and_counted(tmp_path: Path) -> None:
    numbers = redact.run(settings(tmp_path), Rank(), tmp_path / "out")
    assert (numbers["records_in"], numbers["documents"], numbers["rejected"]) == (300, 300, 0)
    assert (numbers["redacted.email"], numbers["redacted.phone"]) == (100, 120)
    assert numbers["redacted_documents"] == 140
    found = texts(tmp_path / "out")
    both = "Write to <EMAIL> today. Call <PHONE> or <PHONE>."
    assert found["r0"] == f"Record 0 of é many. {both}"
    assert found["r1"] == "Record 1 of é many."


@pytest.mark.parametrize("wished", [True, False])
def test_addresses_and_metadata(tmp_path: Path, wished: bool) -> None:
    record = {"id": "1", "text": "Nothing.", "url": "https://a.org/?mail=jo.doe@example.org"}
    record |= {"title": "Mail of jo.doe@example.org", "more": [{"tel": "+1 415 555 2671"}, 7]}
    (tmp_path / "in.jsonl").write_text(json.dumps(record))
    config = redact.Config(input=[tmp_path / "in.jsonl"], metadata=wished)
    numbers = redact.run(config, Rank(), tmp_path / "out")
    (shard,) = shards_below(tmp_path / "out/documents")
    (found,) = (json.loads(line) for line in read_shard(shard))
    assert numbers.get("redacted_in_metadata", 0) == (3 if wished else 0)
    mail, phone = ("<EMAIL>", "<PHONE>") if wished else ("jo.doe@example.org", "+1 415 555 2671")
    assert found["url"] == f"https://a.org/?mail={mail}"
    assert found["metadata"] == {"title": f"Mail of {mail}", "more": [{"tel": phone}, 7]}


def test_kinds_in_receipt_and_sample(tmp_path: Path) -> None:
    """All that was taken of mails, pages and logs is counted by kind, and a few of each shown."""
    lines = [unmarked(line)[0] for line in [*LINES, *INNOCENT_LINES]]
    (tmp_path / "in.txt").write_text("\n".join(lines))
    config = redact.Config(input=[tmp_path / "in.txt"], review=10)
    numbers = redact.run(config, Rank(), tmp_path / "out")
    taken = {kind: right + wrong for kind, (right, _, wrong) in FIGURES.items()}
    found = {name: count for name, count in numbers.items() if name.startswith("redacted.")}
    assert found == {f"redacted.{kind}": count for kind, count in taken.items()}
    shown = Counter(note["kind"] for note in reviewed(tmp_path / "out"))
    assert shown == {kind: min(count, 10) for kind, count in taken.items()}


def test_a_sample_to_review_shows_no_value(tmp_path: Path) -> None:
    redact.run(settings(tmp_path), Rank(), tmp_path / "out")
    notes = reviewed(tmp_path / "out")
    assert [note["kind"] for note in notes] == ["email"] * 7 + ["phone"] * 7
    for note in notes:
        assert "@" not in "".join(note[name] for name in ("before", "after", "shown"))
        assert "555" not in str(note)
    email = notes[0]
    assert email["before"].endswith("of é many. Write to ")
    assert email["after"].startswith(" today.")
    assert email["replacement"] == "<EMAIL>"
    assert email["shown"].startswith("so…rg (")
    assert partly(b"ab") == "a…b (2)"


@pytest.mark.parametrize("tasks", [2, 5])
def test_tasks_give_what_one_gives(tmp_path: Path, tasks: int) -> None:
    config = settings(tmp_path)
    redact.run(config, Rank(), tmp_path / "one")
    folders = [tmp_path / f"task{i}" for i in range(tasks)]
    for task, folder in enumerate(folders):
        redact.run(config, replace(Rank(), task=task, tasks=tasks), folder)
    (tmp_path / "all").mkdir()
    numbers = redact.gather(config, tmp_path / "all", folders)
    assert numbers["redacted.phone"] == 120
    for name in redact.OUTPUTS:
        assert tree_hash(tmp_path / "all" / name) == tree_hash(tmp_path / "one" / name), name


def test_pseudonyms_by_a_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef")
    config = settings(tmp_path, style="hash", hash_key=key)
    redact.run(config, Rank(), tmp_path / "out")
    found = texts(tmp_path / "out")
    assert found["r5"].removeprefix("Record 5") == found["r10"].removeprefix("Record 10")
    assert found["r3"][-30:] != found["r6"][-30:]
    key.write_bytes(b"short")
    with pytest.raises(UserError, match=r"hash_key: found .* has 5 bytes, at least 16"):
        redact.run(config, Rank(), tmp_path / "other")


def test_without_a_sample(tmp_path: Path) -> None:
    config = settings(tmp_path).model_copy(update={"review": 0})
    redact.run(config, Rank(), tmp_path / "out")
    assert reviewed(tmp_path / "out") == []


def test_what_cannot_work(tmp_path: Path) -> None:
    good = settings(tmp_path)

    def problems(**changed: Any) -> list[tuple[str, str]]:
        return list(good.model_copy(update=changed).problems())

    assert problems() == []
    assert problems(kinds=()) == [("kinds", "found none, and neither patterns nor names")]
    assert problems(style="hash") == [
        ("hash_key", "must be set for style hash; without a key a hash can be guessed")
    ]
    assert problems(review=-1) == [("review", "-1 is negative; 0 for no examples")]
    (setting, sentence), *_ = problems(patterns={"x": "("}, keep=("(",))
    assert setting == "patterns.x"
    assert sentence.startswith("'(' is no regular expression: ")
    assert problems(placeholders={"emial": "x"})[0][0] == "placeholders.emial"
    assert problems(names="x") == [("names", "found 'x', must be spacy:MODEL or presidio:LANGUAGE")]


def test_what_is_shown(tmp_path: Path) -> None:
    config = settings(tmp_path, kinds=["email"], patterns={"ticket": "T"}, names="spacy:x")
    assert redact.describe(config, redact.RESOURCES) == [("redacts", "email, ticket, name")]
