import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from megatron_jobs.errors import DataError, MegatronJobsError
from megatron_jobs.runtime.files import (
    file_hash,
    read_json,
    tree_bytes,
    tree_hash,
    wait_for,
    whole_file,
    whole_folder,
    write_json,
)
from megatron_jobs.runtime.journal import Journal, read_journal, rewind_journal


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "x"
    with whole_file(path) as part:
        part.write_text("one")
    with pytest.raises(ZeroDivisionError), whole_file(path) as part:
        part.write_text("tw")
        raise ZeroDivisionError
    assert path.read_text() == "one"
    assert os.listdir(path.parent) == ["x"]


def test_a_line_that_was_cut_short_costs_no_other(tmp_path: Path) -> None:
    """A node that dies, or a full disk, leaves half a line; the next start appends to it."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "wor\xff')
    with Journal(path) as journal:
        journal.write({"step": 3, "word": "a\u2028b"})
    assert read_journal(path) == [{"step": 1}, {"step": 3, "word": "a\u2028b"}]
    rewind_journal(path, 1)
    assert path.read_text() == '{"step": 1}\n'


def test_threads_and_nodes_write_one_file_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(write_json, path, {"of": place}) for place in range(200)]:
            done.result()
    assert os.listdir(tmp_path) == ["x.json"]
    assert read_json(path)["of"] in range(200)


def test_a_kill_leaves_the_old_folder_absent(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, pathlib\n"
        "from megatron_jobs.runtime.files import whole_folder\n"
        "with whole_folder(pathlib.Path(sys.argv[1])) as part:\n"
        "    (part / 'half').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -9
    assert not target.exists()
    with whole_folder(target) as part:
        (part / "full").write_text("y")
    assert os.listdir(target) == ["full"]
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (b"", "nothing"),
        (b"\0" * 9, "9 bytes that are no JSON (Expecting value: line 1 column 1 (char 0))"),
        (
            b'{"key": "ab',
            "11 bytes that are no JSON (Unterminated string starting at: line 1 column 9 (char 8))",
        ),
    ],
)
def test_a_json_file_that_is_not_whole_is_named(tmp_path: Path, held: bytes, found: str) -> None:
    path = tmp_path / "receipt.json"
    path.write_bytes(held)
    with pytest.raises(DataError) as caught:
        read_json(path)
    assert str(caught.value) == (
        f"{path}: found {found}; a full disk or a copy cut short leaves this: restore it, or "
        "remove it"
    )


def test_hashes_see_names_and_bytes_only(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "f").write_bytes(b"12345")
    assert file_hash(tmp_path / "a/sub/f") == hashlib.sha256(b"12345").hexdigest()
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")
    assert tree_bytes(tmp_path / "a") == 5
    (tmp_path / "b/sub/.g.partial").write_text("unfinished")
    assert tree_hash(tmp_path / "a") == tree_hash(tmp_path / "b")
    (tmp_path / "b/sub/f").rename(tmp_path / "b/sub/g")
    assert tree_hash(tmp_path / "a") != tree_hash(tmp_path / "b")


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(MegatronJobsError, match="waited 0 s for godot, in vain"):
        wait_for(lambda: False, "godot", seconds=0.01)


def test_a_journal_forgets_lost_work(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Journal(path) as journal:
        for step in range(1, 5):
            journal.write({"step": step})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')
    assert [record["step"] for record in read_journal(path)] == [1, 2, 3, 4]
    rewind_journal(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_hashes_look_through_links_and_past_unfinished_folders(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/f").write_text("one")
    (tmp_path / "near").mkdir()
    (tmp_path / "near/link").symlink_to(tmp_path / "far")
    (tmp_path / "near/back").symlink_to(tmp_path / "near")
    before = tree_hash(tmp_path / "near")
    assert tree_bytes(tmp_path / "near") == 3
    (tmp_path / "near/x.partial").mkdir()
    (tmp_path / "near/x.partial/half").write_text("unfinished")
    assert (tree_hash(tmp_path / "near"), tree_bytes(tmp_path / "near")) == (before, 3)
    (tmp_path / "far/f").write_text("two")
    assert tree_hash(tmp_path / "near") != before
