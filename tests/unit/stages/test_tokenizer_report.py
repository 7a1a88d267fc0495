"""Tokenizers compared, against counts by plain loops."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from megatron_jobs.config.settings import all_problems, input_paths
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.rank import ALONE, Rank
from megatron_jobs.stages.tokenizer import Config as TokenizerConfig
from megatron_jobs.stages.tokenizer import run as train_tokenizer
from megatron_jobs.stages.tokenizer_report import SHOW, Config, run
from megatron_jobs.text.tokenizer_report import draw_fertility
from tests.multilingual import SENTENCES, corpus


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of all languages twice, one without a language, a bad line; two tokenizers."""
    folder = tmp_path_factory.mktemp("made")
    records: list[dict[str, Any]] = [
        {"id": f"{code}{turn}", "text": text, "language": code}
        for turn in range(2)
        for code, text in SENTENCES.items()
    ]
    records.append({"id": "x", "text": "nobody knows"})
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    (folder / "x.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, "bad"]).encode()))
    (folder / "corpus.txt").write_text("\n".join(corpus()), encoding="utf-8")
    for kind in ("bpe", "unigram"):
        config = TokenizerConfig(input=[folder / "corpus.txt"], kind=kind, vocab_size=1200)
        train_tokenizer(config, ALONE, folder / kind)
    return folder


@pytest.fixture(scope="module")
def report(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    tokenizers = {kind: made / kind / "tokenizer" for kind in ("bpe", "unigram")}
    config = Config(input=[made / "x.jsonl.gz"], tokenizers=tokenizers, sizes=(512, 1024, 2048))
    assert not list(all_problems(config))
    assert ("tokenizers.bpe", tokenizers["bpe"]) in set(input_paths(config))
    numbers = run(config, ALONE, folder)
    assert numbers["documents"] == 2 * len(SENTENCES) + 1
    assert numbers["rejected"] == 1
    return folder


def test_numbers_are_those_of_plain_loops(made: Path, report: Path) -> None:
    found = read_json(report / "report.json")
    for kind in ("bpe", "unigram"):
        tokenizer = Tokenizer.from_file(str(made / kind / "tokenizer/tokenizer.json"))
        of_kind = found["tokenizers"][kind]
        assert set(of_kind["languages"]) == {*SENTENCES, "unknown"}
        for code, text in SENTENCES.items():
            tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
            language = of_kind["languages"][code]
            assert language["texts"] == 2
            assert language["bytes_per_token"] == len(text.encode()) / tokens
            if code in {"en", "de", "es", "ru", "ar", "ko"}:  # words between spaces
                words = len([word for word in text.split() if any(map(str.isalnum, word))])
                assert language["tokens_per_word"] == tokens / words
        assert of_kind["all"]["texts"] == 2 * len(SENTENCES) + 1
        assert 0 < of_kind["unused"] < 1
        assert len(of_kind["longest"]) == 10


def test_tables_say_what_the_numbers_say(report: Path) -> None:
    found = read_json(report / "report.json")["tokenizers"]
    tables = (report / SHOW).read_text(encoding="utf-8")
    english = [f"{found[kind]['languages']['en']['bytes_per_token']:.2f}" for kind in found]
    row = next(line for line in tables.splitlines() if line.startswith("| en "))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["en", *english]
    assert "| language | bpe | unigram |" in " ".join(tables.split())
    page = (report / "report.html").read_text(encoding="utf-8")
    assert f'<th scope="row">en</th>{_cells(english)}' in page
    languages = found["bpe"]["languages"]
    wanted = [f"{languages[code]['tokens_per_word']:.2f}" for code in ("de", "en")]
    told = re.findall(r'title="(de|en): bpe ([\d.]+), unigram', page)
    assert [number for _, number in told[2:]] == wanted  # behind bytes per token
    assert "Longest tokens" in page


def test_heights_are_those_of_the_numbers(report: Path) -> None:
    facts = read_json(report / "report.json")
    page = str(draw_fertility(facts))
    place = page.partition('title="en: bpe')[2].partition("</div></div>")[0]
    heights = [float(height) for height in re.findall(r"height:max\(([\d.]+)%", place)][:2]
    bpe, unigram = (
        facts["tokenizers"][kind]["languages"]["en"]["bytes_per_token"]
        for kind in ("bpe", "unigram")
    )
    assert bpe != unigram
    assert heights[0] / heights[1] == pytest.approx(bpe / unigram, rel=0.01)


def _cells(numbers: list[str]) -> str:
    return "".join(f'<td class="number">{number}</td>' for number in numbers)


def test_more_tokenizers_than_colours(report: Path) -> None:
    """A plot shows the first of them and says so; tables have all."""
    facts = read_json(report / "report.json")
    one = facts["tokenizers"]["bpe"]
    facts["tokenizers"] = {f"t{number}": one for number in range(7)}
    page = str(draw_fertility(facts))
    assert "Bytes per token (more is better); the first 6 of 7 tokenizers" in page
    assert page.count(">t6</th>") == 3
    assert ">t5</li>" in page
    assert ">t6</li>" not in page


def test_sizes_of_vocabularies(report: Path) -> None:
    found = read_json(report / "report.json")
    assert list(found["curve"]) == ["512", "1024"]  # these few texts give no 2048
    gain = found["curve"]["1024"] / found["curve"]["512"] - 1
    assert found["suggested"] == (1024 if gain >= 0.05 else 512)
    assert "| 512 " in (report / SHOW).read_text(encoding="utf-8")


def test_texts_of_a_language_are_limited_and_files_go_by_name(made: Path, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt.gz"):
        raw = b"some words here" if name == "one.txt" else gzip.compress(b"other words")
        (tmp_path / name).write_bytes(raw)
    config = Config(
        input=[tmp_path / "one.txt", tmp_path / "two.txt.gz", made / "x.jsonl.gz"],
        tokenizers={"bpe": made / "bpe/tokenizer"},
        sample_mb=0.00005,
    )
    run(config, ALONE, tmp_path / "job")
    languages = read_json(tmp_path / "job/report.json")["tokenizers"]["bpe"]["languages"]
    assert languages["one"]["words"] == 3
    assert languages["two"]["words"] == 2
    assert languages["en"]["texts"] == 1
    assert languages["zh"]["texts"] == 2


def test_only_the_leader_works(made: Path, tmp_path: Path) -> None:
    config = Config(input=[made], tokenizers={"bpe": made / "bpe"})
    assert run(config, Rank(index=1, world=2), tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_no_text_is_refused(made: Path, tmp_path: Path) -> None:
    config = Config(input=[made / "x.jsonl.gz"], tokenizers={"a": made / "bpe"}, key="words")
    with pytest.raises(UserError, match="found no document in 32 lines under the key 'words'"):
        run(config, ALONE, tmp_path)


def test_settings_that_cannot_work(made: Path) -> None:
    config = Config(input=[], tokenizers={}, patterns={"a": "gpt2"}, sizes=(1,), sample_mb=0)
    assert dict(all_problems(config)) == {
        "input": "found nothing, must name at least one file or folder",
        "tokenizers": "found none, must name at least one",
        "patterns.a": "no such tokenizer; there are none",
        "sizes": "found 1, must be at least 512",
        "sample_mb": "found 0.0, must be positive",
    }
