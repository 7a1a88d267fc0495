"""Files that are one document each: texts and pages; plain, gz or zst."""

from collections.abc import Iterator

from megatron_jobs.text.members import Gap, unpack
from megatron_jobs.text.readers import Item, Piece, ReadRules
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
    data = read_whole(piece, rules)
    if isinstance(data, Quarantined):
        yield data
    else:
        yield _item(piece.name, TYPES[piece.format], data, rules)


def read_whole(piece: Piece, rules: ReadRules) -> bytes | Quarantined:
    """All of a file, unpacked; of one that is too long only the limit is held."""
    name, data, size = piece.name, bytearray(), 0
    with piece.open() as file:
        for chunk in unpack(file, piece.path.name):
            if isinstance(chunk, Gap):
                place = f"{name}@{chunk.at}"
                return Quarantined(place, chunk.reason, chunk.size, bytes(data[:HEAD]))
            size += len(chunk.data)
            data += chunk.data[: max(rules.limit + 1 - len(data), 0)]
    if size > rules.limit:
        return Quarantined(name, "too long", size, bytes(data[:HEAD]))
    return bytes(data)


def _item(name: str, kind: str, data: bytes, rules: ReadRules) -> Item:
    record = Record(id=name, text="", metadata={"content_type": kind})
    if kind == "text/plain" and not rules.pages:
        try:
            record.text, record.metadata = data.decode("utf-8-sig"), {}
        except UnicodeDecodeError:
            return Quarantined(name, "not UTF-8", len(data), data[:HEAD])
        return record
    record.payload = data
    return record
