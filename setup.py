"""Builds the C++ extensions, each of one folder of csrc/; all else is in pyproject.toml."""

import os
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

    def finalize_options(self) -> None:
        """Let `build_extensions` start a thread for each extension."""
        super().finalize_options()
        self.parallel = self.parallel or len(EXTENSIONS)

    def build_extensions(self) -> None:
        """The same with files that wait for a free core."""
        slots = BoundedSemaphore(int(os.environ.get("MAX_JOBS", "0")) or os.cpu_count() or 1)
        compile_file = self.compiler._compile

        def in_turn(obj: str, src: str, ext: str, args: Any, more: Iterable[str], pp: Any) -> None:
            flags = [*more, "-O1"] if Path(src).name.startswith("bind") else list(more)
            with slots:
                compile_file(obj, src, ext, args, flags, pp)

        self.compiler._compile = in_turn
        super().build_extensions()


ParallelCompile("MAX_JOBS").install()
setup(
    ext_modules=[extension(name, folder) for name, folder in EXTENSIONS.items()],
    cmdclass={"build_ext": Build},
)
