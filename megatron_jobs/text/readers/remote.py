"""Files elsewhere, by any address that fsspec knows: s3://, gs://, https://, memory://, file://."""

import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from megatron_jobs.errors import UserError

BLOCK = 1 << 23
"""Bytes asked for at once: a stream, not a record, is what is read."""
STAMPS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "created")
"""Under which of these names a file system tells versions of a file apart, by preference."""
PATTERN = set("*?[")


@dataclass(frozen=True)
class RemoteFile:
    """A file elsewhere."""

    url: str
    size: int
    """Bytes."""
    stamp: str
    """Another one for another version, as far as its place tells."""

    @property
    def name(self) -> str:
        """The last part of its address."""
        return posixpath.basename(self.url.partition("?")[0])


def remote_files(urls: Iterable[str], kind_of: Callable[[Path], str]) -> Iterator[RemoteFile]:
    """The files that addresses or patterns (`s3://bucket/crawl/*.warc.gz`) name, in order.

    Raises: UserError where none is there, one cannot be read, or the package of its protocol is
    not installed.
    """
    for url in urls:
        system = file_system(url)
        found = _expanded(system, url)
        if not found:
            raise UserError(f"{url}: no such file; see the address, and that it may be read")
        for one in found:
            info = system.info(one)
            size = info.get("size")
            if size is None:
                cure = "its server does not say how large it is: fetch it first (stage `fetch`)"
                raise UserError(f"{one}: {cure}")
            stamp = next((str(info[name]) for name in STAMPS if info.get(name)), str(size))
            file = RemoteFile(one, int(size), stamp)
            if not kind_of(Path(file.name)):
                raise UserError(f"{one}: nobody here reads files with such a name")
            yield file


def file_system(url: str) -> Any:
    """The file system of an address; UserError with its cure when it cannot be had."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)[0]
    except ImportError as error:
        raise UserError(f"{url}: {error}") from error
    except ValueError as error:
        cure = "known are s3://, gs://, https:// and what else fsspec has"
        raise UserError(f"{url}: {error}; {cure}") from error


def open_remote(url: str) -> IO[bytes]:
    """Its bytes, asked for in large blocks."""
    import fsspec

    return cast(IO[bytes], fsspec.open(url, "rb", block_size=BLOCK, cache_type="readahead").open())


def _expanded(system: Any, url: str) -> list[str]:
    path = url.partition("://")[2]
    if not PATTERN & set(path.partition("?")[0] if url.startswith("http") else path):
        return [url] if system.exists(url) else []
    return sorted(system.unstrip_protocol(one) for one in system.glob(url))
