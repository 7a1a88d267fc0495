"""The `.metadata` of a distributed checkpoint: which record of which file is which piece.

Source: torch.distributed.checkpoint, metadata.py and filesystem.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from megatron_jobs.convert.pickle_out import Instance, Made, Name, pickled

PACKAGE = "torch.distributed.checkpoint"
VERSION = "1.0.0"
TORCH: dict[np.dtype[np.generic], str] = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float16): "float16",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
}
"""torch's names."""
LAYOUT = Made(Name("torch.serialization", "_get_layout"), ("torch.strided",))
CONTIGUOUS = Made(Name(f"{PACKAGE}.metadata", "_MEM_FORMAT_ENCODING"), (0,))


@dataclass(frozen=True)
class Stored:
    """A record, and what it is a piece of; without sizes it is an object."""

    file: str
    at: int
    bytes: int
    key: str
    whole: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()
    sizes: tuple[int, ...] | None = None
    dtype: np.dtype[np.generic] | None = None


def metadata_pickle(stored: Sequence[Stored]) -> bytes:
    """The whole file."""
    names = _Names()
    tensors: dict[str, Any] = {}
    places: dict[Any, Any] = {}
    for one in stored:
        offset = None if one.sizes is None else size(one.offsets)
        index = names.made("MetadataIndex", fqn=one.key, offset=offset, index=None)
        places[index] = Instance(
            names.storage_info,
            {
                "relative_path": one.file,
                "offset": one.at,
                "length": one.bytes,
                "transform_descriptors": None,
            },
        )
        if one.sizes is None:
            tensors[one.key] = names.made("BytesStorageMetadata")
        else:
            tensor = tensors.setdefault(one.key, names.tensor(one))
            chunk = names.made("ChunkStorageMetadata", offsets=offset, sizes=size(one.sizes))
            tensor.state["chunks"].append(chunk)
    return pickled(
        names.made(
            "Metadata",
            state_dict_metadata=tensors,
            planner_data=None,
            storage_data=places,
            storage_meta=None,
            version=VERSION,
        )
    )


class _Names:
    """Classes, each written once: what is the same object is a reference in a pickle."""

    def __init__(self) -> None:
        self.known: dict[str, Name] = {}
        self.storage_info = Name(f"{PACKAGE}.filesystem", "_StorageInfo")

    def made(self, name: str, **state: Any) -> Instance:
        """An instance of a class of metadata.py."""
        self.known.setdefault(name, Name(f"{PACKAGE}.metadata", name))
        return Instance(self.known[name], state)

    def tensor(self, one: Stored) -> Instance:
        """A tensor without chunks yet."""
        assert one.dtype is not None, one.key
        state = (Name("torch", TORCH[one.dtype]), LAYOUT, False, CONTIGUOUS, False)
        properties = Instance(self.made("TensorProperties").of, state)
        return self.made(
            "TensorStorageMetadata", properties=properties, size=size(one.whole), chunks=[]
        )


SIZE = Name("torch", "Size")


def size(shape: tuple[int, ...]) -> Made:
    """A torch.Size."""
    return Made(SIZE, (shape,))
