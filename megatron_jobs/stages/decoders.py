"""Stages that take decoders alone say so of another checkpoint, before anything starts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from megatron_jobs.config.kinds import only_decoders
from megatron_jobs.config.settings import Problem
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.saved_steps import read_saved_step


def decoder_problems(checkpoint: Path, what: str) -> Iterator[Problem]:
    """What a checkpoint that is there holds, if not a decoder; one that is none is no problem yet.

    Args:
        checkpoint: the setting of that name; one checkpoint, or a folder whose latest is taken.
        what: the stage does: `generate continues`.
    """
    if wrong := _wrong(checkpoint, what):
        yield "checkpoint", wrong


def check_decoder(checkpoint: Path, what: str) -> None:
    """Raise UserError for what `decoder_problems` yields: of a checkpoint that came to be since."""
    if wrong := _wrong(checkpoint, what):
        raise UserError(f"checkpoint: {wrong}")


def _wrong(checkpoint: Path, what: str) -> str:
    if not checkpoint.exists():
        return ""
    try:
        model: Any = read_saved_step(checkpoint).record.get("model")
    except (DataError, OSError):
        return ""  # said by those who open it
    kind = model.get("kind", "decoder") if isinstance(model, dict) else "decoder"
    wrong = only_decoders(str(kind), what)
    return f"{checkpoint} holds {wrong}" if wrong else ""
