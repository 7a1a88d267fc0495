"""Files whose bytes are known before they are written, in a folder that is whole or absent.

FOLDER.partial/           files being written
FOLDER.journal.partial    which of them are finished, and what of: a line of JSON each
FOLDER/                   appears at once, when all is there

A run that was killed is gone on with by the next one with the same sources and settings.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from megatron_jobs.convert.mapped import check_faults
from megatron_jobs.convert.matrix import PIECE, Array, Matrix
from megatron_jobs.convert.written import Journal, Written
from megatron_jobs.errors import DataError, MegatronJobsError, UserError
from megatron_jobs.runtime.files import PARTIAL, publish_folder, sync
from megatron_jobs.runtime.heartbeat import pulse

STEP = 4 << 20
"""Bytes that are hashed and then written, while they are in the processor's cache."""
WINDOW = 16 << 20
"""After so many bytes the disk is asked to begin, so that the sync at the end is short."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Item:
    """Some bytes, a tensor's, and some more."""

    before: bytes = b""
    matrix: Matrix | None = None
    after: bytes | Callable[[int], bytes] = b""
    """A function is given the CRC-32 of the tensor's bytes; how many it gives must not depend on
    that."""
    name: str = ""
    """Of the tensor, for errors."""

    @property
    def bytes(self) -> int:
        """All of them."""
        after = self.after if isinstance(self.after, bytes) else self.after(0)
        return len(self.before) + (self.matrix.bytes if self.matrix else 0) + len(after)


@dataclass(frozen=True)
class FilePlan:
    """What a file will hold."""

    name: str
    """Below the folder, with slashes."""
    items: Sequence[Item] = ()
    summary: Callable[[Mapping[str, Written]], bytes] | None = None
    """Makes a little file from what is known of all that stand before it in the plan."""

    @cached_property
    def bytes(self) -> int:
        """Of its items."""
        return sum(item.bytes for item in self.items)


def bytes_of(plans: Iterable[FilePlan]) -> int:
    """Of all files but summaries."""
    return sum(plan.bytes for plan in plans)


def write_files(
    plans: Sequence[FilePlan],
    folder: Path,
    *,
    key: Callable[[], str],
    threads: int = 2,
    tell: Tell = lambda done: None,
    check: Callable[[Path], None] = lambda part: None,
    unchanged: Callable[[], None] = lambda: None,
) -> dict[str, Written]:
    """Write `folder`, which must not be there yet; what a killed run finished is kept.

    Args:
        key: what the bytes are made of: `source_key` of sources and settings. It is asked again at
            the end, for a source that has changed meanwhile.
        threads: that write files, each one at a time.
        tell: called with the bytes that are done, now and then, by one thread at a time; what it
            raises ends the work (and the next run goes on).
        check: called with the whole unfinished folder; what it raises keeps it from appearing.
        unchanged: raises DataError when a source is not what it was; asked before each file is
            noted as finished, and before the folder appears.
    Returns: sizes and hashes of all files, in the order of the plans.
    Raises: UserError when the disk refuses or the folder is there; DataError for a changed source.
    """
    _check_plans(plans, folder)
    part = folder.with_name(folder.name + PARTIAL)
    began = key()
    with _refusals(folder), Journal.open(folder, began, plans_key(plans)) as journal:
        done = journal.resume(part, {plan.name: plan.bytes for plan in plans if not plan.summary})
        left = [plan for plan in plans if not plan.summary and plan.name not in done]
        _check_room(folder, part, bytes_of(left))
        work = _Work(part, journal, tell, unchanged)
        _write_all(left, work, threads)
        if _changed(key, began):
            journal.forget()
            raise DataError(f"{folder}: not written: a source changed while it was read")
        _write_summaries(plans, work)
        _check_whole(check, work)
        publish_folder(part, folder)
    return {plan.name: journal.written[plan.name] for plan in plans}


def _check_whole(check: Callable[[Path], None], work: "_Work") -> None:
    try:
        check(work.part)
    except DataError:
        work.believe()  # if not, what is finished was made of what is no more, and is right
        work.journal.forget()  # a damaged file would be found again and again
        raise
    work.believe()


def plans_key(plans: Sequence[FilePlan]) -> str:
    """A hash of the names and sizes of all files."""
    text = "".join(f"{plan.name}\0{plan.bytes}\n" for plan in plans)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_plans(plans: Sequence[FilePlan], folder: Path) -> None:
    names = [plan.name for plan in plans]
    twice = [name for name, count in Counter(names).items() if count > 1]
    assert not twice, f"planned twice: {twice}"
    for name in names:
        path = PurePosixPath(name)
        leads_out = path.is_absolute() or ".." in path.parts
        assert not leads_out, f"{name} leads out"
    if folder.exists():
        raise UserError(f"{folder}: is there already; remove it, or name another folder")


def _changed(key: Callable[[], str], began: str) -> bool:
    try:
        return key() != began
    except OSError:  # a source is gone
        return True


def _check_room(folder: Path, part: Path, needed: int) -> None:
    part.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(part).free
    if free < needed:
        found = f"{folder}: {needed:,} bytes are to be written, {free:,} are free"
        raise UserError(f"{found}; make room, or name a folder on another disk")


