"""A trained model from its checkpoint alone, in any layout, weights only."""

from pathlib import Path
from typing import Any

from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.manifest import find_checkpoint, read_manifest
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.precision import Precision
from megatron_jobs.model.build import build_model


def model_of(checkpoint: Path) -> ModelConfig:
    """The settings of the model in a checkpoint (or of the latest below a folder)."""
    return ModelConfig(**read_manifest(find_checkpoint(checkpoint)).record["model"])


def precision_of(checkpoint: Path) -> Precision:
    """The number format of the weights in a checkpoint."""
    found: Precision = read_manifest(find_checkpoint(checkpoint)).record["precision"]
    return found


def open_model(checkpoint: Path, mesh: Mesh, precision: Precision) -> list[Any]:
    """This rank's chunks with the weights of a checkpoint; groups must be open.

    Args:
        checkpoint: one checkpoint, or a folder whose latest is taken.
        precision: what the weights become; exact when it is theirs or wider.
    """
    chunks: list[Any] = build_model(model_of(checkpoint), mesh, precision, seed=None)
    load_checkpoint(find_checkpoint(checkpoint), Training(chunks, None, {}))
    return chunks
