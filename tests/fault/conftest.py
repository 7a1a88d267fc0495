"""A small disk that can be filled."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOM = 9 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with ROOM bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    size = f"size={ROOM}"
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
