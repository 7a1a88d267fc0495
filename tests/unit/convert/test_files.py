"""Files written whole: hashes, resuming after a kill, full disks, sources that change."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.convert import files
from megatron_jobs.convert.files import FilePlan, Item, write_files
from megatron_jobs.convert.matrix import Stored, Turned
from megatron_jobs.convert.written import source_key
from megatron_jobs.errors import DataError, Stopped, UserError

ARRAY = np.arange(30_000, dtype=np.int32).reshape(300, 100)


def plans_of(count: int = 4) -> list[FilePlan]:
    """Files of a few kinds of items, and one that speaks of them."""
    turned = Turned(Stored(ARRAY))
    closing = lambda crc: crc.to_bytes(4, "little")  # noqa: E731
    plans = [
        FilePlan(
            f"deep/file{n}", [Item(b"head"), Item(b"x" * n, turned, closing), Item(after=b"end")]
        )
        for n in range(count)
    ]
    names = lambda written: json.dumps({k: v.sha256 for k, v in written.items()}).encode()  # noqa: E731
    return [*plans, FilePlan("empty"), FilePlan("about.json", summary=names)]


def wanted(number: int) -> bytes:
    rows = ARRAY.T.tobytes()
    return b"head" + b"x" * number + rows + zlib.crc32(rows).to_bytes(4, "little") + b"end"


def write(folder: Path, plans: list[FilePlan] | None = None, key: str = "key", **more: Any) -> Any:
    return write_files(plans_of() if plans is None else plans, folder, key=lambda: key, **more)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("step", [7, 4096, 4 << 20])
def test_bytes_and_hashes(
    threads: int, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "STEP", step)
    written = write(tmp_path / "out", plans_of(2), threads=threads)
    for number in range(2):
        data = (tmp_path / f"out/deep/file{number}").read_bytes()
        assert data == wanted(number)
        facts = written[f"deep/file{number}"]
        assert (facts.bytes, facts.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert set(about) == {"deep/file0", "deep/file1", "empty"}
    assert list(written) == ["deep/file0", "deep/file1", "empty", "about.json"]
    assert (tmp_path / "out/empty").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_bytes_are_told_as_they_are_written(tmp_path: Path) -> None:
    told: list[int] = []
    write(tmp_path / "out", tell=told.append)
    assert told == sorted(told)
    assert told[-1] >= sum(len(wanted(number)) for number in range(4))


def interrupted(folder: Path, after: int, **more: Any) -> None:
    """A run that ends when so many bytes are written."""

    def tell(done: int) -> None:
        if done > after:
            raise Stopped("enough")

    with pytest.raises(Stopped, match="enough"):
        write(folder, threads=1, tell=tell, **more)


def written_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that are written from now on."""
    found: list[str] = []
    once = files._Work.write

    def write_and_note(self: Any, plan: FilePlan) -> None:
        found.append(plan.name)
        once(self, plan)

    monkeypatch.setattr(files._Work, "write", write_and_note)
    return found


def test_what_is_finished_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path / "out", 300_000)
    assert not (tmp_path / "out").exists()
    names = written_names(monkeypatch)
    write(tmp_path / "out")
    assert sorted(names) == ["about.json", "deep/file0", "deep/file1", "empty"]
    assert all((tmp_path / f"out/deep/file{n}").read_bytes() == wanted(n) for n in range(4))
    assert len(json.loads((tmp_path / "out/about.json").read_text())) == 5
    assert "out.partial: 2 finished files are kept" in capsys.readouterr().out


def spoil(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda part: None, "other"),
        (lambda part: spoil(part / "deep/file3"), "key"),
        (lambda part: (part / "deep/file3").unlink(), "key"),
    ],
)
def test_what_is_not_the_same_is_written_anew(
    change: Callable[[Path], None], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path / "out", 300_000)
    part = tmp_path / "out.partial"
    assert (part / "deep/file3").is_file()
    change(part)
    (part / "stray").write_text("of another plan")
    names = written_names(monkeypatch)
    write(tmp_path / "out", key=key)
    assert "deep/file3" in names
    assert (tmp_path / "out/deep/file3").read_bytes() == wanted(3)
    assert not (tmp_path / "out/stray").exists()


def test_other_settings_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupted(tmp_path / "out", 300_000)
    write(tmp_path / "out", key="other")
    said = capsys.readouterr().out
    assert "out.journal.partial: of other sources or settings; all is written anew" in said


def test_other_sizes_are_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(tmp_path / "out", 300_000)
    names = written_names(monkeypatch)
    write(tmp_path / "out", plans_of(5))
    assert len(names) == 7


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.unit.convert.test_files import write
def tell(done):
    if done > 300_000:
        os.kill(os.getpid(), signal.SIGKILL)
