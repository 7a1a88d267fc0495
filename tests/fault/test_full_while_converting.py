"""A disk that gets full in the middle of a conversion, whatever is written; then there is room."""

import os
import shutil
from pathlib import Path

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.stages.convert import Config, convert
from tests.family_models import saved_model

TARGETS = {
    "hugging_face": {"shard_gb": 2e-5},
    "checkpoint": {"mesh": {"tensor": 2, "pipeline": 2}},
    "gguf": {"gguf": "f32"},
}


@pytest.mark.parametrize("kind", TARGETS)
def test_what_is_finished_is_kept_and_the_rest_comes_later(
    kind: str, disk: Path, tmp_path: Path
) -> None:
    saved_model("llama", tmp_path / "theirs")
    config = Config(
        **{"source": tmp_path / "theirs", "to": kind, "proof": "tensors", "threads": 1},
        **TARGETS[kind],
    )
    convert(config, tmp_path / "calm")
    out, part = disk / "out", disk / "out.partial"

    def fill(done: int, total: int) -> None:
        if done > total / 2 and not (disk / "other").exists():
            with (disk / "other").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)

    full = f"{out}: could not be written: the disk is full: No space left on device; what is"
    with pytest.raises(UserError, match=full):
        convert(config, out, fill)
    assert not out.exists()
    whole = {name: (tmp_path / "calm" / name).read_bytes() for name in names(tmp_path / "calm")}
    kept = {name: (part / name).stat().st_mtime_ns for name in names(part)}
    assert all((part / name).read_bytes() == whole[name] for name in kept)
    assert bool(kept) == (kind != "gguf")
    with pytest.raises(
        UserError, match=f"{out}: [0-9,]+ bytes are to be written, [0-9,]+ are free"
    ):
        convert(config, out)

    (disk / "other").unlink()
    convert(config, out)
    assert {name: (out / name).read_bytes() for name in names(out)} == whole
    assert {name: (out / name).stat().st_mtime_ns for name in kept} == kept
    assert [path.name for path in disk.iterdir()] == ["out"]


def names(folder: Path) -> list[str]:
    """Of all files below a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)
