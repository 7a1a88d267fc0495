"""Reading what another node writes, through a client that remembers what was not there."""

import threading
from pathlib import Path

from megatron_jobs.runtime.files import wait_for, write_text
from megatron_jobs.runtime.shared import read_shared


def test_what_is_absent_is_made_and_what_is_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "meet" / "address"
    assert read_shared(path) == ""
    assert path.exists()
    write_text(path, "node1:5")
    assert read_shared(path) == "node1:5"


def test_none_of_many_that_look_loses_what_is_written(tmp_path: Path) -> None:
    for number in range(50):
        path = tmp_path / f"{number}"
        found: list[str] = []

        def look(path: Path = path, found: list[str] = found) -> None:
            wait_for(lambda: read_shared(path) != "", "words", seconds=5, every=0)
            found.append(read_shared(path))

        readers = [threading.Thread(target=look) for _ in range(3)]
        for reader in readers:
            reader.start()
        write_text(path, "here")
        for reader in readers:
            reader.join()
        assert found == ["here"] * 3
