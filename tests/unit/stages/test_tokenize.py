"""Tokens of any cut by any ranks against each other and against megatron-core's builder."""

import gzip
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.progress import read_progress
from megatron_jobs.runtime.rank import ALONE, Rank
from megatron_jobs.stages.tokenize import Config, run
from megatron_jobs.stages.tokenizer import Config as TokenizerConfig
from megatron_jobs.stages.tokenizer import run as train_tokenizer
from tests.megatron_datasets import megatron_datasets

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"
RESULTS = ("rejected.jsonl", "tokens/tokens.bin", "tokens/tokens.idx", "tokens/tokens.json")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TokenizerConfig(input=[BOOKS], vocab_size=600), ALONE, folder)
    return folder / "tokenizer"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 paragraphs of books in JSONL, with bad lines among them, and packed and plain files."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [json.loads(line)["text"] for line in BOOKS.read_text().splitlines()]
    paragraphs = [p for text in texts for p in text.split("\n\n")][:300]
    lines = [json.dumps({"text": p, "n": n}).encode() for n, p in enumerate(paragraphs)]
    lines[7:7] = [b"no json", b'{"text": "\xff"}', b'{"text": "' + b"long " * 5000 + b'"}']
    lines[99:99] = [b'{"words": 1}', b""]
    (folder / "a.jsonl").write_bytes(b"\n".join(lines[:200]) + b"\n")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines[200:])))
    (folder / "c.txt").write_text(texts[-1][:5000])
    return folder


def make_config(corpus: Path, tokenizer: Path, **settings: Any) -> Config:
    return Config(input=[corpus], tokenizer=tokenizer, max_line_mb=0.02, **settings)


def in_forked_ranks(world: int, work: Callable[[Rank], object], folder: Path) -> Any:
    folder.mkdir(exist_ok=True)
    return fork_ranks(work, world, error_file=lambda i: folder / f"error.{i}")


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer: Path
) -> dict[str, bytes]:
    """What one rank makes in one part."""
    folder = tmp_path_factory.mktemp("whole")
    numbers = run(make_config(corpus, tokenizer, parts=1), ALONE, folder)
    assert (numbers["documents"], numbers["rejected"]) == (301, 5)
    assert numbers["text_bytes"] / numbers["tokens"] == numbers["bytes_per_token"]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["tokens"]
    return results(folder)


def test_equals_megatron_on_the_same_ids(
    tmp_path: Path, corpus: Path, tokenizer: Path, whole: dict[str, bytes]
) -> None:
    """Ids by transformers, document by document, files by megatron-core's builder."""
    import torch
    from transformers import AutoTokenizer

    encode = AutoTokenizer.from_pretrained(tokenizer)
    builder = megatron_datasets().indexed_dataset.IndexedDatasetBuilder(
        str(tmp_path / "theirs.bin"), np.uint16
    )
    lines = (corpus / "a.jsonl").read_bytes().split(b"\n")
    lines += gzip.decompress((corpus / "b.jsonl.gz").read_bytes()).split(b"\n")
    texts = []
    for line in lines:
        if line.startswith(b'{"text') and b"\xff" not in line and len(line) <= 20_000:
            texts.append(json.loads(line)["text"])
    texts.append((corpus / "c.txt").read_text())
    for text in texts:
        builder.add_item(torch.tensor([*encode(text).input_ids, encode.eos_token_id]))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    assert (tmp_path / "theirs.bin").read_bytes() == whole["tokens/tokens.bin"]
    assert (tmp_path / "theirs.idx").read_bytes() == whole["tokens/tokens.idx"]


@pytest.mark.parametrize(("world", "parts"), [(1, 0), (1, 5), (3, 7), (3, 2)])
def test_ranks_and_parts_make_no_difference(
    tmp_path: Path, corpus: Path, tokenizer: Path, whole: dict[str, bytes], world: int, parts: int
) -> None:
    config = make_config(corpus, tokenizer, parts=parts)
    outcome = in_forked_ranks(world, lambda rank: run(config, rank, tmp_path), tmp_path)
    assert outcome.status == 0
    assert results(tmp_path) == whole
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress["done"] == progress["total"]


def test_a_killed_run_goes_on_with_the_parts_that_are_missing(
    tmp_path: Path, corpus: Path, tokenizer: Path, whole: dict[str, bytes]
) -> None:
    import megatron_jobs.data.token_parts as token_parts

    config = make_config(corpus, tokenizer, parts=6)
    make_part = token_parts.make_part

    def die_in_the_fourth(folder: Path, *rest: Any) -> None:
        """Killed with a part half made."""
        if folder.name == "part-000003":
            folder.with_name(folder.name + ".partial").mkdir(parents=True)
            os.kill(os.getpid(), signal.SIGKILL)
        make_part(folder, *rest)

    def run_and_die(rank: Rank) -> None:
        token_parts.make_part = die_in_the_fourth
        run(config, rank, tmp_path)

    outcome = in_forked_ranks(1, run_and_die, tmp_path)
    assert outcome.signal == "SIGKILL"
    (home,) = tmp_path.glob("parts-*")
    before = {p.name: p.stat().st_mtime_ns for p in home.glob("part-??????")}
    assert sorted(before) == ["part-000000", "part-000001", "part-000002"]

    made: list[str] = []

    def remember(folder: Path, *rest: Any) -> None:
        made.append(folder.name)
        make_part(folder, *rest)

    token_parts.make_part = remember
    try:
        run(config, ALONE, tmp_path)
    finally:
        token_parts.make_part = make_part
    assert made == ["part-000003", "part-000004", "part-000005"]
    assert results(tmp_path) == whole
    assert not home.exists()


