"""Judge records by rules: language, quality, repetition, lists; each rejected one has its verdict.

RUN/JOB/documents    the records that go on, as rules have edited them
RUN/JOB/rejected     the others, with the verdict of the first rule that rejected
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import Problem
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import (
    OUTPUTS,
    DocumentSettings,
    gather_documents,
    run_documents,
)
from megatron_jobs.text.filters import AnyRule
from megatron_jobs.text.filters.identify import Identify

if TYPE_CHECKING:
    from megatron_jobs.text.filters.judging import Judging

__all__ = ["OUTPUTS", "RESOURCES", "Config", "describe", "gather", "run"]
RESOURCES = Resources(hours=4, memory_gb=4)


class Config(DocumentSettings):
    """Rules, in the order in which they judge."""

    language: Identify | None = None
    """Judged before all rules; {} to identify languages and take all."""
    rules: tuple[AnyRule, ...] = ()
    """Each {rule: NAME, ...}; the first verdict is the record's."""
    judge_all: bool = False
    """Ask all rules, also those behind the one that rejects, and keep all verdicts as metadata
    `verdicts`; the first still decides."""
    words: Literal["own", "spacy"] = "own"
    """Who cuts words: our own rules, or spaCy's of the record's language, which must be installed:
    some 50 times slower; datatrove's verdicts to the letter."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        yield from super().problems()
        if self.language is None and not self.rules:
            yield "rules", "found none, must name at least one rule, or set `language`"


def describe(config: Config, resources: Resources) -> list[tuple[str, str]]:
    """The rules in their order."""
    names = [rule.rule for rule in _rules(config)]
    return [("rules", ", ".join(names))]


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Judge this rank's share of the records."""
    return run_documents(config, rank, folder, lambda: _judging(config))


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Join what the tasks have judged."""
    return gather_documents(config, folder, tasks)


def _rules(config: Config) -> list[AnyRule]:
    return [*([config.language] if config.language else []), *config.rules]


def _judging(config: Config) -> "Judging":
    from megatron_jobs.text.filters.judging import Judging
    from megatron_jobs.text.filters.spacy_words import spacy_splitter

    splitter = spacy_splitter() if config.words == "spacy" else None
    return Judging(_rules(config), judge_all=config.judge_all, splitter=splitter)
