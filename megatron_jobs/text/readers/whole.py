"""Files that are one document each: texts and pages; plain, gz or zst."""

from collections.abc import Iterator
from pathlib import PurePath

from megatron_jobs.text.members import Gap, unpack
from megatron_jobs.text.readers import PACKED, Item, Piece, ReadRules
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import HEAD, Quarantined

TYPES = {
    ".txt": "text/plain",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "application/xhtml+xml",
}


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The file's one record, named as the file; pages, and texts in unknown letters, as payload."""
    name = piece.name
    with piece.open() as file:
        data, size = bytearray(), 0
        for chunk in unpack(file, piece.path.name):
            if isinstance(chunk, Gap):
                yield Quarantined(
                    f"{name}@{chunk.at}", chunk.reason, chunk.size, bytes(data[:HEAD])
                )
                return
            size += len(chunk.data)
            data += chunk.data[: max(rules.limit + 1 - len(data), 0)]
    if size > rules.limit:
        yield Quarantined(name, "too long", size, bytes(data[:HEAD]))
    else:
        yield _item(name, bytes(data), rules)


def _item(name: str, data: bytes, rules: ReadRules) -> Item:
    kind = type_of(name)
    record = Record(id=name, text="", metadata={"content_type": kind})
    if kind == "text/plain" and not rules.pages:
        try:
            record.text, record.metadata = data.decode("utf-8-sig"), {}
        except UnicodeDecodeError:
            return Quarantined(name, "not UTF-8", len(data), data[:HEAD])
        return record
    record.payload = data
    return record


def type_of(name: str) -> str:
    """The content type of a file of this name."""
    bare = name.lower()
    for packed in PACKED:
        bare = bare.removesuffix(packed)
    return TYPES[PurePath(bare).suffix]
