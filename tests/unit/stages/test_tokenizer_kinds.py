"""Every kind of tokenizer: as transformers loads it, what comes back, and the formats beside it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tiktoken
from tiktoken.load import load_tiktoken_bpe
from transformers import AutoTokenizer

from megatron_jobs.config.settings import all_problems
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.tokenizer import Config, promise, run
from megatron_jobs.text.encoder import load_encoder
from tests.multilingual import corpus, texts

KINDS: dict[str, dict[str, Any]] = {
    "bytes": {"formats": ["tiktoken", "merges"]},
    "bytes, cl100k": {"pattern": "cl100k", "single_digits": True, "formats": ["tiktoken"]},
    "bytes, nfc": {"pattern": "o200k", "normalizer": "nfc"},
    "characters": {"alphabet": "characters", "formats": ["sentencepiece"]},
    "unigram": {"kind": "unigram", "formats": ["sentencepiece"], "single_digits": True},
    "unigram, nfkc": {"kind": "unigram", "normalizer": "nfkc", "character_coverage": 0.98},
    "wordpiece": {"kind": "wordpiece", "formats": ["wordpiece"]},
    "wordpiece, cased": {"kind": "wordpiece", "lowercase": False, "normalizer": "nfkc"},
}
LOSSLESS = {"bytes", "bytes, cl100k", "characters", "unigram"}
GIVEN = texts()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "x.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in corpus()]
    file.write_text("".join(lines), encoding="utf-8")
    return file


@pytest.fixture(scope="module", params=sorted(KINDS))
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data: Path
) -> tuple[str, Path, dict[str, float]]:
    config = Config(input=[data], vocab_size=1536, multiple=64, **KINDS[request.param])
    assert not list(all_problems(config))
    folder = tmp_path_factory.mktemp("job")
    numbers = run(config, ALONE, folder)
    return request.param, folder / "tokenizer", numbers


def ids_of(folder: Path) -> list[list[int]]:
    return load_encoder(folder).encode(GIVEN)


def test_transformers_gives_the_same_ids(trained: tuple[str, Path, dict[str, float]]) -> None:
    name, folder, numbers = trained
    theirs = AutoTokenizer.from_pretrained(folder)
    settings = {"add_special_tokens": False, "split_special_tokens": True}
    assert [theirs(text, **settings).input_ids for text in GIVEN] == ids_of(folder)
    encoder = load_encoder(folder)
    assert encoder.eod == theirs.eos_token_id == 0
    assert theirs.pad_token_id == 1
    assert encoder.vocab_size == len(theirs) == numbers["vocabulary"]
    assert numbers["vocabulary"] % 64 == 0
    assert theirs.eos_token == ("[SEP]" if "wordpiece" in name else "<|endoftext|>")


def test_what_is_lossless_comes_back(trained: tuple[str, Path, dict[str, float]]) -> None:
    name, folder, numbers = trained
    tokenizer = load_encoder(folder).tokenizer
    back = [tokenizer.decode(ids, skip_special_tokens=False) for ids in ids_of(folder)]
    if name in LOSSLESS:
        assert numbers["come_back"] == 1
        assert back == GIVEN
    else:
        assert back != GIVEN


def test_ids_in_other_libraries_are_equal(trained: tuple[str, Path, dict[str, float]]) -> None:
    """But for ties of Unigram; see test_piece_tokenizer."""
    _, folder, _ = trained
    ids = ids_of(folder)
    if (folder / "tokenizer.model").exists():
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        same = sum(a == b for a, b in zip(pieces.encode(GIVEN), ids, strict=True))
        assert same >= len(GIVEN) * (0.95 if "unigram" in trained[0] else 1)
    if (folder / "tokenizer.tiktoken").exists():
        beside = read_json(folder / "tokenizer.tiktoken.json")
        encoding = tiktoken.Encoding(
            "x",
            pat_str=beside["pattern"],
            mergeable_ranks=load_tiktoken_bpe(str(folder / "tokenizer.tiktoken")),
            special_tokens=beside["special_tokens"],
        )
        assert encoding.encode_ordinary_batch(GIVEN) == ids


def test_digits_stand_alone_where_asked(trained: tuple[str, Path, dict[str, float]]) -> None:
    name, folder, _ = trained
    vocab = load_encoder(folder).tokenizer.get_vocab()
    two = [token for token in vocab if sum(letter.isdecimal() for letter in token) > 1]
    two = [token for token in two if not token.startswith(("<0x", "<|reserved"))]
    assert bool(two) != bool(KINDS[name].get("single_digits"))


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_equal_texts_give_equal_files(kind: str, data: Path, tmp_path: Path) -> None:
    """In other processes, with other hash seeds; tokenizers' own trainers give others each time."""
    program = (
        "import sys; from pathlib import Path;"
        "from megatron_jobs.stages.tokenizer import Config, run;"
        "from megatron_jobs.runtime.rank import ALONE;"
        "config = Config(input=[sys.argv[1]], vocab_size=1000, kind=sys.argv[3]);"
        "run(config, ALONE, Path(sys.argv[2]))"
    )
    for name in ("a", "b"):
        command = [sys.executable, "-c", program, str(data), str(tmp_path / name), kind]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[3])
    files = [(tmp_path / name / "tokenizer/tokenizer.json").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


def test_coverage_leaves_rare_characters_to_bytes(data: Path, tmp_path: Path) -> None:
    letters = {letter for text in corpus() for letter in text if not letter.isspace()}
    missing = {}
    for coverage in (0.98, 1.0):
        config = Config(input=[data], vocab_size=1000, kind="unigram", character_coverage=coverage)
        run(config, ALONE, tmp_path / str(coverage))
        tokenizer = load_encoder(tmp_path / str(coverage) / "tokenizer").tokenizer
        missing[coverage] = letters - set(tokenizer.get_vocab())
        assert tokenizer.decode(tokenizer.encode("".join(letters)).ids) == "".join(letters)
    assert len(missing[0.98]) > 10
    assert not missing[1.0]


def test_a_source_is_taken_with_further_tokens(data: Path, tmp_path: Path) -> None:
    first = Config(input=[data], vocab_size=900, pattern="cl100k", formats=["tiktoken"])
    run(first, ALONE, tmp_path / "a")
    source = tmp_path / "a/tokenizer/tokenizer.tiktoken"
    config = Config(source=source, eod="<|endoftext|>", special=["<|tool|>"], multiple=128)
    assert not list(all_problems(config))
    assert promise(config, {}) == {"vocab_size": None}
    numbers = run(config, ALONE, tmp_path / "b")
    assert numbers == {"vocabulary": 1024}
    assert ids_of(tmp_path / "b/tokenizer") == ids_of(tmp_path / "a/tokenizer")
    encoder = load_encoder(tmp_path / "b/tokenizer")
    assert (encoder.eod, encoder.tokenizer.token_to_id("<|tool|>")) == (0, 900)


def test_a_share_of_the_documents(data: Path, tmp_path: Path) -> None:
    half = run(Config(input=[data], vocab_size=600, share=0.5), ALONE, tmp_path / "half")
    whole = run(Config(input=[data], vocab_size=600), ALONE, tmp_path / "whole")
    assert 0.4 < half["documents"] / whole["documents"] < 0.6


def test_a_vocabulary_too_small_for_its_letters(data: Path, tmp_path: Path) -> None:
    config = Config(input=[data], vocab_size=300, kind="unigram", character_coverage=1)
    with pytest.raises(UserError, match="vocab_size: found 300, which cannot be: "):
        run(config, ALONE, tmp_path)
    assert not (tmp_path / "tokenizer").exists()


def test_an_error_of_the_texts_is_not_lost_in_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"words": "some"}\n')
    with pytest.raises(UserError, match="found no document in 1 lines under the key 'text'; give"):
        run(Config(input=[tmp_path], kind="unigram"), ALONE, tmp_path)


def test_settings_that_cannot_work(data: Path) -> None:
    config = Config(
        input=[data],
        kind="unigram",
        normalizer="nfc",
        pattern="gpt2",
        formats=["tiktoken"],
        multiple=100,
        share=0,
        character_coverage=0.9,
    )
    assert dict(all_problems(config)) == {
        "multiple": "found 100, must be positive and divide vocab_size = 32768",
        "character_coverage": "found 0.9, SentencePiece takes 0.98 to 1",
        "share": "found 0.0, must be above 0 and at most 1",
        "pattern": "found gpt2, which unigram does not heed; it is of bpe, source",
        "normalizer": "found nfc, which unigram has not; it has none, nfkc, nmt_nfkc",
        "formats": "found tiktoken, which cannot keep a tokenizer of unigram: sentencepiece",
    }
    config = Config(input=[data], normalizer="nfc", formats=["tiktoken"])
    assert dict(all_problems(config)) == {
        "formats": "found tiktoken, which knows no normalizer such as nfc"
    }
    config = Config(input=[data], pattern="cl100k", formats=["merges"])
    assert dict(all_problems(config)) == {
        "formats": "found merges, which do not say the pattern; leave it out"
    }
