"""A conversion killed with -9 in the middle goes on; its result is that of a calm one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.runtime.journal import read_journal
from megatron_jobs.stages.convert import Config, convert
from tests.family_models import saved_model

ROOT = Path(__file__).parents[2]
MESH = {"tensor": 2, "pipeline": 2}
SLOW = """
import sys, time
from pathlib import Path
from megatron_jobs.stages.convert import Config, convert
source, out = map(Path, sys.argv[1:])
config = Config(source=source, mesh={"tensor": 2, "pipeline": 2}, proof="tensors", threads=1)
convert(config, out, lambda done, total: time.sleep(float(done > total / 3) * 60))
"""


def test_killed_in_the_middle_it_goes_on(tmp_path: Path) -> None:
    """It sleeps after a third of its bytes; by then a file is finished, and another is begun."""
    saved_model("llama", tmp_path / "theirs")
    calm, out = tmp_path / "calm", tmp_path / "out"
    config = Config(source=tmp_path / "theirs", mesh=Mesh(**MESH), proof="tensors", threads=1)
    convert(config, calm)
    journal = tmp_path / "out.journal.partial"
    finished = kill_when_one_is_finished(tmp_path / "theirs", out, journal)
    assert not out.exists()
    part = tmp_path / "out.partial"
    assert len(list(part.rglob("*.distcp"))) > len(finished) > 0
    before = {name: (part / name).stat().st_mtime_ns for name in finished}

    convert(config, out)
    assert not part.exists()
    assert not journal.exists()
    assert {name: (out / name).stat().st_mtime_ns for name in finished} == before
    names = [path.relative_to(calm) for path in sorted(calm.rglob("*")) if path.is_file()]
    assert names == [p.relative_to(out) for p in sorted(out.rglob("*")) if p.is_file()]
    for name in names:
        assert (calm / name).read_bytes() == (out / name).read_bytes(), name


def test_a_source_that_changed_meanwhile_is_read_anew(tmp_path: Path) -> None:
    saved_model("llama", tmp_path / "theirs")
    out = tmp_path / "out"
    kill_when_one_is_finished(tmp_path / "theirs", out, tmp_path / "out.journal.partial")
    file = tmp_path / "theirs/config.json"
    values = json.loads(file.read_text()) | {"of_the_house": 1}
    file.write_text(json.dumps(values))
    config = Config(source=tmp_path / "theirs", mesh=Mesh(**MESH), proof="tensors", threads=1)
    convert(config, out)
    convert(config, tmp_path / "calm")
    for path in (tmp_path / "calm").rglob("*.distcp"):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "calm")).read_bytes()
    record = json.loads((out / "step-00000000/manifest.json").read_text())["record"]
    assert record["hugging_face"]["of_the_house"] == 1


def kill_when_one_is_finished(source: Path, out: Path, journal: Path) -> list[str]:
    """Begin a conversion, and kill it; the files that were finished."""
    words = [sys.executable, "-c", SLOW, str(source), str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    begun = subprocess.Popen(words, env=environment)

    def finished() -> list[str]:
        return [line["name"] for line in read_journal(journal) if "name" in line]

    try:
        wait_for(lambda: bool(finished()), "a finished file", seconds=60)
    finally:
        begun.send_signal(signal.SIGKILL)
    assert begun.wait() == -signal.SIGKILL
    return finished()
