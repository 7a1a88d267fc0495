"""Which files of an unfinished folder are finished: a journal that outlives a kill."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import PARTIAL, remove
from megatron_jobs.runtime.journal import read_journal

HEAD = 1 << 16
"""Bytes at either end of a source that are hashed: its header, and what a copy cut short lacks."""


@dataclass(frozen=True)
class Written:
    """A finished file."""

    bytes: int
    sha256: str


def source_key(sources: Iterable[Path], settings: Mapping[str, Any]) -> str:
    """A hash of what a conversion's result depends on.

    Of each source: its place, size, time of change and both ends; not all its bytes.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in sorted(sources):
        facts = path.stat()
        digest.update(f"{path.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(HEAD))
            file.seek(max(0, facts.st_size - HEAD))
            digest.update(file.read(HEAD))
    return digest.hexdigest()


@dataclass(frozen=True)
class Stamp:
    """What changes with a file."""

    inode: int
    bytes: int
    changed: int
    """When it was written to, in ns."""

    @classmethod
    def of(cls, path: Path) -> "Stamp | None":
        """That of a file; None where there is none."""
        try:
            facts = path.stat()
        except OSError:
            return None
        return cls(facts.st_ino, facts.st_size, facts.st_mtime_ns)


class Sources:
    """Files as they were before anything of them was read."""

    def __init__(self) -> None:
        self.stamps: dict[Path, Stamp | None] = {}

    def note(self, paths: Iterable[Path]) -> None:
        """Have these files in mind as they are now, those that are known already as they were."""
        for path in paths:
            if path not in self.stamps:
                self.stamps[path] = Stamp.of(path)

    def check(self) -> None:
        """Raise DataError naming the first that is another, or was written to."""
        for path, before in self.stamps.items():
            now = Stamp.of(path)
            if now != before:
                found = f"{path}: changed while it was read: {_difference(before, now)}"
                raise DataError(f"{found}; nothing was made of the mixture, begin again")


def _difference(before: Stamp | None, now: Stamp | None) -> str:
    if before is None or now is None:
        return "it is gone" if now is None else "it was not there"
    if before.inode != now.inode:
        return "it was replaced"
    if before.bytes != now.bytes:
        return f"it had {before.bytes:,} bytes and has {now.bytes:,}"
    return "it was written to"


def journal_of(folder: Path) -> Path:
    """Where the journal of a folder is, while that is not there."""
    return folder.with_name(f"{folder.name}.journal{PARTIAL}")


class Journal:
    """The finished files of one folder. One process holds it at a time."""

    def __init__(self, path: Path, file: TextIO, key: str) -> None:
        self.path, self.file, self.key = path, file, key
        self.written: dict[str, Written] = {}

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *keys: str) -> "Iterator[Journal]":
        """The journal of `folder`; it is removed when the folder is there at the end.

        Raises: UserError when another process writes the folder.
        """
        path = journal_of(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{folder}: another process is writing it; wait for it") from error
            yield cls(path, file, hashlib.sha256("".join(keys).encode()).hexdigest())
            if folder.exists():
                remove(path)

    def resume(self, part: Path, sizes: Mapping[str, int]) -> dict[str, Written]:
        """What of `part` need not be written again; anything else there is removed.

        Args:
            sizes: bytes of each file that is to be there.
        """
        noted = self._read()
        for name, written in noted.items():
            path = part / name
            same = path.is_file() and path.stat().st_size == written.bytes == sizes.get(name)
            if same:
                self.written[name] = written
        for path in sorted(part.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                continue
            if path.relative_to(part).as_posix() not in self.written:
                remove(path)
        self._begin()
        if self.written:
            print(f"{part.name}: {len(self.written)} finished files are kept", flush=True)
        return dict(self.written)

    def _read(self) -> dict[str, Written]:
        records = read_journal(self.path)
        if not records:
            return {}
        if records[0].get("key") != self.key:
            print(
                f"{self.path.name}: of other sources or settings; all is written anew", flush=True
            )
            return {}
        facts = [record for record in records[1:] if "name" in record]
        return {fact.pop("name"): Written(**fact) for fact in facts}

    def _begin(self) -> None:
        """Write the journal anew with what is kept."""
        self.file.truncate(0)
        self._line({"key": self.key})
        for name, written in self.written.items():
            self._line({"name": name, **asdict(written)})

    def note(self, name: str, written: Written) -> None:
        """A file is finished and on the disk."""
        self.written[name] = written
        self._line({"name": name, **asdict(written)})

    def forget(self) -> None:
        """Nothing is to be kept."""
        self.written.clear()
        self.file.truncate(0)

    def _line(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
