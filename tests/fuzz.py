"""Files of each format that can be read, whole, and broken in any way: for test_fuzz, and for hours
of it by `python -m tests.fuzz SECONDS [SEED] [END OF NAMES]`."""

import datetime
import gzip
import io
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import zstandard
from pyarrow import parquet

from megatron_jobs.text.mds import ShardWriter
from megatron_jobs.text.members import PACKED
from megatron_jobs.text.readers import PAGES, Item, Piece, ReadRules, cut_units, read_unit
from megatron_jobs.text.record import Record, to_line
from megatron_jobs.text.shards import HEAD, Quarantined
from tests.warcs import packed, page, record, write

LIMIT = 5000
"""Bytes of a record."""
MOST_SECONDS = 5
WORDS = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\n\n",
    b"\r\n",
    b"{",
    b"=?x?q?",
    b"WARC/1.0\r\n",
    b"\x1f\x8b\x08",
]
WORDS += [
    b"[" * 99,
    b'"\\ud800"',
    b"9" * 40,
    b"charset=unicode_escape ",
    b";charset*0=a;charset*=b",
]
WORDS += [
    b"Content-Length: 99999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: br\r\n",
]


def lines(draw: random.Random) -> bytes:
    rows: list[Any] = [
        {"id": n, "text": "é" * draw.randrange(90), "metadata": {"a": [n, None]}} for n in range(20)
    ]
    rows[3] |= {"lang": "de", "url": "http://x/é", "n": 1.5, "text": "x" * (LIMIT + 1)}
    return "\n".join(map(json.dumps, rows)).encode()


def archive(draw: random.Random) -> list[bytes]:
    info = record(b"a: b\r\n", kind="warcinfo")
    text = record(
        "größe".encode() * draw.randrange(50), kind="conversion", WARC_Record_ID="<urn:c>"
    )
    long = page(99, text="x" * LIMIT)
    return [
        info,
        *(page(n, text="ö" * draw.randrange(200)) for n in range(9)),
        text,
        long,
        page(10),
    ]


def mail(draw: random.Random) -> bytes:
    message = EmailMessage()
    message["Subject"], message["Message-ID"] = "Größe " * draw.randrange(1, 9), "<a@b>"
    message["Date"] = "Mon, 6 May 2024 07:08:09 +0200"
    message.set_content("Ein Text: é\n" * draw.randrange(20), charset="utf-8")
    message.add_alternative("<p>é", subtype="html", charset="latin-1")
    message.add_attachment(b"\0" * 99, maintype="image", subtype="png")
    return bytes(message)


def rows(draw: random.Random) -> pa.Table:
    when = datetime.datetime(2024, 5, 6, tzinfo=datetime.UTC)
    return pa.table(
        {
            "id": [str(n) for n in range(40)],
            "text": ["é" * draw.randrange(99) for _ in range(40)],
            "when": [when] * 40,
            "list": [[{"a": n, "b": b"\xff"}] * (n % 3) for n in range(40)],
        }
    )


def table(draw: random.Random) -> bytes:
    file = io.BytesIO()
    kind = draw.choice(["none", "zstd", "snappy"])
    parquet.write_table(rows(draw), file, row_group_size=9, compression=kind)
    return file.getvalue()


def arrow(draw: random.Random) -> bytes:
    file = io.BytesIO()
    maker = draw.choice([pa.ipc.new_stream, pa.ipc.new_file])
    with maker(file, rows(draw).schema) as writer:
        writer.write_table(rows(draw), max_chunksize=9)
    return file.getvalue()


def shard(draw: random.Random) -> bytes:
    columns = {"text": "str", "m": "json", "ids": "ndarray:uint16", "n": "int"}
    with tempfile.TemporaryDirectory() as folder:
        writer = ShardWriter(Path(folder), columns, str, packed=False)
        for n in range(20):
            writer.add({"text": "é" * draw.randrange(99), "m": {"a": [n]}, "ids": [1] * n, "n": n})
        writer.finish()
        return Path(folder, "0.mds").read_bytes()


def members(parts: list[bytes]) -> bytes:
    return b"".join(map(zstandard.ZstdCompressor(write_checksum=True).compress, parts))


