"""A GGUF model in several files, `NAME-00001-of-00003.gguf`, read as one.

Source: gguf-split of llama.cpp. Each part says its number from 0 (`split.no`), how many there are
(`split.count`) and the tensors of all together (`split.tensors.count`); the first says the rest.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from megatron_jobs.convert.gguf_file import GGUFFile, read_gguf
from megatron_jobs.errors import DataError, UserError

END = ".gguf"
NAME = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"
ARCHITECTURE = "general.architecture"


def gguf_in(folder: Path) -> list[Path]:
    """The GGUF files that lie in a folder; of a model in parts the first alone."""
    found = sorted(path for path in folder.glob(f"*{END}") if path.is_file())
    names = {path: NAME.fullmatch(path.name) for path in found}
    firsts: dict[tuple[str, ...], Path] = {}
    for path, match in names.items():
        key = (match["name"], match["count"]) if match else (path.name,)
        firsts.setdefault(key, path)
    return list(firsts.values())


def read_model(path: Path) -> GGUFFile:
    """The model of a GGUF file, of any part of one, or of the only one in a folder.

    Raises: UserError for a folder of several models; DataError when a part is missing, lies, or is
        of another model.
    """
    if path.is_dir():
        path = _only_one(path)
    file = read_gguf(path)
    count = file.metadata.get(COUNT, 1)
    if count in (0, 1):
        return file
    names = _names(file, count)
    parts = [read_gguf(name) if name != path else file for name in names]
    for number, part in enumerate(parts):
        _check_part(part, number, parts)
    return _joined(parts)


def _only_one(folder: Path) -> Path:
    found = gguf_in(folder)
    if len(found) != 1:
        there = ", ".join(path.name for path in found[:3]) or f"no *{END}"
        raise UserError(f"{folder}: holds {there}; name one file")
    return found[0]


def _names(file: GGUFFile, count: object) -> list[Path]:
    """Where the parts lie; DataError unless all are there."""
    match = NAME.fullmatch(file.path.name)
    if match is None:
        rule = "one of several parts is named NAME-00001-of-00003.gguf"
        raise DataError(f"{file.path}: {COUNT} {count!r}: {rule}")
    if count != int(match["count"]):
        rule = f"its name says {int(match['count'])}"
        raise DataError(f"{file.path}: {COUNT} {count!r}: {rule}")
    name, total = match["name"], match["count"]
    found = [file.path.with_name(f"{name}-{n + 1:05}-of-{total}{END}") for n in range(int(total))]
    missing = [path.name for path in found if not path.is_file()]
    if missing:
        told = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise DataError(f"{file.path}: {len(missing)} of {total} parts are not beside it: {told}")
    return found


def _check_part(part: GGUFFile, number: int, parts: list[GGUFFile]) -> None:
    """DataError unless it is the part that its name says, of the model that the first is of."""
    first = parts[0]
    wanted = {
        NUMBER: number,
        COUNT: len(parts),
        TENSORS: sum(len(part.tensors) for part in parts),
    }
    for key, value in wanted.items():
        found = part.metadata.get(key)
        if found != value:
            rule = "all parts together have" if key == TENSORS else "it must be"
            raise DataError(f"{part.path}: {key}: found {found!r}, {rule} {value}")
    for key, value in part.metadata.items():
        other = first.metadata.get(key)
        same = np.array_equal(np.asarray(value), np.asarray(other))
        if key not in wanted and not same:
            rule = f"{first.path.name} has {_short(other)}; parts of one model agree"
            raise DataError(f"{part.path}: {key}: found {_short(value)}, {rule}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."


def _joined(parts: list[GGUFFile]) -> GGUFFile:
    first = parts[0]
    places: dict[str, Path] = {}
    for part in parts:
        for name in part.tensors:
            if name in places:
                rule = f"{places[name].name} has it too"
                raise DataError(f"{part.path}: tensor {name!r}: {rule}")
            places[name] = part.path
    return replace(
        first,
        tensors={name: matrix for part in parts for name, matrix in part.tensors.items()},
        kinds={name: kind for part in parts for name, kind in part.kinds.items()},
        further=tuple(part.path for part in parts[1:]),
    )
