"""The C++ core under the sanitizers of addresses and undefined behaviour: programs of tests/csrc.

Each calls the plain code of one folder of csrc/ on small, odd and hostile inputs in memory of
exactly their size, and compares what it finds with slow versions. The first wrong access ends it.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = ROOT / "build" / "sanitized"
FLAGS = [
    *("-std=c++20", "-O1", "-g1", "-pthread", "-ffp-contract=off", "-Icsrc", "-Itests/csrc"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-maybe-uninitialized"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "-fno-sanitize=null,object-size,pointer-overflow,vptr",  # what these see, addresses show
    *("--param", "asan-instrumentation-with-call-threshold=0"),  # calls: compiled in half the time
]
KERNEL = ["-fno-sanitize-address-use-after-scope"]
"""For code of several machines, a third of its time: all is inline, no address is kept."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def is_fresh(made: Path) -> bool:
    """Whether nothing that was read for it, as its .d tells, is newer."""
    notes = made.with_suffix(".d")
    if not (made.exists() and notes.exists()):
        return False
    words = re.split(r"(?<!\\)\s+", notes.read_text().replace("\\\n", " ").strip())[1:]
    files = [ROOT / word.replace("\\ ", " ") for word in (*words, __file__)]
    return all(f.exists() and f.stat().st_mtime < made.stat().st_mtime for f in files)


def run(*command: str | Path) -> None:
    """Run it in the root; what it says is in the error."""
    choices = {"ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **choices}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"


def is_kernel(source: Path) -> bool:
    """Whether it is compiled once for each machine: what takes longest."""
    return "kernels/every_machine.h" in source.read_text()


def compiled(source: Path) -> Path:
    """The object of one file, made if anything that it reads has changed."""
    made = MADE / "_".join(source.relative_to(ROOT).with_suffix(".o").parts)
    if not is_fresh(made):
        unfinished = made.with_suffix(f".{os.getpid()}.o")
        notes = ["-MMD", "-MF", made.with_suffix(".d")]
        flags = [*FLAGS, *(KERNEL if is_kernel(source) else [])]
        run("g++", *flags, *notes, "-c", source, "-o", unfinished)
        unfinished.rename(made)
    return made


def sources_of(folder: str) -> list[Path]:
    """The core of the folder, and the program for it, the longest first."""
    core = [each for each in (ROOT / "csrc" / folder).glob("*.cpp") if each.name[:4] != "bind"]
    program = list((ROOT / "tests" / "csrc" / folder).glob("*.cpp"))
    return sorted([*core, *program], key=is_kernel, reverse=True)


PROGRAMS = sorted(path.parent.name for path in (ROOT / "tests" / "csrc").glob("*/main.cpp"))


def test_every_folder_has_a_program() -> None:
    """cuda/ alone has none: its kernels run emulated, in tests/unit/cuda."""
    folders = {path.parent.name for path in (ROOT / "csrc").glob("*/bindings.cpp")}
    assert folders - {"cuda"} == set(PROGRAMS)


@pytest.mark.parametrize("folder", PROGRAMS)
def test_no_wrong_access(folder: str) -> None:
    MADE.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources_of(folder)))
    program = MADE / f"{folder}.{os.getpid()}"
    run("g++", *FLAGS, *objects, "-ldl", "-o", program)
    try:
        run(program)
    finally:
        program.unlink()
