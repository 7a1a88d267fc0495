"""Web archives: what is whole is read, what is broken is named, and nothing is read twice."""

import gzip
import random
import re
from pathlib import Path

import pytest
import zstandard

from megatron_jobs.text.readers import ReadRules
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Quarantined
from tests.warcs import packed, page, read, record, told, write

INFO = record(b"software: x\r\n", kind="warcinfo", Content_Type="application/warc-fields")
REQUEST = record(b"GET / HTTP/1.1\r\n\r\n", kind="request", Content_Type="application/http")
WHOLE = ["-warcinfo", "1", "-request", "2", "3"]
RECORDS = [INFO, page(1), REQUEST, page(2), page(3)]


def forms() -> dict[str, bytes]:
    """The same archive in every way that it may be packed."""
    plain = b"".join(RECORDS)
    zst = zstandard.ZstdCompressor()
    blocks = [plain[at : at + 100] for at in range(0, len(plain), 100)]
    trained = zstandard.train_dictionary(1024, [page(n) for n in range(500)])
    known = zstandard.ZstdCompressor(dict_data=trained)
    head = b"\x5d\x2a\x4d\x18" + len(trained.as_bytes()).to_bytes(4, "little") + trained.as_bytes()
    return {
        "a.warc": plain,
        "members.warc.gz": packed(*RECORDS),
        "whole.warc.gz": gzip.compress(plain),
        "blocks.warc.gz": packed(*blocks),
        "frames.warc.zst": b"".join(zst.compress(one) for one in RECORDS),
        "whole.warc.zst": zst.compress(plain),
        "dictionary.warc.zst": head + b"".join(known.compress(one) for one in RECORDS),
    }


@pytest.mark.parametrize("name", forms())
def test_however_it_is_packed(tmp_path: Path, name: str) -> None:
    items = read(write(tmp_path / name, forms()[name]))
    assert told(items) == WHOLE
    first = items[1]
    assert isinstance(first, Record)
    assert first.url == "http://example.org/1"
    assert first.date == "2024-05-06T07:08:09Z"
    assert first.metadata == {"status": 200, "content_type": "text/html", "charset": "utf-8"}
    assert b"Text of page 1." in first.payload


@pytest.mark.parametrize("name", ["a.warc", "whole.warc.gz", "members.warc.gz"])
@pytest.mark.parametrize("lie", [-30, -1, 5, 300, 10**6, 10**15])
def test_a_length_that_lies_costs_its_record_only(tmp_path: Path, name: str, lie: int) -> None:
    true = len(page(2)) - page(2).index(b"HTTP/1.1") - 4
    records = [page(1), page(2, length=true + lie), page(3)]
    data = b"".join(records)
    forms = {
        "a.warc": data,
        "whole.warc.gz": gzip.compress(data),
        "members.warc.gz": packed(*records),
    }
    items = read(write(tmp_path / name, forms[name]), rules=ReadRules(pages=True, limit=10**7))
    assert told(items) == ["1", "!wrong length", "3"]
    broken = items[1]
    assert isinstance(broken, Quarantined)
    assert broken.head.startswith(b"WARC/1.0")
    if name == "a.warc":
        assert broken.place == f"a.warc@{len(page(1))}"
        assert broken.size == len(records[1])


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_a_length_over_the_limit_that_lies(tmp_path: Path, name: str) -> None:
    """It takes none of the records behind it, whatever chunks they are read in; the wanted kind
    and one that would be skipped."""
    long = page(2, text="x" * 3000)
    blind = record(b"y" * 30, kind="request", length=5000)
    pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)
    for lie in (1500, 5000, 2_500_000, 10**9):
        filler = [page(n, text="z" * (n % 900)) for n in range(10, 3000)]
        records = [page(1), page(50, length=lie), long, blind, *filler]
        path = write(tmp_path / name, pack(b"".join(records)))
        items = read(path, rules=ReadRules(pages=True, limit=1200))
        words = ["1", "!wrong length", "!too long", "!wrong length"]
        assert told(items) == [*words, *map(str, range(10, 3000))], lie
        sizes = [item.size for item in items if isinstance(item, Quarantined)]
        assert sizes[1] == len(long) - len(b"\r\n\r\n")


def test_a_header_without_its_blank_line(tmp_path: Path) -> None:
    broken = page(2).replace(b"\r\n\r\nHTTP", b"\r\nHTTP", 1)
    for name, data in {
        "a.warc": page(1) + broken + page(3),
        "a.warc.gz": packed(page(1), broken, page(3)),
    }.items():
        assert told(read(write(tmp_path / name, data))) == ["1", "!header without end", "3"]


def test_headers_that_say_no_length(tmp_path: Path) -> None:
    for said in (b"Content-Length: -5", b"Content-Length: \xc2\xb2", b"X: 1"):
        broken = re.sub(rb"Content-Length: \d+", said, page(2), count=1)
        data = page(1) + broken + page(3)
        assert told(read(write(tmp_path / "a.warc", data))) == ["1", "!no length", "3"]


def test_an_answer_without_end_of_its_header(tmp_path: Path) -> None:
    one = record(b"HTTP/1.1 200 OK\r\nX: y\r\n", Content_Type="application/http")
    assert told(read(write(tmp_path / "a.warc", one))) == ["!HTTP header without end"]


def test_zeros_and_other_bytes_between_records(tmp_path: Path) -> None:
    data = page(1) + b"\0" * 3_000_000 + b"\r\n" + page(2) + b"no record\r\n" + page(3)
    items = read(write(tmp_path / "a.warc", data))
    # the first record cannot be told from one with a length that is too small
    assert told(items) == ["!wrong length", "!wrong length", "3"]
    data = page(1) + b"\r\n" + page(2)
    assert told(read(write(tmp_path / "b.warc", b"noise\n" + data))) == [
        "!no WARC record",
        "1",
        "2",
    ]


