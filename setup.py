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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

CORE = Path("csrc")
EXTENSIONS = {
    "_copies": "copies",
    "_data": "index",
    "_lines": "lines",
    "_maps": "maps",
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
    flags = ["--options-file", str(CUDA / "nvcc.flags"), f"-I{CORE}", *notes_beside(to)]
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


TOGETHER = (
    ("copies", "lines", "ngrams", "overlap", "repeats"),
    ("filters", "index", "maps", "pack", "personal"),
)
"""Folders whose bindings are compiled as one file: their headers may not share a name."""
CORE_H = "algorithm array bit cmath cstdint cstring limits memory span string string_view vector"
"""What most files of the core include, read once for all of them."""


@dataclass(frozen=True)
class Job:
    """A file to compile."""

    source: str
    to: str
    flags: tuple[str, ...]
    binds: bool = False

    def changed(self) -> bool:
        """Whether there is something newer than what was compiled: see `notes_beside`."""
        made, notes = Path(self.to), Path(f"{self.to}.d")
        if not (made.exists() and notes.exists()):
            return True
        read = re.split(r"(?<!\\)\s+", notes.read_text().replace("\\\n", " ").strip())[1:]
        files = [Path(name.replace("\\ ", " ")) for name in (*read, __file__)]
        kept = [file for file in files if file.suffix != ".gch"]
        return any(not f.exists() or f.stat().st_mtime > made.stat().st_mtime for f in kept)

    def turn(self) -> tuple[tuple[bool, ...], int]:
        """The longest first, that all cores have work to the end."""
        text = Path(self.source).read_text()
        kind = self.source.endswith(".cu"), self.binds, "every_machine.h" in text
        return tuple(not each for each in kind), -len(text)


def notes_beside(made: str) -> list[str]:
    """Flags that leave a list of all files that were read beside the one that is made."""
    return ["-MMD", "-MF", f"{made}.d"]


def write(path: Path, text: str) -> str:
    """Let the file have this text; it stays as old as it is if it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return str(path)


def in_one(folders: Iterable[str]) -> str:
    """Source of one file for all bindings of some folders: reading pybind11 alone takes 4 s.

    Each is in a namespace of its own, so what they include comes before; in none is a bindings.cpp
    with bind_*.cpp beside it, for it defines the members of what these use.
    """
    files = [file for folder in folders for file in sorted((CORE / folder).glob("bind_*.cpp"))]
    own = {file.parent for file in files}
    files += [CORE / folder / "bindings.cpp" for folder in folders]
    lines = [line for file in files for line in file.read_text().splitlines()]
    parts = sorted({line for line in lines if line.startswith("#include")}, reverse=True)
    for file in files:
        part = f'#include "{file.relative_to(CORE)}"'
        shared = file.name == "bindings.cpp" and file.parent in own
        parts.append(
            part if shared else f"namespace of_{file.parent.name}_{file.stem} {{\n{part}\n}}"
        )
    return "\n".join([*parts, ""])


class Build(build_ext):  # type: ignore[misc]
    """Compiles what changed, MAX_JOBS files at a time (the cores unless it is set), then links."""

    user_options = build_ext.user_options + [("only=", None, "the one extension: _cuda")]  # noqa: RUF005

    def initialize_options(self) -> None:
        """All of them, unless --only says otherwise."""
        super().initialize_options()
        self.only: str | None = None

    def finalize_options(self) -> None:
        """Let `build_extensions` link all extensions at a time."""
        super().finalize_options()
        self.parallel = self.parallel or len(EXTENSIONS)
        if self.only:
            whole = f"megatron_jobs.{self.only}"
            self.extensions = [each for each in self.extensions if each.name == whole]

    def build_extensions(self) -> None:
        """The same, with all files of all extensions in one queue."""
        self.compiler.src_extensions.append(".cu")
        folders = {Path(each.sources[0]).parent.name: each for each in self.extensions}
        jobs = [job for each in self.extensions for job in self.jobs_of(each)]
        alone = [(folder,) for folder in folders if folder not in sum(TOGETHER, ())]
        for group in (*TOGETHER, *alone):
            built = {name: folders[name] for name in group if name in folders}
            jobs += self.bindings_of(built)
        self.compile_all([job for job in jobs if self.force or job.changed()])
        self.compiler.compile = self.compiled
        super().build_extensions()

    def compiled(self, sources: list[str], output_dir: str, **_: Any) -> list[str]:
        """Where the files are that `compile_all` made."""
        found: list[str] = self.compiler.object_filenames(sources, output_dir=output_dir)
        return found

    def jobs_of(self, module: Pybind11Extension, sources: list[str] | None = None) -> list[Job]:
        """Its core, or these files; it is linked again when one of them is compiled again."""
        if sources is None:
            sources = [each for each in module.sources if not Path(each).name.startswith("bind")]
            module.sources, module.depends = sources, []
        where = (self.build_temp, None, module.include_dirs, sorted(sources))
        flags = module.extra_compile_args
        _, made, flags, words, known = self.compiler._setup_compile(*where, None, flags)
        module.depends += made
        cc = self.compiler._get_cc_args(words, self.debug, None)
        return [Job(known[to][0], to, (*cc, *flags)) for to in made]

    def bindings_of(self, group: dict[str, Pybind11Extension]) -> list[Job]:
        """One file for the modules of these folders; each takes what its init function uses."""
        if not group:
            return []
        modules = list(group.values())
        source = write(Path(self.build_temp) / f"{'_'.join(group)}.cpp", in_one(group))
        (job,) = self.jobs_of(modules[0], [source])
        for module in modules:
            name = module.name.rpartition(".")[2]
            script = f"{{ global: PyInit_{name}; local: *; }};\n"
            script = write(Path(self.build_temp) / f"{name}.map", script)
            module.extra_link_args += ["-Wl,--gc-sections", f"-Wl,--version-script={script}"]
            module.extra_objects.append(job.to)
            module.depends.append(job.to)
        sections = ("-O1", "-ffunction-sections", "-fdata-sections")  # a hot loop is in the core
        return [replace(job, flags=(*job.flags, *sections), binds=True)]

    def compile_all(self, jobs: list[Job]) -> None:
        """In their turn; where there are many, those of the core wait for what they all include."""
        slots = int(os.environ.get("MAX_JOBS", "0")) or os.cpu_count() or 1
        core = [job for job in jobs if not job.binds]
        with ThreadPoolExecutor(slots) as pool:
            header = None
            if len(core) > 5 * slots and self.is_gcc():
                header = pool.submit(self.compile_header, core[0])
            ready = [
                pool.submit(self.compile_file, job, header) for job in sorted(jobs, key=Job.turn)
            ]
            try:
                for each in ready:
                    each.result()
            finally:
                pool.shutdown(cancel_futures=True)
                if header:
                    header.result().unlink()

    def is_gcc(self) -> bool:
        """Whether headers that were compiled before are found as GCC finds them."""
        command = [*self.compiler.compiler_so_cxx, "-dM", "-E", "-x", "c++", os.devnull]
        macros = subprocess.run(command, capture_output=True, text=True).stdout
        return "__GNUC__" in macros and "__clang__" not in macros

    def compile_header(self, like: Job) -> Path:
        """CORE_H, compiled: 1 s, of which each file saves a quarter; large, and so taken away."""
        text = "".join(f"#include <{name}>\n" for name in CORE_H.split())
        header = write(Path(self.build_temp) / "core.h", text)
        made = f"{header}.gch"
        flags = [*like.flags, "-x", "c++-header"]
        self.spawn([*self.compiler.compiler_so_cxx, *flags, header, "-o", made])
        return Path(made)

    def compile_file(self, job: Job, header: Future[Path] | None) -> None:
        """One file, and the list of what it read."""
        if NVCC and job.source.endswith(".cu"):
            compile_cuda(NVCC, job.source, job.to)
            return
        flags = [*job.flags, *notes_beside(job.to)]
        if header and not job.binds:
            flags += ["-include", str(header.result().with_suffix(""))]
        self.spawn([*self.compiler.compiler_so_cxx, *flags, job.source, "-o", job.to])


setup(
    ext_modules=[
        *(extension(name, folder) for name, folder in EXTENSIONS.items()),
        *([cuda_extension(NVCC)] if NVCC else []),
    ],
    cmdclass={"build_ext": Build},
)
