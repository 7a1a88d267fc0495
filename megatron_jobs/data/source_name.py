"""By which name a token file is told of."""

import os
from pathlib import Path

from megatron_jobs.data.token_file import bin_path


def source_name(prefix: Path) -> str:
    """The job that made a token file, or the name of a bare one."""
    path = Path(os.path.normpath(prefix))
    return path.parent.parent.name if path.name == "tokens" else path.name


def source_path(prefix: Path) -> Path:
    """A token file as the index stage takes it: the folder of a tokenize job, or a .bin."""
    path = Path(os.path.normpath(prefix))
    return path.parent if path.name == "tokens" else bin_path(path)