def test_a_finished_job_is_not_done_again(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    first = run(make_config(corpus, tokenizer), ALONE, tmp_path)
    stamp = (tmp_path / "tokens/tokens.bin").stat().st_mtime_ns
    assert run(make_config(corpus, tokenizer), ALONE, tmp_path) == first
    assert (tmp_path / "tokens/tokens.bin").stat().st_mtime_ns == stamp


def test_parts_of_other_settings_are_not_used(
    tmp_path: Path, corpus: Path, tokenizer: Path, whole: dict[str, bytes]
) -> None:
    with pytest.raises(UserError, match="no documents"):
        run(make_config(corpus, tokenizer, max_rejected_share=0, append_eod=False), ALONE, tmp_path)
    assert len(list(tmp_path.glob("parts-*"))) == 1
    run(make_config(corpus, tokenizer), ALONE, tmp_path)
    assert results(tmp_path) == whole


def test_bad_lines_are_put_aside_with_file_line_and_reason(
    corpus: Path, whole: dict[str, bytes]
) -> None:
    records = [json.loads(line) for line in whole["rejected.jsonl"].decode().splitlines()]
    assert {Path(record["file"]) for record in records} == {corpus / "a.jsonl"}
    assert [(r["line"], r["reason"], r["bytes"]) for r in records] == [
        (8, "not JSON", 7),
        (9, "not UTF-8", 13),
        (10, "over 0.02 MB", 25012),
        (100, "no key 'text'", 12),
        (101, "empty", 0),
    ]
    assert records[0]["text"] == "no json"
    assert records[1]["base64"] == "eyJ0ZXh0IjogIv8ifQ=="
    assert records[2]["text"] == '{"text": "' + "long " * 5000 + '"}'


def test_too_many_bad_lines_are_an_error(tmp_path: Path, corpus: Path, tokenizer: Path) -> None:
    message = (
        r"input: 5 of 306 lines are no documents \(.*1 not JSON.*\), at most 1.0% may be "
        r"\(max_rejected_share\); all are in .*rejected\.jsonl, the first:\n"
        r"  .*a\.jsonl:8: not JSON\n  .*a\.jsonl:9: not UTF-8\n  .*a\.jsonl:10: over 0\.02 MB"
    )
    with pytest.raises(UserError, match=message):
        run(make_config(corpus, tokenizer, max_rejected_share=0.01), ALONE, tmp_path)
    assert not (tmp_path / "tokens").exists()
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 5


def test_an_input_without_documents_is_an_error(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n\n")
    config = Config(input=[tmp_path / "x.jsonl"], tokenizer=tokenizer, max_rejected_share=1)
    with pytest.raises(UserError, match=r"input: 2 of 2 lines are no documents \(2 empty\)"):
        run(config, ALONE, tmp_path)
    (tmp_path / "x.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="without a single byte"):
        run(config, ALONE, tmp_path)


def test_special_tokens_in_a_text_stay_text_unless_asked(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "a<|endoftext|>"}')
    eods = {}
    for asked in (False, True):
        config = Config(input=[tmp_path / "x.jsonl"], tokenizer=tokenizer, special_in_text=asked)
        run(config, ALONE, tmp_path / str(asked))
        ids = TokenFile.open(tmp_path / str(asked) / "tokens/tokens").read(0)
        eods[asked] = ids.tolist().count(0)
    assert eods == {False: 1, True: 2}


def test_the_end_of_a_document_can_be_named_or_left_out(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "x.txt").write_text("a")
    ends = {}
    for name, settings in {"none": {"append_eod": False}, "pad": {"eod": "<|pad|>"}}.items():
        config = Config(input=[tmp_path / "x.txt"], tokenizer=tokenizer, **settings)
        run(config, ALONE, tmp_path / name)
        ends[name] = TokenFile.open(tmp_path / name / "tokens/tokens").read(0).tolist()
        facts = read_json(tmp_path / name / "tokens/tokens.json")
        assert facts["eod"] == {"none": 0, "pad": 1}[name]
    assert ends["pad"] == [*ends["none"], 1]


def test_tokenizers_that_cannot_serve(tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(UserError, match=r"eod: found '<eos>', which .* does not know; name one of"):
        run(Config(input=[tmp_path], tokenizer=tokenizer, eod="<eos>"), ALONE, tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file; a fast Hugging Face"):
        run(Config(input=[tmp_path], tokenizer=bare), ALONE, tmp_path)
    (bare / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match="bare names no eos_token; name the token that ends a"):
        run(Config(input=[tmp_path], tokenizer=bare), ALONE, tmp_path)


def test_settings_that_cannot_work(tokenizer: Path) -> None:
    config = Config(input=[], tokenizer=tokenizer, parts=-1, max_line_mb=0, max_rejected_share=2)
    assert dict(all_problems(config)) == {
        "input": "found nothing, must name at least one file or folder",
        "parts": "-1 is negative; 0 takes such of 16 to 64 MiB",
        "max_line_mb": "0.0 leaves no line, must be positive",
        "max_rejected_share": "2.0 must be from 0 to 1",
    }
