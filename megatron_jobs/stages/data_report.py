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
COUNTED = {
    "redacted.": ("Personal data", "Found and replaced, by kind"),
    "contaminated.": ("Evaluation items", "Documents that hold some, by evaluation set"),
}
"""How the names begin under which stages count, what their section is called, and its plot."""
GROUPS = 6
"""Of people that are told by name, of each category."""


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
    fertility: InputPath | None = None
    """report.json of a tokenizer_report job: what tokenizers make of each language."""
    made_of: InputPath | None = None
    """blend_report.json of a blend_report job: licences of what training reads, and who is spoken
    of."""

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
    from megatron_jobs.data.report.blend_page import draw_licences
    from megatron_jobs.data.report.words import say_count
    from megatron_jobs.data.source_name import source_name
    from megatron_jobs.page.elements import Element

    if not rank.leads:
        return {}
    steps = [_read_step(step) for step in config.funnel]
    files = [(source_name(path / "tokens"), _token_facts(path)) for path in config.tokens]
    tokens = sum(facts.tokens for _, facts in files)
    made_of = _read_part(config.made_of, "licence_groups", "a blend_report job")
    corpus = Corpus(
        title=config.title,
        steps=steps,
        licences=draw_licences(made_of) if made_of else Element(""),
        sections=[*_sections(config, steps, files), *_speech(made_of)],
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


def _read_part(path: Path | None, key: str, maker: str) -> dict[str, Any]:
    """A report of numbers; empty without a path."""
    if path is None:
        return {}
    found = read_json(path)
    if not isinstance(found, dict) or key not in found:
        raise DataError(f"{path}: has no {key!r}; must be the report of {maker}")
    return found


def _token_facts(path: Path) -> "TokenFacts":
    from megatron_jobs.data.token_facts import TokenFacts

    return TokenFacts.read(path / "tokens")


def _sections(
    config: Config, steps: "list[Step]", files: "list[tuple[str, TokenFacts]]"
) -> "Iterator[Section]":
    from megatron_jobs.data.report.copies import draw_copies, draw_kinds
    from megatron_jobs.data.report.tokens import draw_blend, draw_tokens
    from megatron_jobs.data.sample_index import read_facts
    from megatron_jobs.data.trained_tokens import trained_sources
    from megatron_jobs.page.elements import join
    from megatron_jobs.text.tokenizer_report import draw_fertility

    if config.duplicates:
        yield "Copies", join(*[draw_copies(read_json(path)) for path in config.duplicates])
    counted = [pair for step in steps for pair in step.counts.further.items()]
    for start, (name, title) in COUNTED.items():
        found: dict[str, Any] = {
            k.removeprefix(start): n for k, n in counted if k.startswith(start)
        }
        if found:
            yield name, draw_kinds(title, found)
    if files:
        yield "Tokens", draw_tokens(files)
    fertility = _read_part(config.fertility, "tokenizers", "a tokenizer_report job")
    if fertility:
        yield "Vocabularies", draw_fertility(fertility)
    if config.index is not None:
        yield "Blend", draw_blend(read_facts(config.index), trained_sources(config.index))


def _speech(made_of: dict[str, Any]) -> "Iterator[Section]":
    """Who is spoken of in what training reads, and how."""
    from megatron_jobs.data.report.blend_page import draw_associations, draw_groups
    from megatron_jobs.page.elements import join, tag

    if made_of:
        near = tag("summary", "words near groups, beside those elsewhere")
        details = tag("details", near, draw_associations(made_of, most=GROUPS * 3))
        yield "Who is spoken of", join(draw_groups(made_of, most=GROUPS), details)
