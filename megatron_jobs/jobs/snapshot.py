"""A copy of this package in the run folder: what is submitted is what runs, whatever is edited."""

import compileall
import os
import shutil
from pathlib import Path

import megatron_jobs
from megatron_jobs.jobs.folder import SOURCE, code_version
from megatron_jobs.runtime.files import remove, tree_hash, whole_folder, write_text

CODE = ".code"


def snapshot_code(run: Path) -> Path:
    """Copy the package to RUN/.code/HASH and return that folder, to be put first on PYTHONPATH.

    The same code is copied once, however many jobs are submitted with it.
    """
    source = Path(megatron_jobs.__file__).parent
    staging = run / CODE / f"copy-{os.getpid()}"  # two may submit at once
    remove(staging)
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    with whole_folder(staging) as part:
        shutil.copytree(source, part / "megatron_jobs", ignore=skip)
        write_text(part / SOURCE, code_version())
    target = run / CODE / tree_hash(staging)[:16]
    try:
        staging.rename(target)
    except OSError:
        if not target.exists():
            raise
        remove(staging)  # the same code is there already
    return target


def compile_snapshot() -> None:
    """Leave bytecode beside the source that runs, if it is such a copy; done once.

    Called by one process, with the Python of the ranks, before they start: else each of 16,000
    compiles every module that it imports, and may try to leave it in the same folders.
    """
    package = Path(megatron_jobs.__file__).parent
    if package.parent.parent.name == CODE:
        compileall.compile_dir(package, quiet=2)
