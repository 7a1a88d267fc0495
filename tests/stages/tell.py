"""Writes down what has reached its ranks: a setting's text, and variables of the environment."""

import json
import os
import time
from pathlib import Path

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from tests.stages.echo import is_first_start

OUTPUTS = ("told",)
RESOURCES = Resources()


class Config(Settings):
    """What to tell."""

    text: str = ""
    variables: tuple[str, ...] = ()
    reads: InputPath | None = None
    seconds: float = 0
    """How long it takes in its first start."""
    bad: bool = False
    """Fail, in the words of `text`."""


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Leave one file a rank."""
    print(f"rank {rank.index} tells {config.text!r}")
    if config.bad:
        raise UserError(config.text)
    time.sleep(config.seconds if is_first_start(folder) else 0)
    told = {name: os.environ.get(name) for name in config.variables} | {"text": config.text}
    (folder / "told").mkdir(exist_ok=True)
    (folder / "told" / f"{rank.index}.json").write_text(json.dumps(told))
    return {"letters": float(len(config.text))}