def halves(data: bytes) -> list[bytes]:
    return [data[: len(data) // 2], data[len(data) // 2 :]]


FORMATS: dict[str, Callable[[random.Random], bytes]] = {
    "a.jsonl": lines,
    "a.jsonl.gz": lambda draw: packed(*halves(lines(draw))),
    "a.jsonl.zst": lambda draw: members(halves(lines(draw))),
    "a.warc": lambda draw: b"".join(archive(draw)),
    "a.warc.gz": lambda draw: packed(*archive(draw)),
    "b.warc.gz": lambda draw: gzip.compress(b"".join(archive(draw))),
    "a.warc.zst": lambda draw: members(archive(draw)),
    "a.wet": lambda draw: b"".join(archive(draw)[-3:]),
    "a.txt": lambda draw: "é".encode() * draw.randrange(99),
    "a.html": lambda draw: page(1)[draw.randrange(300) :],
    "a.html.gz": lambda draw: gzip.compress(page(1)),
    "a.eml": mail,
    "a.parquet": table,
    "a.arrow": arrow,
    "a.mds": shard,
    "a.mds.zst": lambda draw: members([shard(draw)]),
}


def broken(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """Bytes flipped, cut out, put in, taken from another file of the format, and what is left."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4, 20])):
        at = draw.randrange(len(found) + 1)
        size = draw.choice([1, 2, 4, 30, 300])
        match draw.randrange(7):
            case 0 | 1:
                found[at : at + 1] = bytes([draw.randrange(256)])
            case 2:
                found[at : at + size] = draw.randbytes(size)
            case 3:
                del found[at : at + size]
            case 4:
                found[at:at] = draw.choice(WORDS)
            case 5:
                start = draw.randrange(len(other) + 1)
                found[at:at] = other[start : start + size]
            case _:
                del found[at : at + draw.choice([1, 1, 1 << 30])]
    return bytes(found)


def check(folder: Path, name: str, data: bytes, unit_bytes: int) -> list[Item]:
    """Read it: nothing is raised, what is read is no more than the bytes can hold, and can be
    written."""
    path = write(folder / name, data)
    kind = name.partition(".")[2].partition(".")[0]
    rules = ReadRules(limit=LIMIT, pages=f".{kind}" in PAGES)
    start = time.monotonic()
    units = cut_units([Piece(path, 0, len(data), name)], unit_bytes)
    items = [item for unit in units for item in read_unit(unit, rules)]
    took = time.monotonic() - start
    assert took < MOST_SECONDS, f"{name}: {took:.1f} s for {len(data)} bytes"
    plain = not name.endswith(PACKED)
    assert len(items) <= len(data) or not plain, f"{name}: {len(items)} of {len(data)} bytes"
    for item in items:
        match item:
            case Record():
                item.payload = b""
                to_line(item)
            case Quarantined():
                assert item.size >= 0, item
                assert len(item.head) <= HEAD, item
                assert len(item.reason) < 200, item
                orjson.dumps([item.place, item.reason])
    return items


def attempts(name: str, seed: int) -> Iterator[tuple[bytes, int]]:
    """Broken files, each with the size of the units that it is to be cut into."""
    draw = random.Random(f"{name} {seed}")
    while True:
        data, other = FORMATS[name](draw), FORMATS[name](draw)
        for _ in range(20):
            yield broken(data, other, draw), draw.choice([300, 1000, 1 << 30])
        plain, _, end = name.rpartition(".")
        if name.endswith(PACKED) and plain in FORMATS:
            inside = broken(FORMATS[plain](draw), FORMATS[plain](draw), draw)
            yield gzip.compress(inside) if end == "gz" else members([inside]), 1 << 30


def main(seconds: float, seed: int, end: str) -> None:
    """Go on for some seconds; a file that breaks a rule ends it, and is left in the folder told."""
    streams = {name: attempts(name, seed) for name in FORMATS if name.endswith(end)}
    folder = Path(tempfile.mkdtemp())
    count, start = 0, time.monotonic()
    print(folder, flush=True)
    while time.monotonic() - start < seconds:
        for name, stream in streams.items():
            count += 1
            attempt(folder, name, *next(stream), count)
    print(re.findall("VmHWM.*", Path("/proc/self/status").read_text()))
    print(f"{count} files in {time.monotonic() - start:.0f} s")


def attempt(folder: Path, name: str, data: bytes, unit_bytes: int, count: int) -> None:
    """Check a file; tell what is wrong, and keep it."""
    try:
        check(folder, name, data, unit_bytes)
    except BaseException as error:
        write(folder / f"broken-{count}-{name}", data)
        print(f"{name}: {count}: {type(error).__name__}: {error}"[:300], flush=True)
        raise


if __name__ == "__main__":
    main(float(sys.argv[1]), int([*sys.argv, "1"][2]), [*sys.argv, "", ""][3])
