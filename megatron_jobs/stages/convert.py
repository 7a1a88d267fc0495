"""A checkpoint as a Hugging Face folder, or the other way, its logits compared."""

from pathlib import Path

from pydantic import PositiveInt

from megatron_jobs.config.precision import Precision
from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Settings
from megatron_jobs.runtime.rank import Rank

OUTPUTS = ("model", "comparison.json")
RESOURCES = Resources()
PRELOAD = ("megatron_jobs.checkpoint.convert",)


class Config(Settings):
    """What is converted to what."""

    source: InputPath
    """A checkpoint of ours (or a folder whose latest is taken), or a Hugging Face folder; the
    result, folder `model`, is of the other kind."""
    tokenizer: InputPath | None = None
    """Folder of the tokenizer (or its tokenizer.json) whose files go into a Hugging Face folder;
    of a Hugging Face model, null for the one beside it."""
    dtype: Precision = "fp32"
    """Of the weights written."""
    pad_vocab_to: PositiveInt = 128
    """Of a Hugging Face model, the embedding gets a multiple of this many rows: tensor ranks must
    divide them. The way back leaves the padding out."""


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Convert on the leader; the comparison goes to comparison.json and the receipt."""
    from megatron_jobs.runtime.files import remove, write_json

    if not rank.leads:
        return {}
    remove(folder / "model")
    found = convert(config, folder / "model")
    write_json(folder / "comparison.json", found)
    return found


def convert(config: Config, out: Path) -> dict[str, float]:
    """Write the model of the other kind to `out`; returns how its logits compare."""
    from megatron_jobs.checkpoint.convert import export_model, import_model
    from megatron_jobs.config.mesh import Mesh
    from megatron_jobs.parallel.groups import close, connect, open_groups
    from megatron_jobs.runtime.rank import ALONE

    connect(ALONE, out.parent)
    open_groups(Mesh(), 0)
    try:
        if (config.source / "config.json").exists():
            return import_model(
                config.source, out, precision=config.dtype, tokenizer=config.tokenizer,
                pad_vocab_to=config.pad_vocab_to,
            )  # fmt: skip
        return export_model(config.source, out, tokenizer=config.tokenizer, dtype=config.dtype)
    finally:
        close()
