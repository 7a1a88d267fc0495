"""Forms that documents are written in: JSON lines, Parquet, Arrow as `datasets` has it, MDS.

Columns are those of a record: id, text, source, licence, language, url, date as strings and
metadata as a string of JSON, "" where there is nothing. Of token files they are id and tokens.
A file is there whole or not at all; its name ends as its form wants.
"""

import contextlib
import gzip
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import orjson
import zstandard

from megatron_jobs.runtime.files import whole_file, write_json
from megatron_jobs.text.mds import Row, ShardWriter
from megatron_jobs.text.record import NAMES, Record, to_line
from megatron_jobs.text.shards import SUFFIX, write_shard

FormName = Literal["jsonl", "parquet", "datasets", "mds"]
Packing = Literal["zstd", "gzip", "none"]
SHARDS = "shards"
"""Folder beside the documents with what index.json says of a unit's MDS shards."""
ROWS = 1000
"""Of a group of rows at most: what `datasets` writes."""
GROUP_BYTES = 1 << 25
"""Text of a group of rows at most, or one row."""
TEXT_COLUMNS = dict.fromkeys(NAMES, "string")
TOKENS = "tokens"
"""Key of the metadata that holds the ids of a document of a token file."""


class Sink(Protocol):
    """Takes the records of one file."""

    def write(self, record: Record) -> None:
        """One more."""
        ...


class Form(Protocol):
    """A form; called with the name of a file without its end."""

    def __call__(self, stem: Path) -> AbstractContextManager[Sink]: ...


@dataclass
class _Lines:
    """Lines of JSON."""

    stream: IO[bytes]

    def write(self, record: Record) -> None:
        self.stream.write(to_line(record))


@contextlib.contextmanager
def as_shards(stem: Path) -> Iterator[Sink]:
    """The shards of a stage; see `text.shards`."""
    with write_shard(stem.with_name(stem.name + SUFFIX)) as stream:
        yield _Lines(stream)


@dataclass(frozen=True)
class AsLines:
    """JSON lines."""

    packing: Packing

    @contextlib.contextmanager
    def __call__(self, stem: Path) -> Iterator[Sink]:
        """See `Form`."""
        end = {"zstd": ".zst", "gzip": ".gz", "none": ""}[self.packing]
        with (
            whole_file(stem.with_name(f"{stem.name}.jsonl{end}")) as part,
            part.open("wb") as file,
            self._packed(file) as stream,
        ):
            yield _Lines(stream)

    def _packed(self, file: IO[bytes]) -> AbstractContextManager[Any]:
        if self.packing == "none":
            return contextlib.nullcontext(file)
        if self.packing == "gzip":
            return gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0, compresslevel=6)
        return zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False)


@dataclass(frozen=True)
class AsTables:
    """Parquet, or an Arrow stream as `datasets` of Hugging Face saves it."""

    arrow: bool = False
    packing: Packing = "zstd"
    """Of Parquet; Arrow streams are never packed: they are mapped into memory."""
    tokens: str = ""
    """Type of the ids, such as uint16, where records are documents of a token file."""

    @contextlib.contextmanager
    def __call__(self, stem: Path) -> Iterator[Sink]:
        """See `Form`."""
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        schema = _schema(self.tokens)
        end = ".arrow" if self.arrow else ".parquet"
        with whole_file(stem.with_name(stem.name + end)) as part, part.open("wb") as file:
            writer = (
                pa.ipc.new_stream(file, schema)
                if self.arrow
                else ParquetWriter(file, schema, compression=self.packing)
            )
            sink = _Table(writer, schema, self.tokens)
            with writer:
                yield sink
                sink.flush()


@dataclass
class _Table:
    """Rows that become a group when there are enough."""

    writer: Any
    schema: Any
    tokens: str
    rows: list[Row] = field(default_factory=list)
    size: int = 0

    def write(self, record: Record) -> None:
        row = row_of(record, self.tokens)
        size = sum(len(value) for value in row.values())
        if self.rows and (len(self.rows) >= ROWS or self.size + size > GROUP_BYTES):
            self.flush()
        self.rows.append(row)
        self.size += size

    def flush(self) -> None:
        import pyarrow as pa

        if self.rows:
            batch = pa.RecordBatch.from_pylist(self.rows, self.schema)
            self.writer.write_batch(batch)
        self.rows, self.size = [], 0


@dataclass(frozen=True)
class AsMds:
    """MDS; what index.json is to say of a unit's shards goes to ../shards/UNIT.json."""

    packed: bool = True
    tokens: str = ""
    """As of `AsTables`."""

    @contextlib.contextmanager
    def __call__(self, stem: Path) -> Iterator[Sink]:
        """See `Form`."""
        columns = {"id": "str", TOKENS: f"ndarray:{self.tokens}"} if self.tokens else _STRINGS
        writer = ShardWriter(stem.parent, columns, lambda i: f"{stem.name}.{i:04d}", self.packed)
        yield _Mds(writer, self.tokens)
        writer.finish()
        write_json(stem.parents[1] / SHARDS / f"{stem.name}.json", writer.shards)


_STRINGS = dict.fromkeys(NAMES, "str")


@dataclass
class _Mds:
    writer: ShardWriter
    tokens: str

    def write(self, record: Record) -> None:
        self.writer.add(row_of(record, self.tokens))


def row_of(record: Record, tokens: str = "") -> Row:
    """A record as a row of columns."""
    if tokens:
        return {"id": record.id, TOKENS: record.metadata[TOKENS]}
    row = {name: getattr(record, name) for name in NAMES}
    found = record.metadata
    row["metadata"] = orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode() if found else ""
    return row


def _schema(tokens: str) -> Any:
    """Of Arrow, with what `datasets` wants to know about it."""
    import pyarrow as pa

    if tokens:
        fields = [("id", pa.string()), (TOKENS, pa.list_(pa.type_for_alias(tokens)))]
    else:
        fields = [(name, pa.string()) for name in NAMES]
    about = {"info": {"features": features(tokens)}}
    return pa.schema(fields, metadata={"huggingface": orjson.dumps(about)})


def features(tokens: str = "") -> dict[str, Any]:
    """The columns in the words of `datasets`."""
    found: dict[str, Any] = {
        name: {"dtype": "string", "_type": "Value"} for name in (["id"] if tokens else NAMES)
    }
    if tokens:
        found[TOKENS] = {"feature": {"dtype": tokens, "_type": "Value"}, "_type": "List"}
    return found
