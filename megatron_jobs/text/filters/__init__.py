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
from megatron_jobs.text.filters.fineweb import FineWeb
from megatron_jobs.text.filters.gopher_quality import GopherQuality
from megatron_jobs.text.filters.gopher_repetition import GopherRepetition
from megatron_jobs.text.filters.identify import Identify

AnyRule = Annotated[
    C4 | FineWeb | GopherQuality | GopherRepetition | Identify, Field(discriminator="rule")
]
