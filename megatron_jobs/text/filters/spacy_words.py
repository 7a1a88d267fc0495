"""Words cut by spaCy's rules, when somebody wants datatrove's verdicts to the letter."""

import functools
from typing import Any

from megatron_jobs.errors import UserError
from megatron_jobs.text.filters.page import Splitter


def spacy_splitter() -> Splitter:
    """A splitter by the blank spaCy pipeline of a record's language, `xx` where there is none.

    Raises: UserError when spaCy is not installed.
    """
    try:
        import spacy
    except ImportError:
        cure = "pip install spacy, or words=own"
        raise UserError(f"words: spacy is not installed; {cure}") from None

    @functools.cache
    def pipeline(language: str) -> Any:
        try:
            return spacy.blank(language or "en")
        except ImportError:
            return spacy.blank("xx")

    def split(text: str, language: str) -> list[str]:
        found = pipeline(language)
        found.max_length = len(text) + 10
        with found.memory_zone():
            words = [token.text.strip() for token in found(text)]
        return [word for word in words if word]

    return split
