"""What a checkpoint folder says of itself, and which one is the latest.

ROOT/latest                  the name of the newest whole checkpoint, replaced at once
ROOT/step-00000100/          megatron-core `torch_dist` files, random.pt, manifest.json
ROOT/step-00000200.partial/  being written, or left by a kill: never read
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import (
    PARTIAL,
    file_hash,
    read_json,
    remove,
    write_json,
    write_text,
)
from megatron_jobs.runtime.saved_steps import LATEST, NAME, STEP_FOLDER
from megatron_jobs.runtime.saved_steps import find_checkpoint as find_checkpoint
from megatron_jobs.runtime.saved_steps import latest_checkpoint as latest_checkpoint

TENSORS = ".distcp"
"""How the names of files of tensors end."""


@dataclass(frozen=True)
class Manifest:
    """All that is needed to trust a checkpoint and to go on from it."""

    step: int
    layout: dict[str, int | bool | str]
    """Device, ranks and mesh of the run that saved it."""
    record: dict[str, Any]
    """What the training loop notes: model and batch settings, samples, tokenizer, losses."""
    fingerprints: list[str]
    """Hash of every state tensor of each rank, in the order of ranks."""
    files: dict[str, dict[str, int | str]]
    """Name -> bytes and sha256 of every other file of the folder."""


def step_folder(root: Path, step: int) -> Path:
    """Where the checkpoint of a step stands."""
    return root / f"step-{step:08}"


def file_names(folder: Path) -> list[str]:
    """All files below `folder` but the manifest."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != NAME)
    return [path.relative_to(folder).as_posix() for path in files]


def describe_files(folder: Path, names: list[str]) -> dict[str, dict[str, int | str]]:
    """Sizes and hashes of some files below `folder`."""
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_hash(folder / name)}
        for name in names
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a folder that is otherwise whole."""
    write_json(folder / NAME, asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint; DataError when there is none or it cannot be true."""
    path = folder / NAME
    try:
        manifest = Manifest(**read_json(path))
        wrong = _contradiction(folder, manifest)
    except FileNotFoundError as error:
        raise DataError(f"{folder}: no {NAME}; not a whole checkpoint") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: not a manifest: {type(error).__name__}: {error}") from error
    if wrong:
        raise DataError(f"{path}: {wrong}")
    return manifest


def _contradiction(folder: Path, manifest: Manifest) -> str:
    """What a manifest says that its folder or the rest of it denies, or nothing."""
    named = STEP_FOLDER.fullmatch(folder.name)
    if named and int(named[1]) != manifest.step:
        return f"is of step {manifest.step}, its folder is {folder.name}"
    world, hashes = manifest.layout["world"], len(manifest.fingerprints)
    if world != hashes:
        return f"holds the hashes of {hashes} ranks, its layout has {world}"
    kept = {path.name for path in folder.glob(f"*{TENSORS}")}
    unknown = sorted(kept - set(manifest.files))
    return f"does not name {unknown[0]}, which is there" if unknown else ""


def check_files(folder: Path, manifest: Manifest, *, part: int = 0, parts: int = 1) -> str:
    """What is wrong with the files of a checkpoint, or nothing.

    Args:
        part, parts: of `parts` checkers this one hashes every file whose place is `part`.
    """
    for place, (name, wanted) in enumerate(sorted(manifest.files.items())):
        path = folder / name
        if not path.is_file():
            return f"{path}: is missing"
        size = path.stat().st_size
        if size != wanted["bytes"]:
            return f"{path}: has {size} bytes, the manifest says {wanted['bytes']}"
        if place % parts == part and file_hash(path) != wanted["sha256"]:
            return f"{path}: its bytes are not those that were saved (sha256 differs)"
    return ""


def set_latest(root: Path, folder: Path) -> None:
    """Make `folder` the latest, at once."""
    write_text(root / LATEST, folder.name + "\n")


def remove_older(root: Path, keep: int) -> None:
    """Keep the newest `keep` checkpoints (0: all), and nothing unfinished."""
    whole = sorted(path for path in root.iterdir() if STEP_FOLDER.fullmatch(path.name))
    newest = latest_checkpoint(root)
    for path in whole[:-keep] if keep else []:
        if path != newest:
            remove(path)
    for path in root.glob(f"step-*{PARTIAL}"):
        remove(path)
