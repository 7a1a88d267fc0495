"""A source that is cut short, replaced or written to while it is read: told by name, none of it
believed; once it is right again, the same command goes on."""

import mmap
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.convert.files import FilePlan, Item, write_files
from megatron_jobs.convert.mapped import CURE, told_faults
from megatron_jobs.convert.matrix import Array, Stored
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import wait_for
from megatron_jobs.stages.convert import Config, convert
from tests.family_models import saved_model

ROOT = Path(__file__).parents[2]
TEAR = """
import shutil, sys
from pathlib import Path
from megatron_jobs.errors import DataError
from megatron_jobs.stages.convert import Config, convert
source, out, file = map(Path, sys.argv[1:4])
how, share, threads, proof = sys.argv[4], float(sys.argv[5]), int(sys.argv[6]), sys.argv[7]
torn = []

def tell(done, total):
    if torn or done < total * share:
        return
    torn.append(done)
    if how == "cut":
        with file.open("r+b") as opened:
            opened.truncate(file.stat().st_size // 3)
    if how == "replace":
        shutil.copy(file, file.with_suffix(".new"))
        file.with_suffix(".new").replace(file)
    if how == "write":
        with file.open("r+b") as opened:
            opened.seek(-4, 2)
            opened.write(bytes(4))
    if how == "remove":
        file.unlink()

config = Config(source=source, mesh={"tensor": 2}, proof=proof, threads=threads)
config = config if (source / "config.json").exists() else Config(source=source, proof=proof)
try:
    convert(config, out, tell)
except DataError as error:
    print(error)
    sys.exit(3)
"""
TOLD = {
    "replace": "changed while it was read: it was replaced",
    "write": "changed while it was read: it was written to",
    "remove": "changed while it was read: it is gone",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """theirs, ours and again: what calm conversions make of the first and the second."""
    root = tmp_path_factory.mktemp("models")
    saved_model("llama", root / "theirs")
    convert(Config(source=root / "theirs", mesh={"tensor": 2}, proof="tensors"), root / "ours")
    convert(Config(source=root / "ours", proof="tensors"), root / "again")
    return root


def torn(
    source: Path, out: Path, file: Path, how: str, share: float = 0.3, threads: int = 2
) -> str:
    """What a conversion says whose source is torn when this share of its bytes is written."""
    words = [source, out, file, how, share, threads, "tensors"]
    asked = [sys.executable, "-c", TEAR, *map(str, words)]
    done = subprocess.run(
        asked, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 3, f"{done.returncode}: {done.stdout}{done.stderr}"
    assert not out.exists()
    return done.stdout.strip().splitlines()[-1]


def assert_goes_on(source: Path, out: Path, calm: Path) -> None:
    config = Config(source=source, mesh={"tensor": 2}, proof="tensors")
    convert(config if calm.name == "ours" else Config(source=source, proof="tensors"), out)
    names = sorted(path.relative_to(calm) for path in calm.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    for name in names:
        assert (calm / name).read_bytes() == (out / name).read_bytes(), name


@pytest.mark.parametrize("threads", [1, 2])
def test_of_a_file_cut_short_tensor_and_place_are_told(
    threads: int, models: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(models / "theirs", tmp_path / "theirs")
    file = source / "model.safetensors"
    size = file.stat().st_size // 3
    said = torn(source, tmp_path / "out", file, "cut", threads=threads)
    begin, middle = said.split(": could not be read at byte ")
    assert begin.startswith(f"{file}: ")
    assert begin.endswith((".weight", ".bias"))
    place, cure = middle.split(f": it was cut short to {size:,} bytes; ")
    assert (int(place.replace(",", "")) >= size, cure) == (True, CURE)
    shutil.copy2(models / "theirs/model.safetensors", file)  # with its time
    assert_goes_on(source, tmp_path / "out", models / "ours")


def test_what_was_finished_before_is_kept(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(models / "theirs", tmp_path / "theirs")
    file = source / "model.safetensors"
    torn(source, tmp_path / "out", file, "cut", 0.7, threads=1)
    shutil.copy2(models / "theirs/model.safetensors", file)
    assert_goes_on(source, tmp_path / "out", models / "ours")
    assert "finished files are kept" in capsys.readouterr().out


@pytest.mark.parametrize("how", TOLD)
def test_what_is_another_file_is_told(how: str, models: Path, tmp_path: Path) -> None:
    """Not one byte of what is mapped has gone, but for what is written over."""
    source = shutil.copytree(models / "theirs", tmp_path / "theirs")
    file = source / "model.safetensors"
    said = torn(source, tmp_path / "out", file, how)
    assert said == f"{file}: {TOLD[how]}; nothing was made of the mixture, begin again"
    shutil.copy2(models / "theirs/model.safetensors", file)
    assert_goes_on(source, tmp_path / "out", models / "ours")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_of_a_checkpoint_too(share: float, models: Path, tmp_path: Path) -> None:
    """At 1.0 all is written, and it is found while that is read back."""
    source = shutil.copytree(models / "ours", tmp_path / "ours")
    file = max(source.rglob("*.distcp"), key=lambda path: path.stat().st_size)
    said = torn(source, tmp_path / "out", file, "cut", share)
    assert said.startswith(f"{file}: ")
    assert CURE in said or "changed while it was read: it had" in said
    shutil.copy2(models / "ours" / file.relative_to(source), file)
    assert_goes_on(source, tmp_path / "out", models / "again")


def cut_short(file: Path) -> mmap.mmap:
    """A file of three pages that was mapped when it had them; only the first is left."""
    file.write_bytes(b"1" * 3 * mmap.PAGESIZE)
    with file.open("rb") as opened:
        data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate(file, mmap.PAGESIZE)
    return data


def test_the_tensor_is_named_though_another_thread_notices_first(tmp_path: Path) -> None:
    data = cut_short(tmp_path / "file")
    was_read, begun = threading.Event(), threading.Event()
    other = tmp_path / "out.partial" / "whole"
    numbers = np.zeros((1, 8), np.uint8)

    class Torn(Stored):
        def read(self, start: int, stop: int) -> Iterator[Array]:
            assert begun.wait(60)
            assert data[mmap.PAGESIZE] == 0
            was_read.set()
            wait_for(lambda: not other.exists(), "the end of the other thread", seconds=60)
            yield numbers

    class Whole(Stored):
        def read(self, start: int, stop: int) -> Iterator[Array]:
            begun.set()
            assert was_read.wait(60)
            yield numbers

    readers = {"torn": Torn(numbers), "whole": Whole(numbers)}
    plans = [FilePlan(name, [Item(matrix=it, name=name)]) for name, it in readers.items()]
    with pytest.raises(DataError, match="file: torn: could not be read at byte"), told_faults():
        write_files(plans, tmp_path / "out", key=lambda: "key", threads=2)


def test_what_came_of_zeros_is_not_what_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    data = cut_short(file)

    def believe() -> None:
        raise ValueError(f"found {data[2 * mmap.PAGESIZE]}")

    with pytest.raises(DataError) as caught, told_faults():
        believe()
    where = f"could not be read at byte {2 * mmap.PAGESIZE:,}"
    rule = f"it was cut short to {mmap.PAGESIZE:,} bytes"
    assert str(caught.value) == f"{file}: {where}: {rule}; {CURE}"
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(DataError), told_faults():
        assert data[mmap.PAGESIZE] == 0  # nobody has noticed
