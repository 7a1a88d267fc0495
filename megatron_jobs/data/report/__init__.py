"""One page on how a corpus came to be: what each stage took, and what is left.

Everything on it is read from what the stages left behind; nothing is counted again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from megatron_jobs.data.report.funnel import draw_funnel, draw_rules
from megatron_jobs.data.report.mixture import draw_lengths, draw_shares
from megatron_jobs.data.report.words import say_bytes, say_count, say_share
from megatron_jobs.page import Section, figures, render_page
from megatron_jobs.page.elements import Element, join, tag
from megatron_jobs.text.passes import Counts


@dataclass(frozen=True)
class Step:
    """A stage of the funnel and what became of its records."""

    name: str
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What is told of."""

    title: str
    steps: Sequence[Step]
    """In order; each reads what the one before it kept."""
    licences: Element = Element("")  # noqa: RUF009 - a text
    """More about them, beside those of the documents."""
    sections: Sequence[Section] = ()
    """More of them, in order, after the languages and lengths."""
    headline: Sequence[tuple[str, str]] = field(default=())
    """More figures, as (name, value)."""


def render_data_report(corpus: Corpus) -> str:
    """The whole page."""
    return render_page(corpus.title, join(*_head(corpus)), [*_sections(corpus)])


def _head(corpus: Corpus) -> Iterator[Element]:
    first, last = corpus.steps[0].counts, corpus.steps[-1].counts
    yield tag("h1", corpus.title)
    pairs = [
        ("documents in", say_count(first.read)),
        ("documents out", say_count(last.kept)),
        ("kept", say_share(last.kept, first.read)),
        ("text out", say_bytes(last.bytes_kept)),
        ("languages", str(len([name for name in last.languages if name]))),
    ]
    yield figures([*pairs, *corpus.headline])


def _sections(corpus: Corpus) -> Iterator[Section]:
    last = corpus.steps[-1].counts
    yield "Funnel", draw_funnel([(step.name, step.counts) for step in corpus.steps])
    yield "What the rules took", draw_rules([(step.name, step.counts) for step in corpus.steps])
    yield "Languages", draw_shares("Documents by language", last.languages, last.kept)
    yield "Lengths", draw_lengths(corpus.steps[0].counts, last)
    documents = draw_shares("Documents by licence", last.licences, last.kept)
    yield "Licences", join(documents, corpus.licences)
    yield from corpus.sections
