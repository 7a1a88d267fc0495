"""The tokenizer that is read, and whether it is the one that made the tokens."""

import hashlib
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from megatron_jobs.errors import UserError
from megatron_jobs.text.encoder import check_tokenizer, load_encoder


def test_a_tokenizer_is_known_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    own = hashlib.sha256(b"{}").hexdigest()
    for path in (tmp_path, file):
        for expected in (own, None):
            check_tokenizer(path, expected, "the index")
    found = rf"tokenizer: found {file} \(sha256 {own[:12]}\), the index was made with another one, "
    with pytest.raises(UserError, match=found + "cdcdcdcdcdcd; give that one"):
        check_tokenizer(tmp_path, "cd" * 32, "the index")
    with pytest.raises(UserError, match=r"none: no such file; a fast Hugging Face tokenizer has"):
        check_tokenizer(tmp_path / "none", None, "the index")


@pytest.mark.parametrize(("ids", "least"), [((0, 1, 2), 3), ((0, 1, 7), 8), ((5, 1, 0), 6)])
def test_all_ids_are_below_the_vocabulary_with_holes_too(
    tmp_path: Path, ids: tuple[int, ...], least: int
) -> None:
    words = dict(zip(("a", "b", "c"), ids, strict=True))
    Tokenizer(WordLevel(words, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    assert load_encoder(tmp_path).vocab_size == least
