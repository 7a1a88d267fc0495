"""Passes over records: nothing is lost, and the same comes out for any number of tasks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import documents
from megatron_jobs.stages.documents import OUTPUTS
from megatron_jobs.text import passes
from megatron_jobs.text.shards import read_shard, shards_below
from tests.stages import shorten


def corpus(folder: Path) -> Path:
    """300 records in two files; one line in ten is none, one text in six is empty."""
    folder.mkdir()
    for name in ("a", "b"):
        lines = []
        for i in range(150):
            text = "" if i % 6 == 0 else f"text {name} {i}"
            record = {"id": f"{name}{i}", "text": text, "source": name, "score": i}
            lines.append("{nothing" if i % 10 == 9 else json.dumps(record))
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def settings(tmp_path: Path) -> shorten.Config:
    return shorten.Config(
        input=[corpus(tmp_path / "in")], unit_mb=0.003, letters=6, max_quarantined_share=0.2
    )


def records(folder: Path, kind: str) -> list[dict[str, object]]:
    return [json.loads(line) for shard in shards_below(folder / kind) for line in read_shard(shard)]


def test_every_line_is_somewhere(tmp_path: Path) -> None:
    config = settings(tmp_path)
    numbers = shorten.run(config, Rank(), tmp_path / "out")
    kept, rejected, none = (records(tmp_path / "out", kind) for kind in OUTPUTS[:3])
    assert (len(kept), len(rejected), len(none)) == (220, 50, 30)
    assert numbers["records_in"] == 300
    assert (numbers["documents"], numbers["rejected"], numbers["quarantined"]) == (220, 50, 30)
    assert numbers["shortened"] == 220
    wanted = [i for i in range(150) if i % 10 != 9 and i % 6]
    assert [record["id"] for record in kept] == [f"{name}{i}" for name in "ab" for i in wanted]
    assert kept[0] == {
        "id": "a1", "text": "text a", "source": "a", "metadata": {"score": 1}
    }  # fmt: skip
    assert rejected[0]["verdict"] == {"rule": "shorten.empty", "found": 0, "limit": 1}
    assert {record["reason"] for record in none} == {"not JSON"}
    counts = json.loads((tmp_path / "out/counts.json").read_text())
    assert counts["sources"] == {"a": 110, "b": 110}
    assert counts["lengths"] == {"3": 220}


@pytest.mark.parametrize("tasks", [1, 3, 50])
def test_tasks_give_what_one_gives(tmp_path: Path, tasks: int) -> None:
    config = settings(tmp_path)
    shorten.run(config, Rank(), tmp_path / "one")
    folders = [tmp_path / f"task{i}" for i in range(tasks)]
    for task, folder in enumerate(folders):
        shorten.run(config, replace(Rank(), task=task, tasks=tasks), folder)
    (tmp_path / "all").mkdir()
    numbers = shorten.gather(config, tmp_path / "all", folders)
    assert numbers["documents"] == 220
    for name in OUTPUTS:
        assert tree_hash(tmp_path / "all" / name) == tree_hash(tmp_path / "one" / name), name


def test_divided_by_source(tmp_path: Path) -> None:
    config = settings(tmp_path).model_copy(update={"divide_by": "source"})
    shorten.run(config, Rank(), tmp_path / "one")
    divided = tmp_path / "one/documents"
    assert sorted(path.name for path in divided.iterdir()) == ["a", "b"]
    found = records(tmp_path / "one", "documents/b")
    assert len(found) == 110
    assert {record["source"] for record in found} == {"b"}
    tasks = [tmp_path / f"task{i}" for i in range(2)]
    for task, folder in enumerate(tasks):
        shorten.run(config, replace(Rank(), task=task, tasks=2), folder)
    (tmp_path / "all").mkdir()
    shorten.gather(config, tmp_path / "all", tasks)
    assert tree_hash(tmp_path / "all/documents") == tree_hash(divided)


def test_too_many_values_to_divide_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "MOST_FOLDERS", 1)
    config = settings(tmp_path).model_copy(update={"divide_by": "source", "unit_mb": 1})
    words = "divide_by: found more than 1 values of source in one unit [(]such as documents/a[)]"
    with pytest.raises(UserError, match=words):
        shorten.run(config, Rank(), tmp_path / "one")


def test_more_units_than_there_are_names_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(documents, "MOST_UNITS", 3)
    config = settings(tmp_path)
    words = r"unit_mb: 0\.003 cuts the input into 6 units, at most 3 can be; 1 would do"
    with pytest.raises(UserError, match=words):
        shorten.run(config, Rank(), tmp_path / "one")
    assert not (tmp_path / "one").exists()


def test_units_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    config = settings(tmp_path)
    out = tmp_path / "out"
    shorten.run(config, Rank(), out)
    whole = tree_hash(out / "documents")
    (out / "counts/000002.json").unlink()
    (out / "documents/000002.jsonl.zst").unlink()
    untouched = (out / "documents/000001.jsonl.zst").stat().st_mtime_ns
    shorten.run(config, Rank(), out)
    assert tree_hash(out / "documents") == whole
    assert (out / "documents/000001.jsonl.zst").stat().st_mtime_ns == untouched
    shorten.run(config.model_copy(update={"letters": 3}), Rank(), out)
    assert {record["text"] for record in records(out, "documents")} == {"tex"}


def test_too_much_that_is_no_record(tmp_path: Path) -> None:
    config = settings(tmp_path).model_copy(update={"max_quarantined_share": 0.05})
    with pytest.raises(UserError) as caught:
        shorten.run(config, Rank(), tmp_path / "out")
    assert str(caught.value) == (
        "input: 30 of 300 are no records (30 not JSON), at most 5.0% may be "
        f"(max_quarantined_share); they are in {tmp_path / 'out/quarantined'}"
    )


def test_a_damage_is_weighed_against_all_that_the_tasks_read(tmp_path: Path) -> None:
    """One of ten lines in one task is bad, of all the lines 2 in 100 are."""
    (tmp_path / "in").mkdir()
    good = "".join(f'{{"text": "text {n}"}}\n' for n in range(10))
    for name in "abcde":
        bad = good[:-1].replace('"text 9"}', "") if name == "c" else good
        (tmp_path / f"in/{name}.jsonl").write_text(bad)
    config = shorten.Config(input=[tmp_path / "in"], unit_mb=0.0002)
    folders = [tmp_path / str(task) for task in range(5)]
    found = [
        shorten.run(config, replace(Rank(), task=task, tasks=5), folder)["quarantined"]
        for task, folder in enumerate(folders)
    ]
    assert sorted(found) == [0, 0, 0, 0, 1]
    assert shorten.gather(config, tmp_path / "all", folders)["quarantined"] == 1
    strict = config.model_copy(update={"max_quarantined_share": 0.01})
    with pytest.raises(UserError) as caught:
        shorten.gather(strict, tmp_path / "all", folders)
    assert str(caught.value).startswith("input: 1 of 50 are no records (1 not JSON), at most 1.0%")
