"""A result that speaks for itself: a kill behind its appearance does not cost it.

FOLDER appears when a note beside it says what it was made of; a later start that would make the
same finds it, and has nothing to do.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.convert.written import journal_of
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import read_json, remove, write_json

MADE_OF = "made_of"


@dataclass(frozen=True)
class Noted:
    """The note of one conversion."""

    file: Path
    key: str
    """Of its sources and settings."""
    proof: str

    def write(self, part: Path, found: dict[str, Any]) -> None:
        """Note what was found of a folder that is whole, before it appears."""
        write_json(self.file, found | {MADE_OF: self._made_of(part)})

    def result(self, folder: Path) -> dict[str, Any] | None:
        """What was found of a folder that is there and the same; any other is removed, and None."""
        found = self._read() if folder.is_dir() else {}
        if found.get(MADE_OF) == self._made_of(folder):
            remove(journal_of(folder))  # the kill may have come before that
            print(f"{folder.name}: is whole and proved already", flush=True)
            return found
        remove(folder)
        return None

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self.file)
        except (FileNotFoundError, DataError):
            return {}
        return found if isinstance(found, dict) else {}

    def _made_of(self, folder: Path) -> dict[str, str]:
        return {"key": self.key, "proof": self.proof, "files": names_hash(folder)}


def names_hash(folder: Path) -> str:
    """A hash of the names and sizes of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()
