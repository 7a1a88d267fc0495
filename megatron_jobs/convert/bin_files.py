"""The weights of a Hugging Face folder as `torch.save` wrote them: pytorch_model.bin, or shards."""

from pathlib import Path
from typing import Any

from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.safetensors import check_index, file_inside, open_files, weight_map
from megatron_jobs.convert.torch_files import open_torch
from megatron_jobs.errors import DataError

WHOLE, INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SHARDS = "pytorch_model-*.bin"


def open_bin_folder(folder: Path) -> dict[str, Matrix]:
    """The tensors of a folder, or of one file, by name; nothing of them has been read.

    As transformers chooses: pytorch_model.bin, else the shards of the index.

    Raises: DataError, naming the file, when it holds anything but tensors or asks for code, when a
        tensor is in two files, or the index names what is not there or lies elsewhere.
    """
    if folder.is_file():
        return open_bin(folder)
    if (folder / WHOLE).is_file():
        return open_bin(file_inside(folder, WHOLE, folder))
    if not (folder / INDEX).exists():
        lone = sorted(folder.glob(SHARDS))
        found = f"{lone[0].name} but no {INDEX}" if lone else f"no {WHOLE} and no {INDEX}"
        raise DataError(f"{folder}: holds {found}")
    names = sorted(set(weight_map(folder, INDEX).values()))
    files = [file_inside(folder, name, folder / INDEX) for name in names]
    tensors, places = open_files(files, open_bin)
    check_index(folder, INDEX, places)
    return tensors


def open_bin(path: Path) -> dict[str, Matrix]:
    """The tensors of one file; some keep them under `state_dict`."""
    held: Any = open_torch(path)
    if isinstance(held, dict) and isinstance(held.get("state_dict"), dict):
        held = held["state_dict"]
    if not isinstance(held, dict) or not held:
        raise DataError(f"{path}: holds a {type(held).__name__}, not tensors by name")
    for name, matrix in held.items():
        if not isinstance(name, str) or not isinstance(matrix, Matrix):
            raise DataError(f"{path}: {str(name)[:100]}: is a {type(matrix).__name__}, no tensor")
    return dict(held)
