"""Lines of JSON in C++ against Python's json; tokens and names against plain loops."""

import json
import sys
import unicodedata
from typing import Any

import numpy as np
import pytest

from megatron_jobs._lines import extract, name_documents, narrow
from megatron_jobs.text.documents import Document, judge
from megatron_jobs.text.lines import Line


def widths() -> list[Any]:
    """Those that this machine has; the others are skipped."""
    marks: list[Any] = []
    for width in ("plain", "avx2", "avx512"):
        try:
            extract(b"", key="", id_key="", separator=b"", limit=0, width=width)  # type: ignore[arg-type]
            marks.append(width)
        except ValueError as error:
            marks.append(pytest.param(width, marks=pytest.mark.skip(reason=str(error))))
    return marks


WIDTHS = widths()
VALUES: list[Any] = [
    "",
    " ",
    "\n\t",
    "text",
    "tab\there",
    'quote " and \\ slash',
    "/",
    "\x00\x1f\x7f",
    "é",
    "\u2028",
    "你好，世界" * 9,
    "🙂👨‍👩‍👧",
    "\u3000 \u00a0\u2003",
    "a" * 200,
    "é" * 70,
    "x" * 63 + "é",
    "\ufdd0\ufdd1",
    0,
    -1,
    7,
    10**20,
    1.5,
    -0.0,
    1e300,
    True,
    False,
    None,
    [],
    {},
    [[1, {"text": "no"}], "id"],
]
ODD = [
    b"",
    b" ",
    b"{}",
    b"[]",
    b"1",
    b'"text"',
    b"{",
    b'{"text"}',
    b'{"text":}',
    b'{"text": "a"',
    b'{"text": "a"}}',
    b'{"text": "a"} x',
    b'{"text": "a",}',
    b'{,"text": "a"}',
    b'{"text" "a"}',
    b'{"text": "a" "b"}',
    b"{'text': 'a'}",
    b'{"text": "a\tb"}',
    b'{"text": "\\x"}',
    b'{"text": "\\',
    b'{"text": "\\u12"}',
    b'{"text": "\\u12g4"}',
    b'{"text": "\\ud83d\\ude00"}',
    b'{"text": "\\ud83d"}',
    b'{"text": "\\ude00\\ud83d"}',
    b'{"text": "\\ud83d\\ud83d\\ude00"}',
    b'{"te\\u0078t": "a"}',
    b'{"text": "a", "text": "b"}',
    b'{"text": "a", "id": 1, "id": 2}',
    b'{"id": -0, "text": "a"}',
    b'{"text": "a", "n": 01}',
    b'{"text": "a", "n": 1.}',
    b'{"text": "a", "n": .5}',
    b'{"text": "a", "n": -}',
    b'{"text": "a", "n": 1e}',
    b'{"text": "a", "n": 1e+5}',
    b'{"text": "a", "n": NaN}',
    b'{"text": "a", "n": nul}',
    b'{"text": "a", "n": -Infinity}',
    b'{"text": "a", "n": 1' + b"0" * 5000 + b"}",
    b'{"text": "a", "n": ' + b"9" * 999 + b"}",
    b'{"text": "a", "n": ' + b"[" * 60 + b"]" * 60 + b"}",
    b'{"text": "a", "n": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"text": "\xff"}',
    b'{"text": "\xc3"}',
    b'{"text": "\xc3\xa9"}',
    b'{"text": "\xc0\xaf"}',
    b'{"text": "\xed\xa0\x80"}',
    b'{"text": "\xe0\x80\x80"}',
    b'{"text": "\xf4\x90\x80\x80"}',
    b'{"text": "\xf0\x9f\x99"}',
    b'{"text": "a", "x": "\xff"}',
    b'{"text": "a", "\xff": 1}',
    b'\xef\xbb\xbf{"text": "a"}',
    b'\t{ "text"\t:\r"a" , "id" : "i" }\r ',
    b'\x0b{"text": "a"}',
    b'{"id": "", "text": "a"}',
    b'{"id": null, "text": "a"}',
    b'{"id": 1.0, "text": "a"}',
    b'{"id": 1e5, "text": "a"}',
    b'{"id": [1], "text": "a"}',
    b'{"id": true, "text": "a"}',
    b'{"id": "\\ud800", "text": "a"}',
    b'{"id": -12, "text": "a"}',
    b'{"text": "a", "n": [1, 2,]}',
    b'{"text": "a", "n": [,]}',
    b'{"text": "a", "n": {"a": 1,}}',
    b'{"text": "a", "n": {"a"}}',
    b'{"text": "a", "n": {1: 2}}',
    b'{"text": "a", "n": [1 2]}',
    b'{"text": "a", "n": tru}',
    b'{"text": "a", "n": truefalse}',
]


