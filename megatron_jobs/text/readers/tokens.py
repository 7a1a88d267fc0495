"""Documents of a token file: records with their ids instead of a text, in metadata under `tokens`.

A document is named as the file of names beside it has it, else FILE:NUMBER, from 0.
"""

from collections.abc import Iterator

import numpy as np

from megatron_jobs.data.document_names import DocumentNames, names_path
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.text.forms import TOKENS
from megatron_jobs.text.readers import Item, Piece, ReadRules
from megatron_jobs.text.record import Record


def read(piece: Piece, rules: ReadRules) -> Iterator[Item]:
    """The documents whose first byte lies in the piece of the .bin.

    Raises: DataError when the file is not what its index says.
    """
    prefix = piece.path.with_suffix("")
    file = TokenFile.open(prefix)
    names = DocumentNames.open(prefix) if names_path(prefix).exists() else None
    starts = np.append(file.pointers, file.ids.nbytes)[file.documents[:-1]]
    first, end = np.searchsorted(starts, [piece.start, piece.end])
    if piece.end >= file.ids.nbytes:
        end = len(starts)  # documents without a token at the end
    for document in range(first, end):
        sequences = range(file.documents[document], file.documents[document + 1])
        parts = [file.read(sequence) for sequence in sequences]
        ids = np.concatenate(parts) if len(parts) != 1 else parts[0]
        name = names[document] if names else f"{piece.name}:{document}"
        yield Record(name, "", metadata={TOKENS: ids if parts else ids.astype(file.dtype)})