write(Path(sys.argv[1]), threads=2, tell=tell)
"""


def test_a_kill_and_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[3])
    words = [sys.executable, "-c", KILLED, str(tmp_path / "out"), root]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    names = written_names(monkeypatch)
    write(tmp_path / "out")
    assert 1 <= len(names) < 6
    assert all((tmp_path / f"out/deep/file{n}").read_bytes() == wanted(n) for n in range(4))


def test_a_journal_that_was_cut_short(tmp_path: Path) -> None:
    interrupted(tmp_path / "out", 300_000)
    journal = tmp_path / "out.journal.partial"
    journal.write_text(journal.read_text()[:-10])
    write(tmp_path / "out")
    assert all((tmp_path / f"out/deep/file{n}").read_bytes() == wanted(n) for n in range(4))


def refuse(monkeypatch: pytest.MonkeyPatch, after: int, number: int) -> None:
    """Writes fail from so many bytes on."""
    really, done = os.write, [0]

    def write_some(handle: int, data: Any) -> int:
        done[0] += len(data)
        if done[0] > after:
            raise OSError(number, os.strerror(number))
        return really(handle, data)

    monkeypatch.setattr(files.os, "write", write_some)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full: No space left on device"),
        (errno.EDQUOT, "the disk is full: Disk quota exceeded"),
        (errno.EIO, "could not be written: Input/output error"),
    ],
)
def test_a_disk_that_refuses(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, 300_000, number)
        with pytest.raises(
            UserError, match=rf"out: could not be written: .*{words.split(': ')[-1]}; "
        ):
            write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    held = list((tmp_path / "out.partial").rglob("file*"))
    assert held
    assert all(path.read_bytes() == wanted(int(path.name[-1])) for path in held)
    write(tmp_path / "out")
    assert (tmp_path / "out/deep/file3").read_bytes() == wanted(3)


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    rule = r"out: 480,\d+ bytes are to be written, 1,000 are free; make room, or name"
    with pytest.raises(UserError, match=rule):
        write(tmp_path / "out")
    assert not list((tmp_path / "out.partial").rglob("file*"))


def test_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out: is there already; remove it, or name another"):
        write(tmp_path / "out")


def test_two_at_a_time(tmp_path: Path) -> None:
    def again(part: Path) -> None:
        with pytest.raises(UserError, match=r"out: another process is writing it; wait for it"):
            write(tmp_path / "out")

    write(tmp_path / "out", check=again)
    assert (tmp_path / "out").is_dir()


def test_a_check_keeps_it_from_appearing(tmp_path: Path) -> None:
    def check(part: Path) -> None:
        assert (part / "about.json").is_file()
        raise DataError("logits differ")

    with pytest.raises(DataError, match="logits differ"):
        write(tmp_path / "out", check=check)
    assert not (tmp_path / "out").exists()


def test_a_source_that_changes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a" * 100)
    key = lambda: source_key([source], {})  # noqa: E731

    def tell(done: int) -> None:
        source.write_bytes(b"b" * 100)

    with pytest.raises(DataError, match=r"out: not written: a source changed while it was read"):
        write_files(plans_of(), tmp_path / "out", key=key, tell=tell)
    assert not (tmp_path / "out").exists()


def test_the_key_is_of_sources_and_settings(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 200_000)
    other.write_bytes(b"a" * 200_000)
    keys = [source_key([one, other], {"tensor": 1}), source_key([one, other], {"tensor": 2})]
    keys += [source_key([one], {"tensor": 1}), source_key([other], {"tensor": 1})]
    times = one.stat().st_atime_ns, one.stat().st_mtime_ns
    one.write_bytes(b"a" * 199_999 + b"b")
    os.utime(one, ns=times)
    keys.append(source_key([one, other], {"tensor": 1}))
    os.utime(one, ns=(times[0], times[1] + 1))
    keys.append(source_key([one, other], {"tensor": 1}))
    assert len(set(keys)) == 6
    assert source_key([other, one], {"tensor": 1}) == keys[-1]


def test_one_failure_ends_the_other_threads(tmp_path: Path) -> None:
    class Failing(Stored):
        def read(self, start: int, stop: int):  # type: ignore[no-untyped-def]
            time.sleep(0.05)
            raise DataError("a lie in a source")
            yield

    plans = [FilePlan("bad", [Item(matrix=Failing(ARRAY))]), *plans_of(60)]
    with pytest.raises(DataError, match="a lie in a source"):
        write(tmp_path / "out", plans, threads=2)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "a/../../b"])
def test_names_that_lead_out_are_a_bug(name: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="leads out"):
        write(tmp_path / "out", [FilePlan(name)])


def test_a_name_that_is_planned_twice_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"planned twice: \['a'\]"):
        write(tmp_path / "out", [FilePlan("a"), FilePlan("a")])
