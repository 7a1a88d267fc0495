"""`megatron_jobs._cuda` whose kernels run on the CPU: csrc/cuda/emulated.h. Built once a change."""

import fcntl
import hashlib
import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pybind11
import torch
from torch import Tensor

from megatron_jobs.kernels import native

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "csrc" / "cuda"
# Pointers to functions of threads that are fibers; the kernels are small: optimising costs more.
FLAGS = "-std=c++20 -O0 -fPIC -fvisibility=hidden -DMJ_EMULATED -Wall -Wextra -Werror"
FLAGS += " -Wno-unknown-pragmas"


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    """Normal numbers, the same on every device, on the default one."""
    generator = torch.Generator("cpu").manual_seed(seed)
    numbers = torch.randn(*shape, generator=generator, device="cpu")
    return numbers.to(torch.get_default_device(), dtype)


def built() -> Path:
    """The compiled module; one process builds it, others wait."""
    files = sorted(
        [*SOURCES.iterdir(), *(ROOT / "csrc").glob("*.h"), ROOT / "csrc/kernels/dtype.h"]
    )
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
    folder = ROOT / "build" / f"emulated-{digest}"
    module = folder / f"_cuda{sysconfig.get_config_var('EXT_SUFFIX')}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            compile_module(module)
    return module


def compile_module(module: Path) -> None:
    """As many compilers at a time as there are processors."""
    include = [pybind11.get_include(), sysconfig.get_path("include"), str(ROOT / "csrc")]
    flags = [*FLAGS.split(), *(f"-I{path}" for path in include)]
    units = sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.cu")])
    objects = [module.with_name(f"{unit.name}.o") for unit in units]
    commands = [
        ["g++", "-x", "c++", *flags, "-c", str(unit), "-o", str(out)]
        for unit, out in zip(units, objects, strict=True)
    ]
    width = len(os.sched_getaffinity(0))
    for first in range(0, len(commands), width):
        running = [subprocess.Popen(command) for command in commands[first : first + width]]
        assert not any(process.wait() for process in running), "see the compiler's words above"
    whole = module.with_suffix(".part")
    subprocess.run(["g++", "-shared", *map(str, objects), "-ldl", "-o", str(whole)], check=True)
    whole.replace(module)


def load(path: Path) -> ModuleType:
    """The module of a file, in nobody's list of modules."""
    loader = ExtensionFileLoader("_cuda", str(path))
    spec = spec_from_loader("_cuda", loader)
    assert spec is not None, path
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@contextmanager
def emulated() -> Iterator[ModuleType]:
    """The emulation in the place of `megatron_jobs._cuda`, so that forms for CUDA run here."""
    real = native.MODULES["_cuda"]
    native.MODULES["_cuda"] = module = load(built())
    try:
        yield module
    finally:
        native.MODULES["_cuda"] = real
