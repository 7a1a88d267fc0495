"""Which language is it, and is it one of those wanted?"""

from collections.abc import Iterator
from typing import Literal

from pydantic import field_validator

from megatron_jobs.config.settings import InputPath, Problem
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.identify import detector, unknown_language
from megatron_jobs.text.shards import Verdict


class Identify(Rule):
    """Writes the record's language, and how sure it is as metadata language_score.

    Thresholds as in CCNet (0.5; FineWeb has 0.65). Source: Wenzek et al. 2020, arXiv:1911.00359.
    """

    rule: Literal["identify"] = "identify"
    languages: tuple[str, ...] = ()
    """Those wanted, ISO 639-1; all when left out. eldc says no for both kinds of Norwegian, and ms
    for Malay and Indonesian."""
    min_score: float = 0.5
    """From 0 to 1; less is no language that can be told."""
    model: InputPath | None = None
    """A fastText model to judge whole texts by (lid.176.ftz); without one eldc judges samples."""
    samples: int = 8
    """At most so many samples of 500 characters, spread over the text, are judged by eldc."""
    trust: bool = False
    """Leave languages as they are where records name one."""

    @field_validator("languages", mode="before")
    @classmethod
    def _norwegian(cls, languages: object) -> object:
        """YAML takes the language no for a lie."""
        if not isinstance(languages, (list, tuple)):
            return languages
        return ["no" if language is False else language for language in languages]

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not 0 <= self.min_score <= 1:
            yield "min_score", f"{self.min_score} must be from 0 to 1"
        if self.samples < 1:
            yield "samples", f"{self.samples} must be at least 1"
        if self.model is None and not self.trust:
            for place, language in enumerate(self.languages):
                if why := unknown_language(language):
                    yield f"languages.{place}", why

    def prepare(self) -> Judge:
        """The judge."""
        detect = detector(self.model, samples=self.samples)

        def judge(page: Page) -> Verdict | None:
            record = page.record
            if not (self.trust and record.language):
                record.language, score = detect(page.text)
                record.metadata["language_score"] = round(score, 4)
                if score < self.min_score:
                    return Verdict("identify.score", round(score, 4), self.min_score)
            if self.languages and record.language not in self.languages:
                return Verdict("identify.language", record.language, list(self.languages))
            return None

        return judge
