"""Tokenizing cut into tasks, with names and damaged files, against one rank alone."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import file_hash, tree_hash
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.tokenize import Config, gather, run
from megatron_jobs.text.byte_pairs import train_byte_pairs

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"
TEXTS = [json.loads(line)["text"] for line in BOOKS.read_text().splitlines()]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    special = ["<|end|>"]
    made = train_byte_pairs(TEXTS[:2], vocab_size=400, special=special, least_count=2)
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of each kind; records with an id, with a number for one, without, and bad lines."""
    folder = tmp_path_factory.mktemp("corpus")
    records: list[Any] = []
    for n, text in enumerate(p for book in TEXTS for p in book.split("\n\n")[:40]):
        records.append(
            {"text": text} | [{}, {"id": f"doc é {n}"}, {"id": n}, {"id": "twin"}][n % 4]
        )
    lines = [json.dumps(record).encode() for record in records]
    lines[5:5] = [
        b"",
        b"no json",
        b'{"text": "\\u0000"}',
        b'{"text": "odd", "x": NaN, "id": "odd"}',
    ]
    third = len(lines) // 3
    (folder / "a.jsonl").write_bytes(b"\n".join(lines[:third]) + b"\n")
    (folder / "sub").mkdir()
    packed = zstandard.compress(b"\n".join(lines[third : 2 * third]))
    (folder / "sub/b.jsonl.zst").write_bytes(packed)
    (folder / "c.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines[2 * third :])))
    (folder / "d.txt").write_text(TEXTS[0][:3000])
    return folder


def in_tasks(config: Config, folder: Path, count: int, world: int = 1) -> dict[str, float]:
    """Run each task and gather them; the numbers."""
    tasks = [folder / f"task-{task}" for task in range(count)]
    for number, task in enumerate(tasks):
        task.mkdir(parents=True)
        for index in reversed(range(world)):
            rank = replace(ALONE, index=index, world=world, task=number, tasks=count)
            numbers = run(config, rank, task)
        assert numbers["lines"] == numbers["documents"] + numbers["rejected"]
        assert {path.name for path in task.iterdir()} >= {"tokens", "rejected.jsonl"}
    return gather(config, folder, tasks)


def tree(folder: Path) -> tuple[str, str]:
    return tree_hash(folder / "tokens"), file_hash(folder / "rejected.jsonl")


@pytest.mark.parametrize(
    ("count", "parts", "world"), [(2, 0, 1), (3, 2, 2), (5, 11, 1), (16, 0, 1)]
)
def test_tasks_make_no_difference(
    tmp_path: Path, corpus: Path, tokenizer: Path, count: int, parts: int, world: int
) -> None:
    config = Config(input=[corpus], tokenizer=tokenizer, parts=parts)
    whole = run(replace_parts(config, 1), ALONE, tmp_path / "whole")
    assert whole["rejected"] == 2
    assert in_tasks(config, tmp_path / "cut", count, world) == whole
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def replace_parts(config: Config, parts: int) -> Config:
    return config.model_copy(update={"parts": parts})


def test_sentences_in_tasks_are_those_of_one(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    files = [corpus / "d.txt", corpus / "sub"]
    config = Config(input=files, tokenizer=tokenizer, split_sentences=True)
    whole = run(config, ALONE, tmp_path / "whole")
    assert in_tasks(config, tmp_path / "cut", 3) == whole
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_each_document_has_its_name(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    """In the order of the tokens: the id, or the file and the line in it."""
    run(Config(input=[corpus], tokenizer=tokenizer), ALONE, tmp_path)
    names = DocumentNames.open(tmp_path / "tokens/tokens")
    contents = {
        "a.jsonl": (corpus / "a.jsonl").read_bytes(),
        "c.jsonl.gz": gzip.decompress((corpus / "c.jsonl.gz").read_bytes()),
        "d.txt": None,
        "sub/b.jsonl.zst": zstandard.decompress((corpus / "sub/b.jsonl.zst").read_bytes()),
    }
    wanted = []
    for file, content in contents.items():
        for number, line in enumerate((content or b"{}").removesuffix(b"\n").split(b"\n"), 1):
            if line.startswith(b"{"):
                wanted.append(str(json.loads(line).get("id", f"{corpus.name}/{file}:{number}")))
    assert list(names) == wanted
    twins = [place for place, name in enumerate(wanted) if name == "twin"]
    assert len(twins) > 20
    assert names.find("twin") == twins
    assert names.find("odd") == [wanted.index("odd")]
    facts = TokenFacts.read(tmp_path / "tokens/tokens")
    assert facts.names_hash == file_hash(tmp_path / "tokens/tokens.names")
    assert len(names) == facts.documents == len(TokenFile.open(tmp_path / "tokens/tokens"))


def test_without_names_there_are_none(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    run(Config(input=[corpus], tokenizer=tokenizer, names=False), ALONE, tmp_path)
    assert sorted(path.name for path in (tmp_path / "tokens").iterdir()) == [
        "tokens.bin",
        "tokens.idx",
        "tokens.json",
    ]
    assert TokenFacts.read(tmp_path / "tokens/tokens").names_hash is None


def test_the_encoder_makes_no_difference(
    tmp_path: Path, corpus: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for encoder in ("auto", "gigatoken", "tokenizers"):
        config = Config(input=[corpus], tokenizer=tokenizer, encoder=encoder)
        run(config, ALONE, tmp_path / encoder)
        found.append(tree(tmp_path / encoder))
    assert found[0] == found[1] == found[2]
    said = capsys.readouterr().out
    assert said == "encoder: gigatoken\nencoder: gigatoken\nencoder: tokenizers\n"


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_what_a_damaged_file_gave_is_kept_and_counted(
    tmp_path: Path, tokenizer: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.dumps({"text": p}) for t in TEXTS for p in t.split("\n\n")]
    lines = [line for line in lines if line.strip('{"tex: }')]
    pack = gzip.compress if kind == "gz" else zstandard.compress
    packed = pack("\n".join(lines).encode())
    (tmp_path / f"a.jsonl.{kind}").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.jsonl").write_text('{"text": "after", "id": "b"}\n')
    numbers = run(Config(input=[tmp_path], tokenizer=tokenizer), ALONE, tmp_path / "out")
    assert numbers["damaged"] == numbers["rejected"] == 1
    assert 1 < numbers["documents"] < len(lines)
    assert numbers["lines"] == numbers["documents"] + 1
    (record,) = map(json.loads, (tmp_path / "out/rejected.jsonl").open())
    assert record["line"] == numbers["documents"]  # of those before it, and b's one
    assert record["reason"] == f"{'gzip' if kind == 'gz' else 'zstd'} cut short"
    assert lines[record["line"] - 1].startswith(record["text"])
    assert "packed files are damaged in 1 places" in capsys.readouterr().out
    names = DocumentNames.open(tmp_path / "out/tokens/tokens")
    assert names[len(names) - 1] == "b"


def test_parts_that_a_lost_node_left_are_made_again(
    tmp_path: Path, corpus: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files have other bytes, or none, or are not there."""
    import megatron_jobs.data.token_join as token_join

    config = Config(input=[corpus], tokenizer=tokenizer, parts=4)
    run(config, ALONE, tmp_path / "whole")

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(token_join, "join_tokens", die)
        with pytest.raises(KeyboardInterrupt):
            run(config, ALONE, tmp_path / "cut")
    (home,) = (tmp_path / "cut").glob("parts-*")
    binary = home / "part-000000/tokens.bin"
    binary.write_bytes(bytes(binary.stat().st_size))
    (home / "part-000001/tokens.idx").write_bytes(b"")
    (home / "part-000002/part.json").unlink()
    stamp = (home / "part-000003/part.json").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(token_join, "join_tokens", die)
        with pytest.raises(KeyboardInterrupt):
            run(config, ALONE, tmp_path / "cut")
    assert (home / "part-000003/part.json").stat().st_mtime_ns == stamp
    run(config, ALONE, tmp_path / "cut")
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_parts_that_are_missing_are_named(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    config = Config(input=[corpus], tokenizer=tokenizer)
    with pytest.raises(DataError, match=r"part-000000: no such part \(8 are missing\); the input"):
        gather(config, tmp_path, [tmp_path / "none", tmp_path / "none"])


def test_gather_judges_what_was_put_aside(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    config = Config(input=[corpus], tokenizer=tokenizer, max_rejected_share=0)
    with pytest.raises(UserError, match=r"input: 2 of \d+ lines are no documents \(1 empty, 1 not"):
        in_tasks(config, tmp_path, 2)
