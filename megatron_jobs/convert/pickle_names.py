"""The names that a pickle of weights may use, and what each stands for here.

Nothing is looked up in Python: a name is a word, and what it makes is plain data of ours.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.convert.storages import DTYPES, STORAGES, size_of, view_of

NUMPY_CODE = re.compile(r"[biufc]\d{1,2}")
RECORDS = {
    "io.BytesIO", "signal.Signals", "torch.device", "torch.Generator", "torch._C.Generator",
    "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer",
    "numpy.dtype", "numpy.ndarray", "numpy.dtypes.UInt32DType", "builtins.object",
    "torch.strided", "torch.serialization._get_layout",
}  # fmt: skip
RECORD_PACKAGES = ("megatron.", "torch.distributed.checkpoint.", "torch.distributed._shard.")
"""All names of these stand for records that do nothing."""
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core": "numpy.core",
           "numpy._core.multiarray": "numpy.core.multiarray",
           "pathlib._local": "pathlib"}  # fmt: skip
"""Modules that were called otherwise in other versions."""


@dataclass(frozen=True)
class Global:
    """A name that a pickle uses, `torch._utils._rebuild_tensor_v2`."""

    name: str


@dataclass(eq=False, slots=True)
class Record:
    """An object of a class that is known by name alone."""

    name: str
    args: tuple[Any, ...]
    state: Any = None

    def field(self, name: str) -> Any:
        """One of its attributes; None where it has no such."""
        if isinstance(self.state, Fields):
            return self.state.field(name)
        return self.state.get(name) if isinstance(self.state, dict) else None


class Fields(tuple[Any, ...]):
    """Attributes: the names of all, in a tuple that objects of a kind share, and each value."""

    __slots__ = ()

    def field(self, name: str) -> Any:
        """One of them; None where it has no such."""
        names = self[0]
        return self[1 + names.index(name)] if name in names else None


class Attributes(dict[str, Any]):
    """What stands for an `argparse.Namespace`: its attributes by name."""


def global_of(module: str, name: str) -> Global | None:
    """What a name stands for, or None when a file of weights has no use for it."""
    full = f"{RENAMED.get(module, module)}.{name}"
    known = (
        full in RECORDS or full in MAKERS or full in ATTRIBUTES or full in CONTAINERS
        or full.startswith(RECORD_PACKAGES)
        or storage_of(full) is not None or dtype_of(full) is not None
    )  # fmt: skip
    return Global(full) if known else None


def storage_of(full: str) -> tuple[np.dtype[np.generic] | None] | None:
    """The number format (or None: bytes), in a tuple, if a name is that of a kind of storage."""
    package, _, name = full.rpartition(".")
    known = package in ("torch", "torch.cuda", "torch.storage") and name in STORAGES
    return (STORAGES[name],) if known else None


def dtype_of(full: str) -> np.dtype[np.generic] | None:
    """The number format of a name such as `torch.bfloat16`."""
    package, _, name = full.rpartition(".")
    return DTYPES.get(name) if package == "torch" else None


def make(what: Global, args: tuple[Any, ...]) -> Any:
    """What a name makes of arguments; ValueError, in words, when they do not fit."""
    if what.name in MAKERS:
        return MAKERS[what.name](*args)
    if what.name in ATTRIBUTES:
        return Attributes()
    if what.name in RECORDS or what.name.startswith(RECORD_PACKAGES):
        return Record(what.name, args)
    raise ValueError(f"{what.name} cannot be made")


def _reconstructor(kind: Any, base: Any, state: Any) -> Any:
    """An empty object, as protocols 0 and 1 make them."""
    if not isinstance(kind, Global) or base != Global("builtins.object") or state is not None:
        raise ValueError("copyreg._reconstructor of something that is no plain class")
    return make(kind, ())


def _member(kind: Any, name: Any) -> Record:
    """A member of an enumeration; nothing is looked up."""
    if not isinstance(kind, Global) or not isinstance(name, str):
        raise ValueError("getattr of something that is no enumeration")
    made = make(kind, (name,))
    if not isinstance(made, Record):
        raise ValueError(f"getattr of {kind.name}, which is no enumeration")
    return made


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("_codecs.encode with something that are no bytes")
    return text.encode("latin-1")


def _path(*parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts) or len(parts) > 1000:
        raise ValueError("a path whose parts are no words")
    return str(PurePosixPath(*parts))


def _scalar(kind: Any, data: Any) -> Any:
    code = kind.args[0] if isinstance(kind, Record) and kind.args else None
    if not isinstance(code, str) or not NUMPY_CODE.fullmatch(code) or not isinstance(data, bytes):
        raise ValueError("a number of numpy of an unknown kind")
    return np.frombuffer(data, np.dtype(code), 1)[0].item()


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Matrix | None:
    """`_rebuild_tensor_v2`: a view of a storage that has a number format."""
    return view_of(storage, offset, size, stride, None)


def _tensor_with_dtype(
    storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> Matrix | None:
    """`_rebuild_tensor_v3`: a view of bytes, its number format the third of the rest."""
    dtype = dtype_of(rest[2].name) if len(rest) > 2 and isinstance(rest[2], Global) else None
    if dtype is None:
        raise ValueError("a tensor of an unknown number format")
    return view_of(storage, offset, size, stride, dtype)


def _parameter(data: Any, *rest: Any) -> Any:
    if data is not None and not isinstance(data, Matrix):
        raise ValueError("a parameter that is no tensor")
    return data


def _typed(function: Any, kind: Any, args: Any, state: Any) -> Any:
    """`_rebuild_from_type_v2`: a tensor with attributes, which are left out."""
    if not isinstance(function, Global) or function.name not in TENSORS:
        raise ValueError("a tensor that is made in an unknown way")
    if not isinstance(args, tuple):
        raise ValueError("a tensor of no arguments")
    return MAKERS[function.name](*args)


TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
MAKERS: dict[str, Callable[..., Any]] = TENSORS | {
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": size_of,
    "copyreg._reconstructor": _reconstructor,
    "builtins.getattr": _member,
    "_codecs.encode": _encoded,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.multiarray._reconstruct": lambda *args: Record("numpy.ndarray", args),
    **{f"pathlib.{name}": _path for name in ("Path", "PurePath", "PosixPath", "PurePosixPath",
                                              "WindowsPath", "PureWindowsPath")},
}  # fmt: skip
ATTRIBUTES = {"argparse.Namespace", "types.SimpleNamespace"}
CONTAINERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict, "collections.defaultdict": dict, "builtins.dict": dict,
    "builtins.list": list, "builtins.tuple": tuple, "builtins.set": set,
    "builtins.frozenset": frozenset, "builtins.bytearray": bytearray, "builtins.bytes": bytes,
}  # fmt: skip
"""Made by the machine that reads, which counts what they hold."""
