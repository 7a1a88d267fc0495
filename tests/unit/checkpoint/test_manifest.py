from pathlib import Path

import pytest

from megatron_jobs.checkpoint.manifest import (
    Manifest,
    check_files,
    describe_files,
    file_names,
    find_checkpoint,
    latest_checkpoint,
    read_manifest,
    remove_older,
    set_latest,
    step_folder,
    write_manifest,
)
from megatron_jobs.errors import DataError


def make(root: Path, step: int) -> Path:
    folder = step_folder(root, step)
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(range(100)))
    (folder / "random.pt").write_bytes(b"dice")
    manifest = Manifest(
        step, {"world": 1}, {"samples": 7}, ["f"], describe_files(folder, file_names(folder))
    )
    write_manifest(folder, manifest)
    return folder


def test_latest_is_what_was_set_last(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 10):
        set_latest(tmp_path, make(tmp_path, step))
    assert latest_checkpoint(tmp_path) == step_folder(tmp_path, 10)
    assert find_checkpoint(tmp_path) == step_folder(tmp_path, 10)
    assert find_checkpoint(step_folder(tmp_path, 5)) == step_folder(tmp_path, 5)
    assert read_manifest(step_folder(tmp_path, 5)).record == {"samples": 7}


def test_an_unfinished_one_is_never_found(tmp_path: Path) -> None:
    make(tmp_path, 5).rename(tmp_path / "step-00000005.partial")
    with pytest.raises(DataError, match="holds no whole checkpoint"):
        find_checkpoint(tmp_path)
    (tmp_path / "latest").write_text("step-00000005\n")
    with pytest.raises(DataError, match="not a whole checkpoint"):
        latest_checkpoint(tmp_path)


def test_older_ones_go_and_the_latest_stays(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        make(tmp_path, step)
    set_latest(tmp_path, step_folder(tmp_path, 5))
    (tmp_path / "step-00000025.partial").mkdir()
    remove_older(tmp_path, 2)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"latest", "step-00000005", "step-00000015", "step-00000020"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b"short"), "has 5 bytes, the manifest says 100"),
        (lambda path: path.write_bytes(bytes(100)), "its bytes are not those that were saved"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, message: str) -> None:
    folder = make(tmp_path, 5)
    manifest = read_manifest(folder)
    assert check_files(folder, manifest) == ""
    damage(folder / "weights")  # type: ignore[operator]
    faults = [check_files(folder, manifest, part=part, parts=2) for part in range(2)]
    assert any(message in fault for fault in faults)


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, 5)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="not a manifest"):
        read_manifest(folder)
