"""Files and folders that are whole or absent, and what they hash to."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from megatron_jobs.errors import DataError, MegatronJobsError

PARTIAL = ".partial"
"""Part of the name under which something unfinished stands; never read, removed on retry."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name beside `path` to write to; on leaving it is synced and becomes `path` at once.

    After an error, or a kill, `path` is what it was before.
    """
    part = _unfinished_name(path)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole_file` for a folder, which must not be there yet."""
    part = path.with_name(path.name + PARTIAL)
    remove(part)
    part.mkdir(parents=True)
    try:
        yield part
        publish_folder(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(part)
        raise


def publish_folder(part: Path, path: Path) -> None:
    """Sync every file below `part`, then rename it to `path`: visible whole, or not at all."""
    for file in sorted(part.rglob("*")):
        sync(file)
    sync(part)
    os.rename(part, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    with whole_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value of a JSON file; DataError when it does not hold one whole."""
    found = path.read_bytes()
    try:
        return json.loads(found.decode("utf-8"))
    except ValueError as error:  # of JSON, or of UTF-8
        what = f"{len(found)} bytes that are no JSON ({error})" if found.strip() else "nothing"
        cure = "a full disk or a copy cut short leaves this: restore it, or remove it"
        raise DataError(f"{path}: found {what}; {cure}") from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(path: Path) -> str:
    """Hash of a file's bytes, or of the names and bytes of all files below a folder.

    Unfinished files do not count. Folders with equal files have equal hashes, wherever they are.
    """
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in whole_files(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


def tree_bytes(path: Path) -> int:
    """Size of a file, or of all files below a folder but unfinished ones, in bytes."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in whole_files(path))


def whole_files(folder: Path) -> list[Path]:
    """Every file below a folder, through links to folders too; nothing unfinished. By name."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if PARTIAL not in name]
        found += [Path(place, name) for name in names if PARTIAL not in name]
    return sorted(path for path in found if path.is_file())


def wait_for(ready: Callable[[], bool], what: str, *, seconds: float, every: float = 0.05) -> None:
    """Return when `ready()` holds; raise MegatronJobsError naming `what` after `seconds`.

    It is asked at once, soon again, and then every `every` seconds.
    """
    end = time.monotonic() + seconds
    pause = min(0.001, every)
    while not ready():
        if time.monotonic() > end:
            raise MegatronJobsError(f"waited {seconds:.0f} s for {what}, in vain")
        time.sleep(pause)
        pause = min(2 * pause, every)


def _unfinished_name(path: Path) -> Path:
    # a process on another node may have the same number
    who = f"{socket.gethostname()}-{os.getpid()}-{threading.get_native_id()}"
    return path.with_name(f".{path.name}.{who}{PARTIAL}")
