"""Rows of MDS shards of mosaicml-streaming; see `text.mds`. A row is named FILE:ROW."""

from collections.abc import Iterator

from megatron_jobs.text.documents import NotADocument
from megatron_jobs.text.mds import NotMds, Row, read_rows
from megatron_jobs.text.members import unpack
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.readers.tables import plain
from megatron_jobs.text.readers.tape import Tape
from megatron_jobs.text.record import from_object
from megatron_jobs.text.shards import HEAD, Quarantined


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """All rows of a shard, packed or not."""
    number = 0
    with piece.open() as file:
        tape = Tape(unpack(file, piece.path.name))
        try:
            for number, row in read_rows(tape, rules.limit):
                yield _item(row, f"{piece.name}:{number}", rules)
        except NotMds as error:
            reason = tape.gap.reason if tape.gap else str(error)
            yield Quarantined(f"{piece.name}:{number + 1}", reason, piece.size)
            return
        tape.drain()
        if tape.gap:  # behind the last row: its checksum, or more than there should be
            yield Quarantined(f"{piece.name}@{tape.gap.at}", tape.gap.reason, tape.gap.size)


def _item(row: Row | NotMds, place: str, rules: ReadRules) -> Item:
    if isinstance(row, NotMds):
        return Quarantined(place, str(row))
    try:
        return from_object(plain(row), place=place, key=rules.key)
    except NotADocument as reason:
        return Quarantined(place, str(reason), head=str(row).encode("utf-8", "replace")[:HEAD])