def random_line(random: np.random.Generator) -> bytes:
    """An object of random members in random spelling, in one of four cases with a byte changed."""
    keys = ["text", "id", "a", "texts", "", "é", 'q"']
    values = random.choice(len(VALUES), 4)
    members = {str(random.choice(keys)): VALUES[value] for value in values}
    if random.integers(4):
        members["text"] = VALUES[random.integers(17)]
    line = bytearray(json.dumps(members, ensure_ascii=bool(random.integers(2))).encode())
    if not random.integers(4):
        line[random.integers(len(line))] = random.integers(256)
    return bytes(line).replace(b"\n", b" ")


def check(lines: list[bytes], width: str, limit: int = 3000) -> int:
    """What is sure is what json makes of it; how many lines are sure."""
    block = b"\n".join(lines) + b"\n"
    found = extract(
        block,
        key="text",
        id_key="id",
        separator=b"\xff",
        limit=limit,
        width=width,  # type: ignore[arg-type]
    )
    texts, sizes, ids, id_sizes, ends, sure = found
    assert ends.tolist() == (np.cumsum([len(line) + 1 for line in lines]) - 1).tolist()
    each = texts.split(b"\xff") if len(sizes) else []
    assert [len(text) for text in each] == sizes.tolist()
    places = np.flatnonzero(sure)
    assert len(places) == len(each) == len(id_sizes)
    at = 0
    for place, text, size in zip(places, each, id_sizes.tolist(), strict=True):
        body = lines[place].removesuffix(b"\r")
        judged = judge(Line(1, body, iter(()), len(body) > limit), False, "text", limit)
        assert isinstance(judged, Document), body
        assert judged.text == text.decode(), body
        assert judged.id == ids[at : at + size].decode(), body
        at += size
    assert at == len(ids)
    return len(places)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_sure_is_what_json_says(width: str) -> None:
    random = np.random.default_rng(5)
    lines = [random_line(random) for _ in range(4000)]
    assert check(lines, width) > 700
    assert check(ODD, width) >= 13
    for line in ODD:  # each alone, where nothing stands after it
        check([line], width)


@pytest.mark.parametrize("width", WIDTHS)
def test_plain_documents_are_all_taken(width: str) -> None:
    """Else the slow way would do all the work."""
    texts = [value for value in VALUES[:17] if value.strip()]
    for ascii_only in (True, False):
        lines = [
            json.dumps({"id": n, "text": t, "m": VALUES}, ensure_ascii=ascii_only)
            for n, t in enumerate(texts)
        ]
        assert check([line.encode() for line in lines], width) == len(texts)


@pytest.mark.parametrize("width", WIDTHS)
def test_strings_of_every_length(width: str) -> None:
    """What ends a run stands at every place of a wide word."""
    lines = [
        json.dumps({"text": "a" * before + mark + "b" * after}, ensure_ascii=False).encode()
        for before in range(0, 140, 3)
        for after in (0, 1, 31, 64)
        for mark in ('"', "\\", "é", "\n", "\x7f", "")
        if before + after or mark not in ("\n", "")
    ]
    assert check(lines, width) == len(lines)


def test_white_space_is_pythons() -> None:
    """A text of one character is a document exactly where str.strip leaves it."""
    values = [v for v in range(sys.maxunicode + 1) if not 0xD800 <= v < 0xE000]
    values = [
        v for v in values if v < 0x3100 or unicodedata.category(chr(v))[0] == "Z" or v % 997 == 0
    ]
    lines = [json.dumps({"text": chr(v)}).encode() for v in values]
    sure = extract(b"\n".join(lines), key="text", id_key="id", separator=b"\xff", limit=99)[5]
    assert [bool(s) for s in sure] == [bool(chr(v).strip()) for v in values]


def test_line_ends_and_limits() -> None:
    line = b'{"text": "a"}'
    cases = {
        b"": [],
        b"\n": [0],
        line: [1],
        line + b"\r": [1],
        b"\n\n" + line + b"\r\n\n": [0, 0, 1, 0],
    }
    for block, sure in cases.items():
        found = extract(block, key="text", id_key="id", separator=b"\xff", limit=len(line) + 1)
        assert found[5].tolist() == sure, block
    for limit, sure in {len(line): [1, 1], len(line) - 1: [0, 0], 0: [0, 0]}.items():
        block = line + b"\r\n" + line
        assert (
            extract(block, key="text", id_key="id", separator=b"", limit=limit)[5].tolist() == sure
        )


