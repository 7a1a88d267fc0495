"""What is written for other suites: they read it, and it comes back as it was."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.token_file import write_token_file
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import export
from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined

FORMS = [
    ("jsonl", "zstd"), ("jsonl", "gzip"), ("jsonl", "none"),
    ("parquet", "zstd"), ("parquet", "gzip"), ("parquet", "none"),
    ("datasets", "none"), ("mds", "zstd"), ("mds", "none"),
]  # fmt: skip


def corpus(folder: Path, count: int = 60) -> Path:
    """Records with everything that one may hold, and with nothing but a text."""
    folder.mkdir()
    lines = []
    for n in range(count):
        record: dict[str, Any] = {"id": f"d{n}", "text": f"Größe {n} \0 \U0001f600\n" * (n % 7)}
        if n % 3 == 0:
            record |= {"source": "books", "licence": "CC0-1.0", "language": "de"}
            record |= {"url": "http://x/é", "date": "2024-01-02T03:04:05Z"}
            record["metadata"] = {"score": n / 7, "of": {"a": [1, None, "é"]}, "n": 2**60}
        lines.append(json.dumps(record))
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n{nothing\n")
    return folder


def config(folder: Path, **more: Any) -> export.Config:
    facts = {"input": [folder], "unit_mb": 0.003, "max_quarantined_share": 0.5}
    return export.Config.model_validate(facts | more)


def records(path: Path, **rules: Any) -> list[Record]:
    units = cut_units(input_files([path]), 1000)
    found = [item for unit in units for item in read_unit(unit, ReadRules(**rules))]
    assert all(isinstance(item, (Record, Quarantined)) for item in found)
    return [item for item in found if isinstance(item, Record)]


@pytest.mark.parametrize(("form", "packing"), FORMS)
def test_out_and_in_again(tmp_path: Path, form: str, packing: str) -> None:
    folder = corpus(tmp_path / "in")
    numbers = export.run(config(folder, form=form, packing=packing), Rank(), tmp_path / "out")
    assert (numbers["records_in"], numbers["documents"], numbers["quarantined"]) == (61, 60, 1)
    assert records(tmp_path / "out/documents") == records(folder)


@pytest.mark.parametrize("form", ["jsonl", "parquet", "datasets", "mds"])
def test_tasks_give_what_one_gives(tmp_path: Path, form: str) -> None:
    settings = config(corpus(tmp_path / "in"), form=form)
    export.run(settings, Rank(), tmp_path / "one")
    folders = [tmp_path / f"task{task}" for task in range(4)]
    for task, folder in enumerate(folders):
        export.run(settings, replace(Rank(), task=task, tasks=4), folder)
    for _ in range(2):
        export.gather(settings, tmp_path / "all", folders)
        for name in export.OUTPUTS:
            assert tree_hash(tmp_path / "all" / name) == tree_hash(tmp_path / "one" / name), name


def test_mds_again_of_other_units(tmp_path: Path) -> None:
    """index.json tells of the shards that are there, whatever an earlier run has left."""
    folder, out = corpus(tmp_path / "in"), tmp_path / "out"
    for unit_mb, more in ((0.001, 5), (0.1, 0), (0.003, 1)):
        export.run(config(folder, form="mds", unit_mb=unit_mb), Rank(), out)
        shards = json.loads((out / "documents/index.json").read_text())["shards"]
        names = sorted(shard["zip_data"]["basename"] for shard in shards)
        assert names == sorted(path.name for path in (out / "documents").glob("*.mds.zstd"))
        assert sum(shard["samples"] for shard in shards) == 60
        assert len(shards) > more


def test_datasets_of_hugging_face(tmp_path: Path) -> None:
    import datasets

    folder = corpus(tmp_path / "in")
    export.run(config(folder, form="datasets"), Rank(), tmp_path / "arrow")
    export.run(config(folder, form="parquet"), Rank(), tmp_path / "parquet")
    saved = datasets.load_from_disk(str(tmp_path / "arrow/documents"))
    files = [str(p) for p in sorted((tmp_path / "parquet/documents").glob("*.parquet"))]
    tables = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    wanted = records(folder)
    for found in (saved, tables):
        assert len(found) == 60
        assert found.column_names == [*(n for n in Record.__slots__ if n != "payload")]
        assert [row["text"] for row in found] == [one.text for one in wanted]
        assert json.loads(found[3]["metadata"]) == wanted[3].metadata


def test_what_datasets_saves_is_read(tmp_path: Path) -> None:
    """Several files, other columns, a map's cache beside them, several splits."""
    import datasets

    rows = {"text": [f"t{n}" for n in range(30)], "label": list(range(30)), "lang": ["en"] * 30}
    made = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)})
    made.save_to_disk(str(tmp_path / "saved"), num_shards={"train": 3})
    again = datasets.load_from_disk(str(tmp_path / "saved"))
    again.map(lambda row: {"text": row["text"] * 2})
    assert list((tmp_path / "saved/train").glob("cache-*.arrow"))
    found = records(tmp_path / "saved")
    assert [one.text for one in found] == rows["text"]
    assert found[11].id == "saved/train/data-00001-of-00003.arrow:2"
    assert (found[11].language, found[11].metadata) == ("en", {"label": 11})


