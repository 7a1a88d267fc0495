"""Pickles of torch's classes, written without importing torch."""

import copyreg
import io
import pickle
from dataclasses import dataclass, field
from typing import Any, ClassVar

PROTOCOL = 2
"""What torch.save writes: globals by name, no frames."""


@dataclass(frozen=True, eq=False)
class Name:
    """A class or a function, by its name alone."""

    module: str
    name: str

    def __call__(self, *args: Any) -> Any:
        """Never: pickle merely asks whether it can be called."""
        raise TypeError(f"{self.module}.{self.name} stands for a name")


@dataclass(frozen=True, eq=False)
class Made:
    """What a function gives for some arguments."""

    maker: Name
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Instance:
    """An object of a class, by its attributes (or what its class makes of its state)."""

    of: Name
    state: Any = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Persistent:
    """What the reader finds under a name of its own, such as a tensor's storage."""

    number: tuple[Any, ...]


def _save_name(writer: Any, name: Name) -> None:
    """As the class itself would be written."""
    writer.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
    writer.memoize(name)


def _save_made(writer: Any, made: Made) -> None:
    """A call."""
    writer.save_reduce(made.maker, made.args, obj=made)


def _save_instance(writer: Any, instance: Instance) -> None:
    """An object without arguments, then its state."""
    writer.save_reduce(copyreg.__newobj__, (instance.of,), instance.state)  # type: ignore[attr-defined]


class _Writer(pickle._Pickler):
    """The pickler in Python: the one in C would import what a name stands for."""

    dispatch: ClassVar[dict[Any, Any]] = {**pickle._Pickler.dispatch}

    def persistent_id(self, obj: Any) -> Any:
        """The name under which the reader finds it; None for what is pickled."""
        return obj.number if isinstance(obj, Persistent) else None

    dispatch[Name] = _save_name
    dispatch[Made] = _save_made
    dispatch[Instance] = _save_instance


def pickled(value: Any) -> bytes:
    """A pickle of plain values, `Name`, `Made`, `Instance` and `Persistent`."""
    buffer = io.BytesIO()
    _Writer(buffer, PROTOCOL).dump(value)
    return buffer.getvalue()