def test_an_archive_that_ends_anywhere(tmp_path: Path) -> None:
    """Cut at each of some places: records before it are read, at most one thing is quarantined."""
    records = [page(n) for n in range(4)]
    plain, gz = b"".join(records), packed(*records)
    ends = [sum(map(len, records[:n])) for n in range(5)]
    for at in random.Random(1).sample(range(1, len(plain)), 60):
        found = told(read(write(tmp_path / "a.warc", plain[:at])))
        whole = sum(end - 4 <= at for end in ends[1:])  # its blank lines may be cut off
        assert found[:whole] == [str(n) for n in range(whole)]
        assert len(found[whole:]) <= 1, found
        assert found[whole:] in ([], ["!cut short"], ["!header without end"], ["!no WARC record"])
    for at in random.Random(2).sample(range(1, len(gz)), 60):
        found = told(read(write(tmp_path / "a.warc.gz", gz[:at])))
        whole = sum(at >= len(packed(*records[: n + 1])) for n in range(4))
        if at in [len(packed(*records[:n])) for n in range(5)]:
            assert found == [str(n) for n in range(whole)]
            continue
        # of a member whose checksum alone is missing the record is whole by its length
        assert found[-1] == "!cut short"
        assert found[:-1] in ([str(n) for n in range(whole)], [str(n) for n in range(whole + 1)])


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_damaged_members_cost_themselves(tmp_path: Path, suffix: str) -> None:
    """A byte is changed anywhere in one member of 20: the 19 others are read."""
    pack = zstandard.ZstdCompressor(write_checksum=True).compress
    noise = random.Random(3)
    text = " ".join(str(noise.random()) for _ in range(400))
    one = packed if suffix == "gz" else lambda r: pack(r)
    members = [one(page(n, text=f"{n} {text}")) for n in range(20)]
    for _ in range(40):
        bad = noise.randrange(20)
        broken = bytearray(members[bad])
        place = noise.randrange(len(broken))
        if suffix == "gz" and 4 <= place < 10:
            continue  # time, flags and system: nobody reads them
        broken[place] ^= 1 << noise.randrange(8)
        data = b"".join([*members[:bad], bytes(broken), *members[bad + 1 :]])
        found = told(read(write(tmp_path / f"a.warc.{suffix}", data)))
        good = [str(n) for n in range(20) if n != bad]
        everything = [str(n) for n in range(20)]
        assert [word for word in found if not word.startswith("!")] in (good, everything)
        assert sum(word.startswith("!") for word in found) <= 1, found


def test_noise_between_members(tmp_path: Path) -> None:
    noise = random.Random(5).randbytes(500_000)
    data = packed(page(1)) + noise + packed(page(2)) + b"\0" * 4096 + packed(page(3))
    items = read(write(tmp_path / "a.warc.gz", data))
    assert told(items) == ["1", "!damaged", "2", "!damaged", "3"]
    gap = items[1]
    assert isinstance(gap, Quarantined)
    assert (gap.place, gap.size) == (f"a.warc.gz@{len(packed(page(1)))}", 500_000)


def test_records_over_the_limit(tmp_path: Path) -> None:
    long = page(2, text="x" * 100_000)
    big_request = record(b"x" * 100_000, kind="request")
    rules = ReadRules(pages=True, limit=50_000)
    data = [page(1), long, big_request, page(3)]
    for name, content in {"a.warc": b"".join(data), "a.warc.gz": packed(*data)}.items():
        items = read(write(tmp_path / name, content), rules=rules)
        assert told(items) == ["1", "!too long", "-other", "3"]


def test_texts_of_a_wet_file(tmp_path: Path) -> None:
    text = "Ein Text.\nNoch einer."
    one = record(
        text.encode(),
        kind="conversion",
        WARC_Record_ID="<urn:uuid:7>",
        WARC_Target_URI="http://example.org/7",
        WARC_Identified_Content_Language="deu,eng",
        Content_Type="text/plain",
    )
    bad = record(b"\xff\xfe\xfd", kind="conversion", Content_Type="text/plain")
    path = write(tmp_path / "a.warc.wet.gz", packed(INFO, one, bad))
    items = read(path, rules=ReadRules())
    assert told(items) == ["-warcinfo", "7", "!not UTF-8"]
    assert isinstance(items[1], Record)
    assert items[1].text == text
    assert items[1].metadata == {"identified_languages": "deu,eng"}


def test_types_that_hold_no_page(tmp_path: Path) -> None:
    kinds = ["request", "metadata", "revisit", "warcinfo", "continuation"]
    dns = record(b"x", kind="response", WARC_Target_URI="dns:example.org", Content_Type="text/dns")
    resource = record(b"<p>x", kind="resource", Content_Type="text/html", WARC_Record_ID="<r>")
    data = b"".join(record(b"", kind=kind) for kind in kinds) + dns + resource
    items = read(write(tmp_path / "a.warc", data))
    assert told(items) == [*(f"-{kind}" for kind in kinds), "-other", "r"]


def test_lines_that_end_in_lf_alone(tmp_path: Path) -> None:
    records = []
    for one in (page(1), page(2)):
        one = one.replace(b"\r\n", b"\n")
        said = b"Content-Length: %d" % len(one[one.index(b"\n\n") + 2 : -2])
        records.append(re.sub(rb"Content-Length: \d+", said, one, count=1))
    assert told(read(write(tmp_path / "a.warc", b"".join(records)))) == ["1", "2"]
