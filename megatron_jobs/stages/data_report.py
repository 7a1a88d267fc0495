"""One HTML page on how a corpus came to be; everything is read from what the stages left."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import DataError
from megatron_jobs.runtime.files import read_json, write_text
from megatron_jobs.runtime.rank import Rank

if TYPE_CHECKING:
    from megatron_jobs.data.report import Step
    from megatron_jobs.data.token_facts import TokenFacts
    from megatron_jobs.page import Section

OUTPUTS = ("report.html",)
RESOURCES = Resources(hours=0.25)
COUNTED = {"redacted.": "Personal data", "contaminated.": "Documents with evaluation items"}
"""How the names begin under which stages count, and what their section is called."""


class FunnelStep(Settings):
    """One stage of the funnel."""

    name: str
    """As it is called on the page."""
    counts: tuple[InputPath, ...]
    """counts.json of its job; of several jobs that did the same side by side, all of them."""


class Config(Settings):
    """What is told of."""

    title: str = "How this corpus came to be"
    funnel: tuple[FunnelStep, ...]
    """The stages, in order; each reads what the one before it kept."""
    duplicates: tuple[InputPath, ...] = ()
    """duplicates.json of `cluster` jobs."""
    tokens: tuple[InputPath, ...] = ()
    """Folders that the tokenize stage wrote."""
    index: InputPath | None = None
    """Folder that the index stage wrote."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.funnel:
            yield "funnel", "found nothing, must name at least one stage"
        for place, step in enumerate(self.funnel):
            if not step.counts:
                yield f"funnel.{place}.counts", "found nothing, must name at least one counts.json"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write folder/report.html; the leader does it."""
    from megatron_jobs.data.report import Corpus, render_data_report
    from megatron_jobs.data.report.tokens import source_name
    from megatron_jobs.data.report.words import say_count

    if not rank.leads:
        return {}
    steps = [_read_step(step) for step in config.funnel]
    files = [(source_name(str(path / "tokens")), _token_facts(path)) for path in config.tokens]
    tokens = sum(facts.tokens for _, facts in files)
    corpus = Corpus(
        title=config.title,
        steps=steps,
        sections=[*_sections(config, steps, files)],
        headline=[("tokens", say_count(tokens))] if files else [],
    )
    write_text(folder / "report.html", render_data_report(corpus))
    first, last = steps[0].counts, steps[-1].counts
    return {"records_in": first.read, "documents": last.kept, "tokens": tokens}


def _read_step(step: FunnelStep) -> "Step":
    from megatron_jobs.data.report import Step
    from megatron_jobs.text.passes import Counts

    total = Counts()
    for path in step.counts:
        try:
            total.add(Counts(**read_json(path)))
        except TypeError as error:
            raise DataError(f"{path}: not the counts of a pass over records: {error}") from error
    return Step(step.name, total)


def _token_facts(path: Path) -> "TokenFacts":
    from megatron_jobs.data.token_facts import TokenFacts

    return TokenFacts.read(path / "tokens")


def _sections(
    config: Config, steps: "list[Step]", files: "list[tuple[str, TokenFacts]]"
) -> "Iterator[Section]":
    from megatron_jobs.data.report.copies import draw_copies, draw_kinds
    from megatron_jobs.data.report.tokens import draw_blend, draw_tokens
    from megatron_jobs.page.elements import join

    if config.duplicates:
        yield "Copies", join(*[draw_copies(read_json(path)) for path in config.duplicates])
    counted = [pair for step in steps for pair in step.counts.further.items()]
    for start, name in COUNTED.items():
        found: dict[str, Any] = {
            k.removeprefix(start): n for k, n in counted if k.startswith(start)
        }
        if found:
            yield name, draw_kinds(name, found)
    if files:
        yield "Tokens", draw_tokens(files)
    if config.index is not None:
        yield "Blend", draw_blend(read_json(config.index / "index.json"))
