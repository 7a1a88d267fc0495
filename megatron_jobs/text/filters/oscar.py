"""OSCAR's annotations of a page by its lines: tiny, short sentences, header, footer, noisy."""

from typing import Literal

from megatron_jobs.text.filters.characters import characters
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.shards import Verdict

Annotation = Literal["tiny", "short_sentences", "header", "footer", "noisy"]


class Oscar(Rule):
    """OSCAR's annotations, kept as metadata `annotations`; pages that have one in `reject` go.

    All thresholds are ungoliant's, which makes OSCAR; it counts the bytes of a header's lines, here
    they are characters as everywhere. Source: Abadji et al. 2022, arXiv:2201.06642.
    """

    rule: Literal["oscar"] = "oscar"
    reject: tuple[Annotation, ...] = ("tiny", "short_sentences", "header", "footer", "noisy")
    """Annotations that a page must not have."""
    min_lines: int = 5
    """A page of fewer is tiny."""
    short: int = 100
    """Characters; a line of fewer is short."""
    max_short_share: float = 0.5
    """Of all lines, of the header's, and of the footer's."""
    edge_share: float = 0.2
    """Share of lines that are the header, and that are the footer."""
    max_other_share: float = 0.5
    """Characters that are neither letters nor marks on them, white space too, in a page that is not
    noisy."""

    def prepare(self) -> Judge:
        """The judge."""
        return self._judge

    def _judge(self, page: Page) -> Verdict | None:
        found = self._annotations(page.text)
        if found:
            page.record.metadata["annotations"] = list(found)
        for name in self.reject:
            if name in found:
                return Verdict(f"oscar.{name}", *found[name])
        return None

    def _annotations(self, text: str) -> dict[str, tuple[float, float]]:
        """What the page is annotated with: the value found, and its limit."""
        from megatron_jobs._filters import kind_counts

        lines = text.split("\n")
        lines = lines[:-1] if not lines[-1] else lines
        brief = [len(line) < self.short for line in lines]
        edge = int(len(lines) * self.edge_share)
        parts = {"short_sentences": brief, "header": brief[:edge], "footer": brief[-edge:]}
        found: dict[str, tuple[float, float]] = {}
        if len(lines) < self.min_lines:
            found["tiny"] = len(lines), self.min_lines
        for name, part in parts.items():
            limit = int(self.max_short_share * len(part))
            if sum(part) > limit and (edge or name == "short_sentences"):
                found[name] = sum(part), limit
        _, letters, *_ = kind_counts(text, characters())
        other = 1 - letters / max(len(text), 1)
        if other > self.max_other_share:
            found["noisy"] = other, self.max_other_share
        return found
