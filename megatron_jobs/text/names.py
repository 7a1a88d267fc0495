"""How documents and the files that they come from are called: the same wherever they are read.

A record without an id is named by its place: FILE:LINE or the like, FILE as `name_files` has it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Given:
    """An input: a folder with files, or one file."""

    home: tuple[str, ...]
    """The parts of the path of the folder that it lies in, from the top."""
    below: tuple[str, ...]
    """Its files, from there on: `documents/a.jsonl` in a folder `documents`."""


def given(path: Path, files: Sequence[Path]) -> Given:
    """A path that was given, and the files that it stands for: itself, or those in it."""
    whole = Path(os.path.abspath(path))
    below = (whole.name / file.relative_to(path) for file in files)
    return Given(whole.parent.parts, tuple(file.as_posix() for file in below))


def name_files(inputs: Sequence[Given]) -> list[list[str]]:
    """A name for each file of each input: its path from the input's own name on; where files of
    two inputs would be called the same, as many of the folders above as tell them apart.

    Inputs that are the same path share their names.
    """
    shown = [0] * len(inputs)
    while True:
        names = [_names(one, above) for one, above in zip(inputs, shown, strict=True)]
        clashing = _colliding(inputs, names)
        longer = [place for place in clashing if shown[place] < len(inputs[place].home)]
        if not longer:
            return names
        for place in longer:
            shown[place] += 1


def _names(one: Given, above: int) -> list[str]:
    folders = one.home[len(one.home) - above :]
    return ["/".join([*(part.strip("/") for part in folders), name]) for name in one.below]


def _colliding(inputs: Sequence[Given], names: list[list[str]]) -> list[int]:
    """Places of the inputs of which a file is called as another file."""
    users: dict[str, list[tuple[int, str]]] = {}
    for place, (one, some) in enumerate(zip(inputs, names, strict=True)):
        for file, name in zip(one.below, some, strict=True):
            users.setdefault(name, []).append((place, "/".join([*one.home, file])))
    shared = [found for found in users.values() if len({path for _, path in found}) > 1]
    return sorted({place for found in shared for place, _ in found})


def id_of(value: object) -> str:
    """The id under "id" of a record: a string, or a whole number as it is written; "" for others,
    or none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return ""
    return value if value.isascii() or _is_whole(value) else ""


def _is_whole(text: str) -> bool:
    """Whether no half of a surrogate pair is in it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
