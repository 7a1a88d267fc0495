"""A trained tokenizer, as transformers loads it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import ALONE, Rank
from megatron_jobs.stages.tokenizer import Config, run

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    numbers = run(Config(input=[BOOKS], vocab_size=2000), ALONE, folder)
    assert numbers["vocabulary"] == 2000
    assert numbers["documents"] == len(BOOKS.read_text().splitlines())
    assert numbers["rejected"] == 0
    assert 3 < numbers["bytes_per_token"] < 5
    return folder / "tokenizer"


def test_transformers_loads_it_and_text_comes_back(trained: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained)
    for text in ("Dear Mr. Bennet,\n\n  said  he.", "\u00e9\u4f60\U0001f600\x00 \t\r\n", " "):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|endoftext|>", 0)
    assert (tokenizer.bos_token, tokenizer.bos_token_id) == ("<|endoftext|>", 0)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|pad|>", 1)
    assert tokenizer("<|im_start|>a<|im_end|>").input_ids[::2] == [2, 3]
    assert len(tokenizer) == 2000


def test_merges_are_the_most_frequent_pairs(tmp_path: Path) -> None:
    """By hand: in 'abab abab ab' the pair 'ab' occurs five times, 'ba' and ' a' twice."""
    (tmp_path / "x.txt").write_text("abab abab ab")
    run(Config(input=[tmp_path / "x.txt"], vocab_size=263, special=()), ALONE, tmp_path)
    model = json.loads((tmp_path / "tokenizer/tokenizer.json").read_text())["model"]
    assert model["merges"][0] == ["a", "b"]
    assert len(model["vocab"]) <= 263


def test_equal_texts_give_equal_bytes(tmp_path: Path, trained: Path) -> None:
    """In another process, with other hash seeds and threads, from a packed copy."""
    packed = tmp_path / "books.jsonl.gz"
    packed.write_bytes(gzip.compress(BOOKS.read_bytes()))
    program = (
        "import sys; from pathlib import Path;"
        "from megatron_jobs.stages.tokenizer import Config, run;"
        "from megatron_jobs.runtime.rank import ALONE;"
        "run(Config(input=[sys.argv[1]], vocab_size=2000), ALONE, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(packed), str(tmp_path)]
    subprocess.run(command, check=True, cwd=BOOKS.parents[2])
    for file in sorted(trained.iterdir()):
        assert (tmp_path / "tokenizer" / file.name).read_bytes() == file.read_bytes()


def test_only_the_leader_works(tmp_path: Path) -> None:
    assert run(Config(input=[BOOKS]), Rank(index=1, world=2), tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_bad_lines_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"text": "some words"}\nno json\n')
    numbers = run(Config(input=[tmp_path], vocab_size=300), ALONE, tmp_path / "job")
    assert (numbers["documents"], numbers["rejected"]) == (1, 1)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").touch()
    with pytest.raises(UserError, match=r"x\.jsonl, without a single byte; give it some text"):
        run(Config(input=[tmp_path]), ALONE, tmp_path)
    (tmp_path / "x.jsonl").write_text('{"words": "some"}\n')
    with pytest.raises(UserError, match="found no document in 1 lines under the key 'text'; give"):
        run(Config(input=[tmp_path]), ALONE, tmp_path)
    assert not (tmp_path / "tokenizer").exists()


def test_settings_that_cannot_work() -> None:
    config = Config(input=[], special=("<|pad|>",), max_line_mb=0)
    assert dict(all_problems(config)) == {
        "input": "found nothing, must name at least one file or folder",
        "special": "the special tokens ['<|endoftext|>', '<|pad|>', '<|pad|>'] must differ and "
        "not be empty",
        "max_line_mb": "0.0 leaves no line, must be positive",
    }
    config = Config(input=[BOOKS], vocab_size=259)
    assert dict(all_problems(config)) == {
        "vocab_size": "259 is too small for 256 bytes and 4 special tokens; at least 260"
    }
