"""A conversion killed with -9 when its result has just appeared: it is found to be whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.convert import Config, run
from tests.family_models import saved_model
from tests.ranks import apart

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from pathlib import Path
from megatron_jobs.convert import files
from megatron_jobs.runtime.rank import ALONE
from megatron_jobs.stages.convert import Config, run
source, folder, point = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
once = files.publish_folder

def publish_folder(part, path):
    if point == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    once(part, path)
    if point == "behind":
        os.kill(os.getpid(), signal.SIGKILL)

files.publish_folder = publish_folder
run(Config(source=source, proof="tensors"), ALONE, folder)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "theirs"
    saved_model("llama", folder)
    return folder


def killed(source: Path, folder: Path, point: str) -> None:
    """A job's stage that ends there."""
    folder.mkdir()
    words = [sys.executable, "-c", KILLED, str(source), str(folder), point]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """inode and time of each."""
    found = {path.relative_to(folder).as_posix(): path.stat() for path in folder.rglob("*")}
    return {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in found.items()}


@pytest.mark.parametrize("point", ["behind", "end"])
def test_what_appeared_is_not_made_again(point: str, theirs: Path, tmp_path: Path) -> None:
    config = Config(source=theirs, proof="tensors")
    (tmp_path / "calm").mkdir()
    calm = run(config, ALONE, tmp_path / "calm")
    killed(theirs, tmp_path / "job", point)
    before = files_of(tmp_path / "job/model")
    assert (tmp_path / "job/model.journal.partial").exists() == (point == "behind")
    assert run(config, ALONE, tmp_path / "job") == calm
    assert files_of(tmp_path / "job/model") == before
    again = json.loads((tmp_path / "job/comparison.json").read_text())
    assert again == json.loads((tmp_path / "calm/comparison.json").read_text())
    names = {path.name for path in (tmp_path / "job").iterdir()}
    assert names == {path.name for path in (tmp_path / "calm").iterdir()}


@pytest.mark.parametrize("change", ["result", "source", "proof", "note", "nothing"])
def test_anything_else_is_made_anew(change: str, theirs: Path, tmp_path: Path) -> None:
    killed(theirs, tmp_path / "job", "before" if change == "nothing" else "behind")
    model, note = tmp_path / "job/model", tmp_path / "job/comparison.json"
    assert model.exists() == (change != "nothing")
    before = files_of(model)
    if change == "result":
        file = max(model.rglob("*.distcp"))
        file.write_bytes(file.read_bytes()[:-1])
    if change == "source":
        os.utime(theirs / "config.json")
    if change == "note":
        note.write_text(note.read_text()[:40])
    proof = "logits" if change == "proof" else "tensors"
    config = Config(source=theirs, proof=proof)
    numbers = apart(lambda: run(config, ALONE, tmp_path / "job"))
    assert not set(files_of(model).values()) & set(before.values())
    assert ("max_logit_difference" in numbers) == (proof == "logits")
