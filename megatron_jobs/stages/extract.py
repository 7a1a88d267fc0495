"""Texts of pages: of WARC, WET and HTML files, and of any other format that can be read.

Each record of a WARC file that answers with a page, each HTML or text file and each record that has
a text already goes through the same: its letters are found out, main content is taken, mojibake is
undone, Unicode is brought to one form. See `text.extract`.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem
from megatron_jobs.runtime.files import read_json, write_json
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import (
    OUTPUTS,
    DocumentSettings,
    gather_documents,
    run_documents,
)
from megatron_jobs.text.extract import Extractor, ExtractRules, Mode
from megatron_jobs.text.normalise import Form, NormalRules

__all__ = ["OUTPUTS", "RESOURCES", "Config", "gather", "run"]
RESOURCES = Resources(hours=4, memory_gb=4)


class Config(DocumentSettings):
    """How pages become texts."""

    READS_PAGES: ClassVar[bool] = True

    duplicate_ids: Literal["count", "rename"] = "count"
    """What becomes of ids that several documents have: they are only counted, or all but the first
    get #2, #3, ... behind them."""
    mode: Mode = "fast"
    """fast: resiliparse's main content, some 2,000 pages a second on one core; careful:
    trafilatura, which leaves more navigation out, some 100 pages; plain: all visible text."""
    statuses: tuple[int, ...] = (200,)
    """HTTP status codes whose pages are taken."""
    min_letters: Annotated[int, Field(ge=0)] = 1
    """Texts with fewer letters are rejected."""
    max_replaced_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Of a page's letters that no charset reads; with more it is rejected."""
    licences: bool = True
    """Whether a Creative Commons licence that a page links to with rel=license is its licence."""
    repair: bool = True
    """Whether to undo mojibake: UTF-8 that somebody has read as another charset."""
    unicode: Form = "NFC"
    """Form that texts are brought to; NFKC also unifies ligatures, widths and superscripts."""
    remove_controls: bool = True
    """Whether control characters and invisible ones go; joiners stay, scripts need them."""
    tidy_spaces: bool = True
    """Whether line ends become LF, kinds of spaces one, and at most one line in a row is empty."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work, and packages that are missing for them."""
        yield from super().problems()
        needed = {"resiliparse": "", "trafilatura": "careful", "ftfy": ""}
        for package, mode in needed.items():
            if (not mode or mode == self.mode) and find_spec(package) is None:
                found = f"{package} is not installed"
                yield "mode", f'{found}; pip install "megatron-jobs[data]"'

    @property
    def rules(self) -> ExtractRules:
        """As `text.extract` takes them."""
        return ExtractRules(
            mode=self.mode,
            statuses=self.statuses,
            min_letters=self.min_letters,
            max_replaced_share=self.max_replaced_share,
            licences=self.licences,
            normal=NormalRules(self.unicode, self.remove_controls, self.tidy_spaces, self.repair),
        )


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Make the texts of this rank's units."""
    numbers = run_documents(config, rank, folder, lambda: Extractor(config.rules, folder))
    if rank.leads and rank.tasks == 1:
        numbers |= _settle_ids(config, folder, [folder])
    return numbers


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Join what the tasks made."""
    return gather_documents(config, folder, tasks) | _settle_ids(config, folder, tasks)


def _settle_ids(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Count the ids that several documents have, note some in counts.json, make them different."""
    from megatron_jobs.text.duplicate_ids import Duplicates, id_files

    duplicates = Duplicates(id_files(tasks))
    duplicates.find(table=config.duplicate_ids == "rename")
    counts = read_json(folder / "counts.json")
    counts["duplicate_ids"] = duplicates.named(folder)
    counts["further"]["duplicate_ids"] = duplicates.count
    write_json(folder / "counts.json", counts)
    if config.duplicate_ids == "rename":
        duplicates.rename(folder)
    return {"duplicate_ids": duplicates.count}
