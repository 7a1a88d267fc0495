"""Documents or tokens for other suites: JSON lines, Parquet, Hugging Face datasets, MDS.

`documents` is then a folder of that form: `datasets.load_from_disk` reads one of form datasets,
`streaming.StreamingDataset` one of form mds, `datasets.load_dataset("parquet", ...)` one of
parquet. Records that come back through this suite's readers are the same.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import file_hash, read_json, write_json
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import (
    OUTPUTS,
    DocumentSettings,
    gather_documents,
    run_documents,
)
from megatron_jobs.text.forms import (
    SHARDS,
    AsLines,
    AsMds,
    AsTables,
    Form,
    FormName,
    Packing,
    features,
)
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import DOCUMENTS

if TYPE_CHECKING:
    from megatron_jobs.text.readers import Piece

__all__ = ["OUTPUTS", "RESOURCES", "Config", "gather", "run"]
RESOURCES = Resources(hours=4, memory_gb=4)


class Config(DocumentSettings):
    """What is written, in which form."""

    form: FormName = "parquet"
    """jsonl, parquet, datasets (a folder for `datasets.load_from_disk`) or mds (mosaicml-streaming,
    with index.json)."""
    packing: Packing = "zstd"
    """How files are packed: zstd, gzip or none; datasets never are, mds only by zstd."""
    tokens: tuple[InputPath, ...] = ()
    """Folders that the tokenize stage wrote, or .bin files, instead of `input`: each row is then a
    document, with `id` and `tokens`; for parquet, datasets and mds."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        for setting, sentence in super().problems():
            if not (self.tokens and sentence.startswith("found nothing")):
                yield setting, sentence
        if self.tokens and (self.input or self.urls):
            yield "tokens", "is given beside input; export them by a job each"
        if self.tokens and self.form == "jsonl":
            yield "form", "tokens are written as parquet, datasets or mds, not as jsonl"
        if self.form == "mds" and self.packing == "gzip":
            yield "packing", "mds is packed by zstd, or none"
        if self.form == "datasets" and self.divide_by:
            yield "divide_by", "a folder of datasets is one; export each part by a job of its own"
        if self.form == "mds" and self.divide_by:
            yield "divide_by", "a folder of mds is one; export each part by a job of its own"
        if self.form in ("parquet", "datasets") and find_spec("pyarrow") is None:
            yield "form", 'pyarrow is not installed; pip install "megatron-jobs[data]"'

    def files(self) -> "list[Piece]":
        """The files to read; of tokens, their .bin files."""
        return [_token_piece(path) for path in self.tokens] if self.tokens else super().files()


class _Through:
    """Everything goes on as it is."""

    def treat(self, record: Record) -> Record:
        return record

    def numbers(self) -> dict[str, int]:
        return {}


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write this rank's units."""
    numbers = run_documents(config, rank, folder, _Through, form=_form(config))
    if rank.leads:
        _describe(config, folder, [folder])
    return numbers


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Join what the tasks wrote, and describe it as its form wants."""
    numbers = gather_documents(config, folder, tasks)
    _describe(config, folder, tasks)
    return numbers


def _form(config: Config) -> Form:
    tokens = _token_type(config)
    if config.form == "jsonl":
        return AsLines(config.packing)
    if config.form == "mds":
        return AsMds(packed=config.packing == "zstd", tokens=tokens)
    return AsTables(arrow=config.form == "datasets", packing=config.packing, tokens=tokens)


def _describe(config: Config, folder: Path, tasks: list[Path]) -> None:
    """Write the files that tell what lies in the folder."""
    place = folder / DOCUMENTS
    if config.form == "mds":
        found = {path.stem: path for task in tasks for path in (task / SHARDS).glob("*.json")}
        shards = [shard for unit in sorted(found) for shard in read_json(found[unit])]
        write_json(place / "index.json", {"version": 2, "shards": shards})
    if config.form == "datasets":
        _describe_datasets(place, _token_type(config))


def _describe_datasets(place: Path, tokens: str) -> None:
    """state.json and dataset_info.json, as `Dataset.save_to_disk` leaves them."""
    files = sorted(path.name for path in place.glob("*.arrow"))
    write_json(place / "dataset_info.json", {"features": features(tokens)})
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in files],
        "_fingerprint": file_hash(place / "dataset_info.json")[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    write_json(place / "state.json", state)


def _token_type(config: Config) -> str:
    """Type of the ids; the same in all files, or UserError."""
    if not config.tokens:
        return ""
    from megatron_jobs.data.token_file import TokenFile

    types = {TokenFile.open(_prefix(path)).dtype.name for path in config.tokens}
    if len(types) > 1:
        raise UserError(f"tokens: found ids of {' and '.join(sorted(types))}, must be of one type")
    return types.pop()


def _prefix(path: Path) -> Path:
    """Of a token file: a .bin, or the one in a folder."""
    found = sorted(path.glob("*.bin")) if path.is_dir() else [path]
    if len(found) != 1 or found[0].suffix != ".bin":
        raise UserError(f"{path}: found {len(found)} token files, must be a .bin or hold one")
    return found[0].with_suffix("")


def _token_piece(path: Path) -> "Piece":
    from megatron_jobs.text.readers import Piece

    file = _prefix(path).with_suffix(".bin")
    stat = file.stat()
    return Piece(file, 0, stat.st_size, file.name, stamp=str(stat.st_mtime_ns), kind=".bin")
