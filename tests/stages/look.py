"""Each rank says which of some paths it sees, what its variables are, and which Python it is."""

import os
import sys
from pathlib import Path

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Settings
from megatron_jobs.runtime.files import write_json
from megatron_jobs.runtime.rank import Rank

OUTPUTS = ("seen",)
RESOURCES = Resources()


class Config(Settings):
    """What to look for."""

    reads: InputPath | None = None
    paths: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write what this rank sees to seen/RANK.json."""
    (folder / "seen").mkdir(exist_ok=True)
    found = {
        "paths": [path for path in config.paths if Path(path).exists()],
        "variables": {name: os.environ.get(name, "") for name in config.variables},
        "prefix": sys.prefix,
        "read": config.reads.read_text() if config.reads else "",
        "host": rank.node_name,
    }
    write_json(folder / "seen" / f"{rank.index}.json", found)
    return {"ranks": rank.world}
