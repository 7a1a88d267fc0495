"""One conversion: a source opened, a target planned, written, read back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from megatron_jobs.convert.facts import target_kind
from megatron_jobs.convert.files import Tell, bytes_of, write_files
from megatron_jobs.convert.gguf_file import GGUFFile
from megatron_jobs.convert.gguf_tokenizer import write_tokenizer
from megatron_jobs.convert.hugging_face import tokenizer_folder
from megatron_jobs.convert.settings import ConversionSettings
from megatron_jobs.convert.source import Source, kind_of, open_config
from megatron_jobs.convert.target import (
    Planned,
    Target,
    check_written,
    largest_bytes,
    numbers_of,
    plan_target,
)
from megatron_jobs.convert.written import Sources, source_key
from megatron_jobs.text.encoder import check_tokenizer


@dataclass(frozen=True)
class Conversion:
    """What is to be done, all of it checked as far as headers tell."""

    source: Source
    planned: Planned
    tokenizer: Path | None
    settings: dict[str, Any]
    """What the bytes of the result depend on beside the source."""
    made: TemporaryDirectory[str] | None = None
    """Of a tokenizer that was unpacked; gone with the conversion."""
    sources: Sources = field(default_factory=Sources)
    """As they were when they were opened."""

    @classmethod
    def open(cls, config: ConversionSettings) -> "Conversion":
        """Open a source and plan its target; raises as `open_config` and `plan_target` do."""
        sources = Sources()
        sources.note(files_of(kind_of(config.source)[1]))
        source = open_config(config)
        sources.note(source.files())
        tokenizer, made = source.tokenizer, None
        if config.tokenizer is None and source.packed_tokenizer is not None:
            made = TemporaryDirectory()
            tokenizer = unpacked(source.packed_tokenizer, Path(made.name))
        if config.tokenizer is not None:
            tokenizer = tokenizer_folder(config.tokenizer)
            check_tokenizer(tokenizer, source.tokenizer_hash, str(source.path))
        target = Target(
            target_kind(config),
            precision=config.dtype,
            mesh=config.mesh,
            family=config.family,
            gguf=config.gguf,
            shard_bytes=int(config.shard_gb * 1e9),
        )
        if tokenizer is not None and made is None:
            sources.note(files_of(tokenizer))
        planned = plan_target(source, target, tokenizer)
        kept = config.model_dump(mode="json", exclude={"threads", "proof"})
        return cls(source, planned, tokenizer, kept, made, sources)

    @property
    def bytes(self) -> int:
        """That will be written."""
        return bytes_of(self.planned.files)

    def key(self) -> str:
        """A hash of what the result depends on."""
        files = self.source.files()
        if self.tokenizer is not None and self.made is None:
            files += files_of(self.tokenizer)
        return source_key(files, self.settings)

    def write(self, out: Path, *, threads: int, check: Callable[[Path], None], tell: Tell) -> None:
        """Write `out`.

        Args:
            check: is called with the finished folder before it appears.
            tell: is called with the bytes that are written.
        """
        write_files(
            self.planned.files,
            out,
            key=self.key,
            threads=threads,
            tell=tell,
            check=check,
            unchanged=self.sources.check,
        )

    def read_back(self, part: Path) -> dict[str, Any]:
        """Open what was written and compare every tensor, to the bit, with what was to be."""
        return {"tensors_read_back": check_written(part, self.planned, self.source)}

    def sizes(self) -> dict[str, Any]:
        """What the receipt says of it."""
        tensors = self.source.tensors
        return {
            "from": self.source.kind,
            "to": self.planned.target.kind,
            "family": self.planned.family.name if self.planned.family else "",
            "tensors": len(tensors),
            "left_out": list(self.source.left_out),
            "remarks": [*self.source.remarks, *self.planned.remarks],
            "numbers": numbers_of(tensors),
            "bytes_written": self.bytes,
            "largest_tensor_bytes": largest_bytes(tensors),
        }


def files_of(place: Path) -> list[Path]:
    """A file, or all below a folder."""
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def unpacked(file: GGUFFile, folder: Path) -> Path | None:
    """The folder, with the tokenizer of a GGUF file in it; None where that has none."""
    return folder if write_tokenizer(file, folder) else None
