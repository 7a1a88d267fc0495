"""Is it the tokenizer that made the tokens?"""

import hashlib
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.text.encoder import check_tokenizer


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
