"""Rules that say which records go on; one a file, each with its published thresholds.

A rule is a `Rule`: settings that make a judge, which looks at a `Page` (a record, and the words
that are cut once for all rules) and gives a `Verdict` or None. Rules that edit do so on pages that
they let pass. Words are cut as csrc/filters/split.h says.

To add one: a file here with a class derived from `Rule`, whose field `rule` is a Literal of its
name; put the class into `AnyRule`; mirror it in tests/unit/text/filters.
"""

from typing import Annotated

from pydantic import Field

from megatron_jobs.text.filters.c4 import C4
from megatron_jobs.text.filters.classifier import Classifier
from megatron_jobs.text.filters.code import Code
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.gopher_quality import GopherQuality
from megatron_jobs.text.filters.gopher_repetition import GopherRepetition
from megatron_jobs.text.filters.identify import Identify
from megatron_jobs.text.filters.ids import Ids
from megatron_jobs.text.filters.length import Length
from megatron_jobs.text.filters.lexicon import Lexicon
from megatron_jobs.text.filters.oscar import Oscar
from megatron_jobs.text.filters.perplexity import Perplexity
from megatron_jobs.text.filters.score import Score
from megatron_jobs.text.filters.symbols import Symbols
from megatron_jobs.text.filters.urls import Urls

AnyRule = Annotated[
    C4
    | Classifier
    | Code
    | FineWeb
    | GopherQuality
    | GopherRepetition
    | Identify
    | Ids
    | Length
    | Lexicon
    | Oscar
    | Perplexity
    | Score
    | Symbols
    | Urls,
    Field(discriminator="rule"),
]
