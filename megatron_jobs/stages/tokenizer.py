"""A tokenizer trained on text: byte-level BPE, in the files that transformers loads."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import remove, whole_folder
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts

if TYPE_CHECKING:
    from megatron_jobs.text.sources import TextFile

OUTPUTS = ("tokenizer",)
RESOURCES = Resources()
BYTES = 256
SAMPLE_LETTERS = 1 << 21
"""Of text, on which the bytes per token are measured."""


class Config(Settings):
    """What the tokenizer learns from, and its size."""

    input: list[InputPath]
    """Files or folders: .jsonl or .json with an object a line, .txt with a document a file; .gz
    of each."""
    key: str = "text"
    """Of the text in a line's object."""
    vocab_size: int = 32768
    """Tokens in all: special ones, 256 bytes, and merges as far as the text gives them."""
    eod: str = "<|endoftext|>"
    """The token that ends a document; also the beginning and end of a text for transformers."""
    pad: str = "<|pad|>"
    """The token that fills up short sequences."""
    special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
    """Further tokens that are never cut, such as those of a chat."""
    least_count: int = 2
    """Times that a pair must occur to become a token."""
    max_line_mb: float = 50
    """Megabytes (10^6 bytes); a longer line is left out."""

    def special_tokens(self) -> list[str]:
        """All special tokens, in the order of their ids."""
        return [self.eod, self.pad, *self.special]

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work together."""
        if not self.input:
            yield "input", "found nothing, must name at least one file or folder"
        special = self.special_tokens()
        if len(set(special)) < len(special) or not all(special):
            yield "special", f"the special tokens {special} must differ and not be empty"
        least = BYTES + len(special)
        if self.vocab_size < least:
            parts = f"{BYTES} bytes and {len(special)} special tokens"
            yield "vocab_size", f"{self.vocab_size} is too small for {parts}; at least {least}"
        if self.max_line_mb <= 0:
            yield "max_line_mb", f"{self.max_line_mb} leaves no line, must be positive"


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """At most so many tokens: a small corpus may not have as many."""
    return {"vocab_size": config.vocab_size}


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train on all documents and write folder/tokenizer; the leader does all the work."""
    from megatron_jobs.text.byte_pairs import save_tokenizer, train_byte_pairs
    from megatron_jobs.text.encoder import load_encoder
    from megatron_jobs.text.sources import text_files

    if not rank.leads:
        return {}
    corpus = _Corpus(config, text_files(config.input), folder)
    tokenizer = train_byte_pairs(
        corpus.texts(),
        vocab_size=config.vocab_size,
        special=config.special_tokens(),
        least_count=config.least_count,
    )
    out = folder / "tokenizer"
    remove(out)
    with whole_folder(out) as part:
        save_tokenizer(tokenizer, part, eod=config.eod, pad=config.pad)
    encoder = load_encoder(out)
    tokens = sum(len(ids) for ids in encoder.encode(corpus.sample))
    return {
        "vocabulary": encoder.vocab_size,
        "documents": corpus.documents,
        "rejected": corpus.rejected,
        "bytes_per_token": sum(len(text.encode()) for text in corpus.sample) / tokens,
    }


class _Corpus:
    """The documents to learn from, counted as they are read."""

    def __init__(self, config: Config, files: "list[TextFile]", folder: Path) -> None:
        self.config = config
        self.files = files
        self.progress = Progress(folder, total=sum(file.size for file in files), unit="bytes")
        self.documents = 0
        self.rejected = 0
        self.sample: list[str] = []
        """The first documents, on which the bytes per token are measured."""

    def texts(self) -> Iterator[str]:
        """Every document's text; raises UserError when there is none."""
        done = letters = 0
        for file in self.files:
            for text in self._texts_of(file):
                if letters < SAMPLE_LETTERS:
                    self.sample.append(text)
                letters += len(text)
                self.progress.update(done + min(letters, file.size))
                yield text
            done += file.size
        if not self.documents:
            raise UserError(
                f"input: found no document in {self.rejected} lines under the key "
                f"{self.config.key!r}; give it some text, or the right key"
            )

    def _texts_of(self, file: "TextFile") -> Iterator[str]:
        from megatron_jobs.text.documents import Document, read_documents
        from megatron_jobs.text.sources import Piece

        limit = int(self.config.max_line_mb * 1e6)
        for item in read_documents(Piece(file, 0, file.size), key=self.config.key, limit=limit):
            if isinstance(item, Document):
                self.documents += 1
                yield item.text
            else:
                self.rejected += 1