def plain_narrow(
    texts: list[list[int]], counts: list[int], before: list[int], after: list[int], eod: int
) -> tuple[list[int], list[int], list[int]]:
    tokens: list[int] = []
    lengths: list[int] = []
    sequences: list[int] = []
    each = iter(texts)
    for count in counts:
        mine = [s for s in (before + next(each) + after for _ in range(count)) if s]
        if mine and eod >= 0:
            mine[-1] = [*mine[-1], eod]
        sequences.append(len(mine))
        lengths += map(len, mine)
        tokens += [token for sequence in mine for token in sequence]
    return tokens, lengths, sequences


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("case", range(20))
def test_narrowed_as_a_plain_loop_does(wide: bool, case: int) -> None:
    random = np.random.default_rng(case)
    counts = random.integers(1, 4, random.integers(0, 30)).tolist()
    texts = [random.integers(0, 90, random.integers(0, 5)).tolist() for _ in range(sum(counts))]
    before, after = ([] if case % 2 else [7]), ([] if case % 3 else [8, 9])
    eod = -1 if case % 4 == 0 else 3
    ids = [token for text in texts for token in [99, *text]][1:]
    found = narrow(
        np.array(ids, np.uint32),
        np.array(counts, np.int64),
        separator=99,
        before=before,
        after=after,
        eod=eod,
        vocab=90,
        wide=wide,
    )
    assert [part.tolist() for part in found] == list(
        plain_narrow(texts, counts, before, after, eod)
    )
    assert found[0].dtype == (np.int32 if wide else np.uint16)


@pytest.mark.parametrize("case", range(5))
def test_names_are_ids_or_file_and_line(case: int) -> None:
    random = np.random.default_rng(case)
    names = ["" if random.integers(2) else f"é{random.integers(1000)}" for _ in range(case * 20)]
    raws = [name.encode() for name in names]
    lines = list(range(5, 5 + names.count("")))
    letters, sizes = name_documents(
        b"".join(raws),
        np.array([len(raw) for raw in raws], np.int64),
        np.array(lines, np.int64),
        file="f.jsonl",
    )
    numbers = iter(lines)
    wanted = [name or f"f.jsonl:{next(numbers)}" for name in names]
    assert letters == "".join(wanted).encode()
    assert sizes.tolist() == [len(name.encode()) for name in wanted]


IDS, ONE = np.zeros(3, np.uint32), np.ones(1, np.int64)


@pytest.mark.parametrize(
    ("ids", "texts", "others", "message"),
    [
        (IDS.astype("i8"), ONE, {}, "ids must be uint32, got int64"),
        (IDS, ONE.astype("i4"), {}, "texts must be int64, got int32"),
        (IDS, ONE * 2, {}, "texts add up to 2, ids hold 1"),
        (IDS, ONE[:0], {}, "ids must be none for no texts, got 3"),
        (IDS, np.array([1, 0]), {}, "texts must be at least 1 for each document, got 0"),
        (IDS + 5, ONE, {}, "ids must be below 5, got 5"),
        (IDS, ONE, {"eod": 5}, "eod must be below 5, got 5"),
        (IDS, ONE, {"before": [6]}, "before and after must be below 5, got 6"),
        (IDS, ONE, {"vocab": 65537}, "vocab must be from 1 to 65536, got 65537"),
    ],
)
def test_what_cannot_be_narrowed_is_named(
    ids: Any, texts: Any, others: dict[str, Any], message: str
) -> None:
    rest = {"separator": 9, "before": [], "after": [], "eod": -1, "vocab": 5, "wide": False}
    with pytest.raises(ValueError, match=message):
        narrow(ids, texts, **rest | others)


@pytest.mark.parametrize(
    ("ids", "sizes", "message"),
    [
        (b"ab", [1], "sizes must add up to the bytes of ids, 1 are left"),
        (b"", [1], "sizes must add up to the bytes of ids, got 1 with 0 left"),
        (b"", [0], "lines must be 1, got 0"),
    ],
)
def test_what_cannot_be_named_is_named(ids: bytes, sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        name_documents(ids, np.array(sizes, np.int64), np.empty(0, np.int64), file="f")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"limit": -1}, "limit must not be negative, got -1"),
        ({"width": "x"}, "width must be plain, avx2 or avx512, got x"),
    ],
)
def test_what_cannot_be_extracted_is_named(others: dict[str, Any], message: str) -> None:
    rest: dict[str, Any] = {"key": "", "id_key": "", "separator": b"", "limit": 1}
    with pytest.raises(ValueError, match=message):
        extract(b"", **rest | others)
