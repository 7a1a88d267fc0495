"""Joining token files with the customary command line: what cannot be joined is named."""

import re
from pathlib import Path

import pytest

from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from tools import merge_datasets


def both(prefix: Path) -> tuple[bytes, bytes]:
    return Path(f"{prefix}.bin").read_bytes(), Path(f"{prefix}.idx").read_bytes()


def make_tokens(prefix: Path, **facts: object) -> TokenFacts:
    """A token file of three tokens, with the facts that are given."""
    with write_token_file(prefix, vocab_size=100) as writer:
        writer.add([1, 2, 3], [3])
    found = TokenFacts.of_bare_file(prefix, documents=1, tokens=3)
    TokenFacts(**(vars(found) | {"tokenizer_hash": "aa"} | facts)).write(prefix)
    return TokenFacts.read(prefix)


def test_merging_into_the_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        make_tokens(tmp_path / name)
    merge = ["--input", str(tmp_path), "--output-prefix", f"{tmp_path}/../{tmp_path.name}/c"]
    assert merge_datasets.main(merge) == 0
    merged = both(tmp_path / "c")
    assert merge_datasets.main(merge) == 2
    assert "/c: is among the files to be joined; remove it, or" in capsys.readouterr().err
    assert both(tmp_path / "c") == merged


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"tokenizer_hash": "bb"}, r"b.json: tokenizer_hash: found bb, .*a.json says aa; tokenize"),
        ({"eod": 1}, r"b.json: eod: found 1, .*a.json says None; tokenize all with one tokenizer"),
        ({"vocab_size": 5}, r"b.json: vocab_size: found 5, .*a.json says 4; tokenize all with one"),
    ],
)
def test_merging_tokens_of_two_tokenizers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], facts: dict[str, object], message: str
) -> None:
    make_tokens(tmp_path / "in/a")
    make_tokens(tmp_path / "in/b", **facts)
    merge = ["--input", str(tmp_path / "in"), "--output-prefix", str(tmp_path / "c")]
    assert merge_datasets.main(merge) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.glob("c*"))


def test_merging_bare_files_leaves_no_old_facts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tokens(tmp_path / "in/a")
    make_tokens(tmp_path / "in/b")
    make_tokens(tmp_path / "c")
    (tmp_path / "in/b.json").unlink()
    merge = ["--input", str(tmp_path / "in"), "--output-prefix", str(tmp_path / "c")]
    assert merge_datasets.main(merge) == 0
    assert capsys.readouterr().err.endswith("in/b.json is missing: none written\n")
    assert not (tmp_path / "c.json").exists()
    assert len(TokenFile.open(tmp_path / "c")) == 2


def test_merging_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output-prefix", str(tmp_path / "merged")]
    assert merge_datasets.main(["--input", str(tmp_path / "none"), *out]) == 2
    assert merge_datasets.main(["--input", str(tmp_path), *out]) == 2
    (tmp_path / "a.bin").touch()
    assert merge_datasets.main(["--input", str(tmp_path), *out]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].endswith("none: no such folder")
    assert errors[1].endswith("holds no .bin and .idx")
    assert errors[2].endswith("a.idx: no such file; a token file is a .bin and a .idx")
    with pytest.raises(SystemExit, match="2"):
        merge_datasets.main(["--input", ".", *out, "--multimodal"])
