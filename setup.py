"""Builds the one C++ extension, `megatron_jobs._data`; all else is in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

CORE = Path("csrc")

data = Pybind11Extension(
    "megatron_jobs._data",
    sorted(str(path) for path in [CORE / "bindings.cpp", *CORE.glob("index/*.cpp")]),
    depends=sorted(str(path) for path in CORE.glob("**/*.h")),
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

setup(ext_modules=[data], cmdclass={"build_ext": build_ext})
