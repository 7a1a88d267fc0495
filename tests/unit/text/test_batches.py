"""Batches against the same lines read one by one."""

import json
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.text import lines as lines_module
from megatron_jobs.text.batches import BETWEEN, SEPARATOR, cut_texts, read_batches
from megatron_jobs.text.documents import Document, Rejected, read_documents
from megatron_jobs.text.sources import Piece, cut, text_files

KINDS = [
    '{"text": "plain", "id": "a"}',
    '{"text": "caf\\u00e9 \\ud83d\\ude42", "id": 7}',
    '{"id": "", "text": "é你"}\r',
    '{"text": "odd", "n": NaN, "id": "slow"}',
    '{"text": "first", "text": "second"}',
    f'{{"text": "x{SEPARATOR}y", "id": "{SEPARATOR}"}}',
    '{"text": " "}',
    '{"text": "\\ud800"}',
    '{"words": 1}',
    "no json",
    "",
    "\r",
    '{"text": "' + "long " * 60 + '"}',
    '{"text": "\\u0000\\u0001"}',
]


def random_file(path: Path, case: int) -> Path:
    random = np.random.default_rng(case)
    chosen = random.choice(KINDS, random.integers(0, 60))
    content = "\n".join(str(kind) for kind in chosen)
    path.write_text(content + "\n" * int(random.integers(2)), newline="")
    return path


def one_by_one(piece: Piece, limit: int) -> tuple[list[object], list[object]]:
    documents: list[object] = []
    rejected: list[object] = []
    for item in read_documents(piece, key="text", limit=limit):
        if isinstance(item, Document):
            documents.append((item.number, item.text, item.id, item.raw))
        else:
            rejected.append((item.number, item.reason, b"".join(item.raw)))
    return documents, rejected


def in_batches(piece: Piece, limit: int) -> tuple[list[object], list[object]]:
    documents: list[object] = []
    rejected: list[object] = []
    lines = 0
    for batch in read_batches(piece, key="text", limit=limit):
        ends = [0, *np.cumsum(batch.id_sizes).tolist()]
        texts = list(cut_texts(batch.texts, batch.sizes))
        assert BETWEEN.join(texts) == batch.texts
        for d, text in enumerate(texts):
            name = batch.ids[ends[d] : ends[d + 1]].decode()
            documents.append((int(batch.numbers[d]), text.decode(), name, batch.raw(d)))
        rejected += [(r.number, r.reason, b"".join(r.raw)) for r in batch.rejected]
        lines += batch.lines
    assert lines == len(documents) + len(rejected)
    return documents, rejected


@pytest.mark.parametrize("chunk", [2, 7, 64, 1 << 20])
@pytest.mark.parametrize("case", range(6))
def test_batches_hold_what_the_lines_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, case: int
) -> None:
    """Whatever the chunks in which the file comes, and however it is cut."""
    path = random_file(tmp_path / "x.jsonl", case)
    if not path.stat().st_size:
        path.write_bytes(b"\n")
    whole = [piece for part in cut(text_files([path]), 1) for piece in part]
    wanted = one_by_one(whole[0], 200)
    monkeypatch.setattr("megatron_jobs.text.lines.CHUNK", chunk)
    monkeypatch.setattr(lines_module, "CHUNK", chunk)
    assert in_batches(whole[0], 200) == wanted == one_by_one(whole[0], 200)
    texts = []
    for part in cut(text_files([path]), 5):
        for piece in part:
            found = in_batches(piece, 200)
            assert found == one_by_one(piece, 200)
            texts += [document[1:] for document in found[0]]  # type: ignore[index]
    assert texts == [document[1:] for document in wanted[0]]  # type: ignore[index]


def test_a_text_file_is_a_batch_of_one(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\n\nb")
    (piece,) = (piece for part in cut(text_files([tmp_path]), 1) for piece in part)
    assert in_batches(piece, 99) == ([(1, "a\n\nb", "", b"a\n\nb")], [])
    assert in_batches(piece, 3) == ([], [(1, "over 3e-06 MB", b"a\n\nb")])


def test_a_line_too_long_comes_in_chunks(tmp_path: Path) -> None:
    """It is not held in memory: 300 MB pass through 30 MB of it."""
    import tracemalloc

    with (tmp_path / "x.jsonl").open("wb") as file:
        file.write(b'{"text": "')
        for _ in range(300):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + json.dumps({"text": "after"}).encode() + b"\n")
    (piece,) = (piece for part in cut(text_files([tmp_path]), 1) for piece in part)
    tracemalloc.start()
    first, second = (
        (batch.rejected, bytes(batch.texts), sum(map(len, item.raw)))
        for batch in read_batches(piece, key="text", limit=5_000_000)
        for item in batch.rejected or [Rejected(0, "", [])]
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first[0][0].reason == "over 5 MB"
    assert first[2] == 300_000_012
    assert second[1] == b"after"
    assert peak < 30e6
