"""The documents that a tokenizer learns from and is measured on."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.text.documents import Document, first_texts, read_documents
from megatron_jobs.text.encoder import Encoder
from megatron_jobs.text.sources import Piece, TextFile, text_files

SAMPLE_LETTERS = 1 << 21
"""Of text, on which the bytes per token are measured."""


class Corpus:
    """Documents of files, counted as they are read.

    Args:
        folder: of the job, where the progress is written.
        key: of the text in a line's object.
        share: of the documents, chosen by a hash of their text: the same ones on every machine.
        limit: bytes; a longer line is left out.
    """

    def __init__(
        self, inputs: Sequence[Path], folder: Path, *, key: str, share: float, limit: int
    ) -> None:
        self.files = text_files(inputs) if inputs else []
        self.key = key
        self.share = share
        self.limit = limit
        total = sum(file.size for file in self.files)
        self.progress = Progress(folder, total=total, unit="bytes")
        self.documents = 0
        self.rejected = 0

    def texts(self) -> Iterator[str]:
        """Every chosen document's text; raises UserError when there is none."""
        self.documents = self.rejected = 0
        done = 0
        for file in self.files:
            letters = 0
            for text in self._texts_of(file):
                letters += len(text)
                self.progress.update(done + min(letters, file.size))
                yield text
            done += file.size
        if not self.documents:
            raise UserError(
                f"input: found no document in {self.rejected} lines under the key "
                f"{self.key!r}; give it some text, or the right key"
            )

    def first_texts(self) -> list[str]:
        """The first documents, on which a tokenizer is measured."""
        pieces = [Piece(file, 0, file.size) for file in self.files]
        return list(first_texts(pieces, SAMPLE_LETTERS, key=self.key, limit=self.limit))

    def counts(self) -> dict[str, float]:
        """How many documents were read, and how many lines are none; nothing where none was."""
        if not self.documents:
            return {}
        return {"documents": self.documents, "rejected": self.rejected}

    def _texts_of(self, file: TextFile) -> Iterator[str]:
        piece = Piece(file, 0, file.size)
        for item in read_documents(piece, key=self.key, limit=self.limit):
            if not isinstance(item, Document):
                self.rejected += 1
            elif self.share >= 1 or _place(item.text) < self.share:
                self.documents += 1
                yield item.text


def measure(encoder: Encoder, texts: Sequence[str]) -> dict[str, float]:
    """Bytes per token, and the share of texts that come back as they were."""
    ids = encoder.encode(texts)
    back = encoder.tokenizer.decode_batch(ids, skip_special_tokens=False)
    same = sum(text == found for text, found in zip(texts, back, strict=True))
    size = sum(len(text.encode()) for text in texts)
    return {
        "bytes_per_token": size / max(sum(map(len, ids)), 1),
        "come_back": same / max(len(texts), 1),
    }


def _place(text: str) -> float:
    """Where a text stands between 0 and 1, by its hash."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