def token_file(folder: Path) -> list[list[int]]:
    """Documents of one sequence, of none, and of two."""
    folder.mkdir()
    documents = [list(range(n, n + n % 5 + 1)) for n in range(40)]
    with write_token_file(folder / "tokens", vocab_size=1000) as writer:
        for n, ids in enumerate(documents):
            writer.add_document(ids, [1, len(ids) - 1] if n % 2 and len(ids) > 1 else [len(ids)])
    with write_document_names(folder / "tokens") as names:
        names.add_names(f"name {n}" for n in range(40))
    return documents


@pytest.mark.parametrize("form", ["parquet", "datasets", "mds"])
@pytest.mark.parametrize("unit_mb", [0.00003, 64])
def test_tokens(tmp_path: Path, form: str, unit_mb: float) -> None:
    wanted = token_file(tmp_path / "tokens")
    settings = export.Config.model_validate(
        {"tokens": [tmp_path / "tokens"], "form": form, "unit_mb": unit_mb}
    )
    assert not list(settings.problems())
    assert export.run(settings, Rank(), tmp_path / "out")["documents"] == 40
    if form == "datasets":
        import datasets

        found = datasets.load_from_disk(str(tmp_path / "out/documents"))
        assert [row["tokens"] for row in found] == wanted
        assert found[7]["id"] == "name 7"
        assert found.features["tokens"].feature.dtype == "uint16"
        return
    rows = token_rows(tmp_path / "out/documents", form)
    assert rows == [{"id": f"name {n}", "tokens": ids} for n, ids in enumerate(wanted)]


def token_rows(folder: Path, form: str) -> list[dict[str, Any]]:
    if form == "parquet":
        from pyarrow import parquet

        files = sorted(folder.glob("*.parquet"))
        return [row for file in files for row in parquet.read_table(file).to_pylist()]
    from megatron_jobs.text.mds import read_rows
    from megatron_jobs.text.members import unpack
    from megatron_jobs.text.readers.tape import Tape

    rows = []
    for shard in json.loads((folder / "index.json").read_text())["shards"]:
        path = folder / shard["zip_data"]["basename"]
        with path.open("rb") as file:
            rows += [row for _, row in read_rows(Tape(unpack(file, path.name)), 10**6)]
    return [dict(row) for row in rows if isinstance(row, dict)]


def test_problems() -> None:
    found = dict(export.Config(tokens=(Path("a"),), input=(Path("b"),), form="jsonl").problems())
    assert found == {
        "tokens": "is given beside input; export them by a job each",
        "form": "tokens are written as parquet, datasets or mds, not as jsonl",
    }
    assert dict(export.Config(input=(Path("a"),), form="mds", packing="gzip").problems()) == {
        "packing": "mds is packed by zstd, or none"
    }
    assert next(iter(export.Config().problems()))[0] == "input"
    with pytest.raises(ValidationError):
        export.Config.model_validate({"input": ["a"], "form": "csv"})
