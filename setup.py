"""Builds the C++ extensions, each of one folder of csrc/; all else is in pyproject.toml.

MEGATRON_JOBS_CUDA=1 builds that for CUDA as well, 0 does not, auto (the default) does where there
are nvcc and a driver: code for three generations of GPUs takes longer than all the rest.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext
from setuptools import setup

CORE = Path("csrc")
EXTENSIONS = {
    "_copies": "copies",
    "_data": "index",
    "_lines": "lines",
    "_filters": "filters",
    "_kernels": "kernels",
    "_ngrams": "ngrams",
    "_overlap": "overlap",
    "_pack": "pack",
    "_personal": "personal",
    "_repeats": "repeats",
}
"""Module in megatron_jobs -> folder of csrc/. A folder is plain C++ but for its bindings.cpp."""


CUDA = CORE / "cuda"


def nvcc_to_use() -> str | None:
    """CUDA's compiler, where kernels for CUDA are to be built."""
    choice = os.environ.get("MEGATRON_JOBS_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"MEGATRON_JOBS_CUDA: {choice}, not one of auto, 0, 1")
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    found = shutil.which(f"{home}/bin/nvcc") or shutil.which("nvcc")
    if choice == "1" and found is None:
        raise SystemExit(f"MEGATRON_JOBS_CUDA: 1, but nvcc is neither in {home}/bin nor in PATH")
    driver = Path("/proc/driver/nvidia").exists() or Path("/dev/nvidiactl").exists()
    return found if choice == "1" or (choice == "auto" and driver) else None


NVCC = nvcc_to_use()


def cuda_extension(nvcc: str) -> Pybind11Extension:
    """`megatron_jobs._cuda`, which brings the runtime of CUDA along: it needs a driver alone."""
    words = subprocess.run(
        [nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True
    )
    top = re.search(r"TOP=(.+)", words.stderr)
    module = extension("_cuda", "cuda")
    module.sources += sorted(map(str, CUDA.glob("*.cu")))
    module.depends += [str(CUDA / "nvcc.flags"), str(CORE / "kernels" / "dtype.h")]
    module.library_dirs.append(f"{top[1] if top else '/usr/local/cuda'}/lib64")
    module.extra_link_args += ["-lcudart_static", "-ldl", "-lrt"]
    return module


def compile_cuda(nvcc: str, source: str, to: str) -> None:
    """One file; what nvcc says is printed at a time, for several run."""
    flags = ["--options-file", str(CUDA / "nvcc.flags"), f"-I{CORE}"]
    command = [nvcc, *flags, "-c", source, "-o", to]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sys.stdout.write(f"{' '.join(command)}\n{done.stdout}")
    if done.returncode:
        raise SystemExit(f"nvcc: {source}: status {done.returncode}")


def extension(name: str, folder: str) -> Pybind11Extension:
    """One module, of all that lies in its folder."""
    return Pybind11Extension(
        f"megatron_jobs.{name}",
        sorted(str(path) for path in (CORE / folder).glob("*.cpp")),
        depends=sorted(str(path) for path in [*CORE.glob("*.h"), *(CORE / folder).glob("*.h")]),
        include_dirs=[str(CORE)],
        cxx_std=20,
        extra_compile_args=[
            "-O3",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pthread",
            "-ffp-contract=off",  # blends compare sums of products: the same on every machine
        ],
        extra_link_args=["-pthread"],
    )


class Build(build_ext):  # type: ignore[misc]
    """All extensions at a time, never more than MAX_JOBS compilers (the cores unless it is set).

    Bindings are compiled with less care than the core: they are most of the lines, and never hot.
    """

    user_options = build_ext.user_options + [("only=", None, "the one extension: _cuda")]  # noqa: RUF005

    def initialize_options(self) -> None:
        """All of them, unless --only says otherwise."""
        super().initialize_options()
        self.only: str | None = None

    def finalize_options(self) -> None:
        """Let `build_extensions` start a thread for each extension."""
        super().finalize_options()
        self.parallel = self.parallel or len(EXTENSIONS)
        if self.only:
            whole = f"megatron_jobs.{self.only}"
            self.extensions = [each for each in self.extensions if each.name == whole]

    def build_extensions(self) -> None:
        """The same with files that wait for a free core."""
        slots = BoundedSemaphore(int(os.environ.get("MAX_JOBS", "0")) or os.cpu_count() or 1)
        compile_file = self.compiler._compile

        def in_turn(obj: str, src: str, ext: str, args: Any, more: Iterable[str], pp: Any) -> None:
            flags = [*more, "-O1"] if Path(src).name.startswith("bind") else list(more)
            with slots:
                if NVCC and src.endswith(".cu"):
                    compile_cuda(NVCC, src, obj)
                    return
                compile_file(obj, src, ext, args, flags, pp)

        self.compiler._compile = in_turn
        self.compiler.src_extensions.append(".cu")
        super().build_extensions()


ParallelCompile("MAX_JOBS").install()
setup(
    ext_modules=[
        *(extension(name, folder) for name, folder in EXTENSIONS.items()),
        *([cuda_extension(NVCC)] if NVCC else []),
    ],
    cmdclass={"build_ext": Build},
)
