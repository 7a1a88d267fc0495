"""Rows of Parquet and Arrow files, by batches; the columns are the keys of a record.

Arrow files are streams or IPC files, as `datasets` of Hugging Face writes them (data-*.arrow of
`save_to_disk`); of such a folder only what its state.json names is data. A row is named FILE:ROW.

In memory are a batch of rows, of a Parquet file two pages of each column too, of one elsewhere the
columns of a row group, and of an Arrow file one of its own batches: smaller its makers have not
made them.
"""

from collections.abc import Iterator
from typing import IO, Any

from megatron_jobs.text.documents import NotADocument
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.record import from_object
from megatron_jobs.text.shards import HEAD, Quarantined

ROWS = 1024
"""Of a batch at most."""
BATCH_BYTES = 1 << 24
"""Of a batch, about, or one row."""
NO_VALUES = (ValueError, OverflowError, LookupError, NotImplementedError)
"""Raised for values that Python's types cannot hold, and by Arrow for what is damaged."""
BUFFER = 1 << 20
"""Bytes read at once of each column."""


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The rows of the row groups that belong to the piece, or of the whole Arrow file."""
    import pyarrow as pa

    with piece.open() as file:
        number = 0
        try:
            for number, batch in _batches(piece, file):
                yield from _rows(batch, number, piece.name, rules)
        # a size that lies may ask for more memory than there is
        except (pa.ArrowException, UnicodeDecodeError, MemoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk or the net, not of the content
            reason = "cut short" if number else "damaged"
            yield Quarantined(f"{piece.name}:{number}", reason, piece.size, str(error).encode())


def _batches(piece: Piece, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """(number of its first row in the file, from 1, batch)."""
    if piece.format == ".parquet":
        yield from _parquet(piece, file)
        return
    number = 1
    for batch in _arrow(file):
        step = _rows_at_once(batch.num_rows, batch.get_total_buffer_size())
        for start in range(0, batch.num_rows, step):
            yield number + start, batch.slice(start, step)
        number += batch.num_rows


def _rows_at_once(rows: int, size: int) -> int:
    """How many rows a batch may have, where `rows` take `size` bytes, if that is true."""
    return min(max(BATCH_BYTES * rows // max(size, 1), 1), ROWS)


def _parquet(piece: Piece, file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    from pyarrow.parquet import ParquetFile

    # what is elsewhere is asked for in few large parts
    table = ParquetFile(file, buffer_size=0 if piece.url else BUFFER, pre_buffer=bool(piece.url))
    size, groups = file.seek(0, 2), table.num_row_groups
    number = 1
    for group in range(groups):
        facts = table.metadata.row_group(group)
        rows, step = facts.num_rows, _rows_at_once(facts.num_rows, facts.total_byte_size)
        at = number
        # where groups begin is not asked for: pyarrow ends the process when a column's facts
        # are damaged; they are dealt out evenly instead
        if piece.start <= size * group // groups < piece.end:
            for batch in table.iter_batches(step, row_groups=[group]):
                yield at, batch
                at += batch.num_rows
        number += rows


def _arrow(file: IO[bytes]) -> Iterator[Any]:
    from pyarrow import ipc

    is_file = file.read(6) == b"ARROW1"
    file.seek(0)
    if is_file:
        reader = ipc.open_file(file)
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from ipc.open_stream(file)


def _rows(batch: Any, number: int, name: str, rules: ReadRules) -> Iterator[Item]:
    try:
        batch.validate(full=True)  # else damaged offsets lead anywhere in memory
        rows = batch.to_pylist()
    except NO_VALUES:
        rows = [_row(batch.slice(i, 1)) for i in range(batch.num_rows)]
    for place, row in enumerate(rows, number):
        yield _item(row, f"{name}:{place}", rules)


def _row(batch: Any) -> dict[str, Any] | str:
    """A row of a batch that cannot be read as one, or why it is none."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
        row: dict[str, Any] = batch.to_pylist()[0]
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        return "not UTF-8" if "utf" in str(error).lower() else "damaged"
    except LookupError:
        return "unknown time zone"
    except NO_VALUES:
        return "value out of range"
    return row


def _item(row: dict[str, Any] | str, place: str, rules: ReadRules) -> Item:
    if isinstance(row, str):
        return Quarantined(place, row)
    try:
        record = from_object(plain(row), place=place, key=rules.key)
    except RecursionError:
        return Quarantined(place, "no plain JSON")
    except NotADocument as reason:
        return Quarantined(place, str(reason), head=str(row).encode("utf-8", "replace")[:HEAD])
    if len(record.text) > rules.limit:
        return Quarantined(place, "too long", len(record.text), record.text[:HEAD].encode()[:HEAD])
    return record


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON could hold it: dates as text, bytes in base64, no empty keys."""
    return {name: _plain(value) for name, value in row.items() if value is not None}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (bytes, bytearray)):
        from base64 import b64encode

        return b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
