"""A model's parameters from whole tensors by name, wherever they lie."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.errors import DataError
from megatron_jobs.model.initialize import EMBEDDING, OUTPUT, own_cut, whole_name


@torch.no_grad()
def fill(chunks: Sequence[nn.Module], tensors: Mapping[str, Matrix]) -> None:
    """Give every parameter of this rank its part of the whole tensor of its name.

    Args:
        chunks: megatron-core models as `build_model` makes them.
        tensors: whole tensors under logical names, in any number format.
    Raises: DataError when one is missing or has another shape.
    """
    for name, own in _places(chunks):
        found = name if name in tensors else _stand_in(name)
        if found not in tensors:
            raise DataError(f"{name}: missing; the model has it")
        cut = own_cut(_tensor(tensors[found]), own)  # type: ignore[arg-type]
        if cut.shape != own.shape:
            whole = list(tensors[found].shape)
            raise DataError(f"{name}: found {whole}, of which this rank holds {list(own.shape)}")
        own.copy_(cut)


def _places(chunks: Sequence[nn.Module]) -> Iterator[tuple[str, Tensor]]:
    """(name in the whole model, tensor) of all that a checkpoint keeps."""
    for chunk in chunks:
        kept = chunk.state_dict(keep_vars=True)
        for name, own in kept.items():
            if isinstance(own, Tensor):  # megatron-core keeps empty extra states beside them
                yield whole_name(chunk, name), own


def _stand_in(name: str) -> str:
    """The last stage of a pipeline holds a copy of a tied embedding."""
    return EMBEDDING if name == OUTPUT else name


def _tensor(matrix: Matrix) -> Tensor:
    array = matrix.array()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