@contextlib.contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Say in plain words that the disk refused; what is finished stays for the next run."""
    try:
        yield
    except OSError as error:
        full = "the disk is full: " if error.errno in FULL else ""
        kept = "what is finished is kept, and the same command goes on"
        why = f"{full}{error.strerror or error}"
        raise UserError(f"{folder}: could not be written: {why}; {kept}") from error


class _GivenUp(MegatronJobsError):
    """Another file could not be written."""


class _Work:
    """What threads share."""

    def __init__(
        self, part: Path, journal: Journal, tell: Tell, unchanged: Callable[[], None]
    ) -> None:
        self.part, self.journal, self.tell, self.unchanged = part, journal, tell, unchanged
        self.done = sum(written.bytes for written in journal.written.values())
        self.lock = threading.Lock()
        self.given_up = threading.Event()

    def write(self, plan: FilePlan) -> None:
        """Write a file, and note that it is finished."""
        self.go_on()
        path = self.part / plan.name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("wb", buffering=0) as file:
                written = _Output(file.fileno(), self).write(plan)
                os.fsync(file.fileno())
            self.believe()
        except BaseException:
            self.given_up.set()
            with contextlib.suppress(OSError):
                path.unlink()  # on a full disk this is what makes room
            raise
        sync(path.parent)
        with self.lock:
            self.journal.note(plan.name, written)

    def believe(self) -> None:
        """Raise DataError when the sources were not what they seemed."""
        check_faults()
        self.unchanged()

    def go_on(self) -> None:
        """Raise `_GivenUp` when another thread has failed."""
        if self.given_up.is_set():
            raise _GivenUp

    def advance(self, count: int) -> None:
        """Say that some more bytes are written."""
        self.go_on()
        with self.lock:
            self.done += count
            self.tell(self.done)
            pulse()


def _write_summaries(plans: Sequence[FilePlan], work: _Work) -> None:
    for plan in plans:
        if plan.summary:
            work.write(FilePlan(plan.name, [Item(plan.summary(work.journal.written))]))


def _write_all(plans: Sequence[FilePlan], work: _Work, threads: int) -> None:
    """The largest first, so that the threads end together; raises the first error."""
    pool = ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="write")
    by_size = sorted(plans, key=lambda plan: -plan.bytes)
    futures = [pool.submit(work.write, plan) for plan in by_size]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    except BaseException:
        work.given_up.set()
        raise
    finally:
        if any(future.done() and future.exception() for future in futures):
            work.given_up.set()
        pool.shutdown(cancel_futures=True)
    ended = [future for future in futures if not future.cancelled()]
    errors = [error for future in ended if (error := future.exception())]
    errors.sort(key=lambda error: (isinstance(error, _GivenUp), not getattr(error, "tensor", "")))
    if errors:
        raise errors[0]


class _Output:
    """One file that is being written, and what it hashes to so far."""

    def __init__(self, handle: int, work: _Work) -> None:
        self.handle, self.work = handle, work
        self.digest = hashlib.sha256()
        self.crc = 0
        self.bytes = 0
        self.begun = 0

    def write(self, plan: FilePlan) -> Written:
        """All items, one after the other."""
        for item in plan.items:
            self._put(memoryview(item.before))
            if item.matrix is not None:
                try:
                    self._put_rows(item.matrix, with_crc=callable(item.after))
                except Exception as error:  # another thread may have seen first what this one read
                    check_faults(error, tensor=item.name)
                    raise
                check_faults(tensor=item.name)
            after = item.after if isinstance(item.after, bytes) else item.after(self.crc)
            self._put(memoryview(after))
        assert self.bytes == plan.bytes, f"{plan.name}: {self.bytes} written"
        return Written(self.bytes, self.digest.hexdigest())

    def _put_rows(self, matrix: Matrix, *, with_crc: bool) -> None:
        self.crc = 0
        rows = 0
        for piece in matrix.read(0, matrix.rows):
            assert piece.dtype == matrix.dtype, f"{piece.dtype} for {matrix.dtype}"
            rows += len(piece)
            for block in contiguous(piece):
                self._put(block.reshape(-1).view(np.uint8).data, with_crc=with_crc)
        assert rows == matrix.rows, f"{rows} rows of {matrix.rows}"

    def _put(self, data: memoryview, *, with_crc: bool = False) -> None:
        for start in range(0, len(data), STEP):
            step = data[start : start + STEP]
            self.digest.update(step)
            if with_crc:
                self.crc = zlib.crc32(step, self.crc)
            self._write(step)
            self._begin_writing()
            self.work.advance(len(step))

    def _write(self, step: memoryview) -> None:
        at = 0
        try:
            while at < len(step):
                at += os.write(self.handle, step[at:])
        except OSError as error:
            if error.errno == errno.EFAULT:  # the kernel could not read it, and tells no more:
                zlib.crc32(step)  # we do, which is noted
                check_faults(error)
            raise
        self.bytes += at

    def _begin_writing(self) -> None:
        """On Linux POSIX_FADV_DONTNEED starts to write what is not on the disk, and does not wait.

        Source: mm/fadvise.c.
        """
        ready = self.bytes - self.begun
        if ready >= WINDOW:
            os.posix_fadvise(self.handle, self.begun, ready, os.POSIX_FADV_DONTNEED)
            self.begun = self.bytes


def contiguous(piece: Array) -> Iterable[Array]:
    """The rows of an array as arrays without gaps: itself, or copies of PIECE bytes."""
    if piece.flags.c_contiguous:
        yield piece
        return
    step = max(1, PIECE // max(1, piece.shape[1] * piece.dtype.itemsize))
    for first in range(0, len(piece), step):
        yield np.ascontiguousarray(piece[first : first + step])
