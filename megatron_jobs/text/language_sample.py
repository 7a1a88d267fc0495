"""The first texts of each language."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.text.documents import Document, read_documents
from megatron_jobs.text.sources import Piece, TextFile, text_files

UNKNOWN = "unknown"
"""The language of a text that has none."""


@dataclass
class LanguageSample:
    """Texts by language."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    rejected: int = 0
    """Lines that are no documents."""
    letters: dict[str, int] = field(default_factory=dict)

    def count(self) -> int:
        """Texts in all."""
        return sum(map(len, self.texts.values()))

    def all(self) -> list[str]:
        """All texts, language by language."""
        return [text for texts in self.texts.values() for text in texts]

    def add(self, language: str, text: str, *, letters: int) -> None:
        """Keep a text, unless its language has `letters` already."""
        held = self.letters.get(language, 0)
        if held < letters:
            self.texts.setdefault(language, []).append(text)
            self.letters[language] = held + len(text)


def read_sample(
    inputs: Sequence[Path], *, key: str, group: str, letters: int, limit: int
) -> LanguageSample:
    """Texts of documents until each language has some number of letters.

    Args:
        key: of the text in a line's object.
        group: of what is called the language there; a file that is one text goes by its name.
        limit: bytes; a longer line is rejected.
    Raises: UserError when there is no document.
    """
    sample = LanguageSample()
    for file in text_files(inputs):
        for item in read_documents(Piece(file, 0, file.size), key=key, limit=limit):
            if isinstance(item, Document):
                sample.add(_group_of(item, file, group), item.text, letters=letters)
            else:
                sample.rejected += 1
    if not sample.texts:
        raise UserError(
            f"input: found no document in {sample.rejected} lines under the key {key!r}; "
            "give it some text, or the right key"
        )
    return sample


def _group_of(item: Document, file: TextFile, group: str) -> str:
    if file.whole:
        return file.path.name.partition(".")[0]
    found = json.loads(item.raw).get(group)
    return found if isinstance(found, str) and found else UNKNOWN
