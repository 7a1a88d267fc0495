#!/usr/bin/env python3
"""Compile and link the kernels for CUDA, and look at what ptxas says of them. Needs nvcc, no GPU.

    tools/check_cuda.py [--keep FOLDER] [--need]

Fails where a kernel spills registers to memory, has a stack, or takes over 128 registers (so that
512 threads of it run at a time), and where an architecture is missing from the module. It must
also be importable on a machine without a driver. Without nvcc nothing is done, unless --need.
"""

import argparse
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MOST_REGISTERS = 128
ARCHITECTURES = {"sm_80", "sm_90", "sm_100", "compute_100"}
FAT = 0xBA55ED50
KINDS = {1: "compute", 2: "sm"}
"""Kinds of code in a fat binary: PTX, and a program of one machine."""
REPORT = re.compile(
    r"Compiling entry function '(?P<name>\S+)' for '(?P<machine>\w+)'\n"
    r".*Function properties for .*\n"
    r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores,"
    r" (?P<loads>\d+) bytes spill loads\n"
    r".*Used (?P<registers>\d+) registers"
)


class Kernel(NamedTuple):
    """What ptxas says of one kernel on one machine; bytes of a thread, but for registers."""

    name: str
    machine: str
    registers: int
    stack: int
    spilled: int


def kernels_of(words: str) -> list[Kernel]:
    """Of all that nvcc printed under `-Xptxas -v`."""
    return [
        Kernel(
            plain_name(found["name"]),
            found["machine"],
            int(found["registers"]),
            int(found["stack"]),
            int(found["stores"]) + int(found["loads"]),
        )
        for found in REPORT.finditer(words)
    ]


def plain_name(mangled: str) -> str:
    """The name and arguments of a template, where c++filt is there to tell."""
    if shutil.which("c++filt") is None:
        return mangled
    whole = subprocess.run(["c++filt", mangled], capture_output=True, text=True).stdout.strip()
    return re.sub(r"mj::|\(anonymous namespace\)::|^void |\(.*", "", whole)


def faults_of(kernels: list[Kernel]) -> Iterator[str]:
    """What is wrong with each kernel."""
    for kernel in kernels:
        where = f"{kernel.name} for {kernel.machine}"
        if kernel.stack or kernel.spilled:
            yield f"{where}: {kernel.stack} bytes of stack, {kernel.spilled} spilled"
        if kernel.registers > MOST_REGISTERS:
            yield f"{where}: {kernel.registers} registers, over {MOST_REGISTERS}"


def architectures_of(module: bytes) -> set[str]:
    """What the fat binaries of a file were compiled for, as sm_90 or, of PTX, compute_90."""
    found = set()
    for start in (hit.start() for hit in re.finditer(struct.pack("<I", FAT), module)):
        _, _, header, size = struct.unpack_from("<IHHQ", module, start)
        at, end = start + header, start + header + size
        while at < end:
            kind, _, entry, payload = struct.unpack_from("<HHIQ", module, at)
            (number,) = struct.unpack_from("<I", module, at + 28)
            found.add(f"{KINDS.get(kind, kind)}_{number}")
            at += entry + payload
    return found


def build(folder: Path) -> tuple[Path, str]:
    """The module, and what the compilers printed."""
    command = [sys.executable, "setup.py", "build_ext", "--only", "_cuda", "--force"]
    command += ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "objects")]
    changed = {"MEGATRON_JOBS_CUDA": "1", "NVCC_APPEND_FLAGS": "-Xptxas -v"}
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **changed}, **kept)
    if done.returncode:
        raise SystemExit(done.stdout)
    (module,) = (folder / "lib").rglob("_cuda*.so")
    return module, done.stdout


def devices_of(module: Path) -> int:
    """How many GPUs the module finds; it is imported."""
    spec = importlib.util.spec_from_file_location("_cuda", module)
    assert spec is not None, module
    assert spec.loader is not None, module
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    found: int = loaded.devices()
    return found


def main() -> None:
    """Build, look, and say what was found."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--keep", type=Path, help="folder for the module and the report")
    parser.add_argument("--need", action="store_true", help="fail where there is no nvcc")
    asked = parser.parse_args()
    if not shutil.which("nvcc") and not Path("/usr/local/cuda/bin/nvcc").exists():
        print("check_cuda: no nvcc, nothing was compiled")
        sys.exit(int(asked.need))
    began = time.monotonic()
    folder = asked.keep or Path(tempfile.mkdtemp())
    module, words = build(folder)
    took = time.monotonic() - began
    kernels = kernels_of(words)
    (folder / "ptxas.txt").write_text("\n".join(map(str, kernels)))
    faults = list(faults_of(kernels))
    missing = ARCHITECTURES - architectures_of(module.read_bytes())
    if missing or not kernels:
        faults.append(f"{len(kernels)} kernels; not compiled for {', '.join(sorted(missing))}")
    most = max((kernel.registers for kernel in kernels), default=0)
    size = module.stat().st_size / 1e6
    print(
        f"{len(kernels)} programs of kernels in {took:.0f} s, {size:.1f} MB, {most} registers most"
    )
    print(f"architectures: {', '.join(sorted(ARCHITECTURES - missing))}")
    print(f"GPUs here: {devices_of(module)}")
    if not asked.keep:
        shutil.rmtree(folder)
    sys.exit("\n".join(faults) or 0)


if __name__ == "__main__":
    main()
