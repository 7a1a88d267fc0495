"""Rules that say which records go on; one a file, each with its published thresholds.

A rule is a `Rule`: settings that make a judge, which looks at a `Page` (a record, and the words
that are cut once for all rules) and gives a `Verdict` or None. Rules that edit do so on pages that
they let pass.

Words are cut once a page, as csrc/filters/split.h says: near to spaCy's English, much faster.

Beside datatrove 0.10 (tools/bench/filter.py; 2,000 pages of handbooks, kernel docs and mails in 26
languages): with spaCy's words all verdicts of `gopher_quality`, `gopher_repetition`, `fineweb` and
`c4`, their reasons, and C4's texts are the same. With our own words 1,877, 1,981, 1,981 and 1,999
are; of the 162 others 138 are in scripts without spaces, 4 are rejected for another reason, and 20
stand at a limit. They differ by these:

    Han, kana, Thai   each character is a word; to spaCy's English a whole sentence is one, so
                      Gopher's word length and share of words with letters come out otherwise. For
                      such languages its thresholds need values of their own in either case
    32-bit, a.b@c-d   what hyphens part, numbers with units, times, emoticons ("We d" for Wed,
                      "can not", "8 p.m."): one or two words in a hundred, which changes verdicts
                      of pages next to a threshold
    n-grams           follow from these
    sentences         an ellipsis, and the dot of an initial or abbreviation, end none
    identify          eldc by samples says what most of a page is; lid.176, given as `model`, has
                      datatrove's verdicts
    urls              no list of public suffixes: whatever is below a listed name is meant, where
                      datatrove looks at the registered domain and the full name only

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
from megatron_jobs.text.filters.quality import Quality
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
    | Quality
    | Score
    | Symbols
    | Urls,
    Field(discriminator="rule"),
]
