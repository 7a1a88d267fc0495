"""Parts made by an encoder that gives some texts no token; sentences as sequences."""

import json
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.data.token_join import count_parts, count_reasons, join_rejects, join_tokens
from megatron_jobs.data.token_parts import TokenRules, make_part
from megatron_jobs.text.bulk import by_tokenizers
from megatron_jobs.text.encoder import Encoder
from megatron_jobs.text.sources import cut, text_files


class Letters(Encoder):
    """One token a letter; none for '!'."""

    def encode(self, texts: Any) -> list[list[int]]:
        return [[ord(letter) for letter in text if letter != "!"] for text in texts]


ENCODER = Letters(tokenizer=None, vocab_size=128, eod=0, hash="h", template=False)
LINES = [
    '{"text": "a.b"}',
    '{"text": "!"}',
    "bad",
    '{"text": "!!.c."}',
    '{"text": "!"}',
    '{"text": "d"}',
]


def rules(**others: Any) -> TokenRules:
    return TokenRules(
        encoder=ENCODER,
        bulk=by_tokenizers(ENCODER),
        **({"key": "text", "limit": 99, "append_eod": True} | others),
    )


def make(folder: Path, parts: int, rules: TokenRules) -> tuple[TokenFile, list[str]]:
    """(tokens, FILE:LINE: reason of all rejected lines) of LINES in some number of parts."""
    source = folder / "x.jsonl"
    source.write_text("\n".join(LINES))
    plan = cut(text_files([source]), parts)
    folders = [folder / f"{parts}-{i}" for i in range(parts)]
    for part, pieces in zip(folders, plan, strict=True):
        done = [0]
        make_part(part, pieces, rules, done.append)
        assert done == sorted(done)
        assert done[-1] == sum(piece.size for piece in pieces)
    out = folder / f"{parts}.jsonl"
    first = join_rejects(folders, plan, out, examples=2)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    words = [f"{r['file']}:{r['line']}: {r['reason']}" for r in records]
    assert first == words[:2]
    assert count_reasons(folders) == {"no token": 2, "not JSON": 1}
    assert count_parts(folders).rejected == 3
    joined = folder / f"{parts}-joined"
    joined.mkdir()
    facts = join_tokens(folders, plan, joined, ENCODER)
    assert (facts.documents, facts.rejected, facts.text_bytes) == (3, 3, 9)
    return TokenFile.open(joined / "tokens"), [word.rpartition("x.jsonl:")[2] for word in words]


@pytest.mark.parametrize("parts", [1, 2, 5, 50])
def test_what_gives_no_token_is_put_aside_in_its_place(tmp_path: Path, parts: int) -> None:
    tokens, rejected = make(tmp_path, parts, rules())
    assert rejected == ["2: no token", "3: not JSON", "5: no token"]
    assert [bytes(tokens.read(i).astype("u1")) for i in range(3)] == [b"a.b\0", b".c.\0", b"d\0"]


def test_sentences_become_sequences_of_one_document(tmp_path: Path) -> None:
    """Empty ones are left out; the end of the document goes to the last."""
    tokens, _ = make(tmp_path, 2, rules(sentences=lambda text: text.split(".")))
    found = [bytes(tokens.read(i).astype("u1")) for i in range(len(tokens))]
    assert found == [b"a", b"b\0", b"c\0", b"d\0"]
    assert tokens.documents.tolist() == [0, 2, 3, 4]


def test_the_end_of_a_document_can_be_left_out(tmp_path: Path) -> None:
    tokens, _ = make(tmp_path, 3, rules(append_eod=False))
    assert [bytes(tokens.read(i).astype("u1")) for i in range(3)] == [b"a.b", b".c.", b"d"]
