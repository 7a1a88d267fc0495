"""Builds the C++ extensions, each of one folder of csrc/; all else is in pyproject.toml."""

from pathlib import Path

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


ParallelCompile("MAX_JOBS").install()
setup(
    ext_modules=[extension(name, folder) for name, folder in EXTENSIONS.items()],
    cmdclass={"build_ext": build_ext},
)
