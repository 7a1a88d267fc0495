"""Which letters of a text count when it is compared with others: the table that C++ reads by."""

import functools
import unicodedata

import numpy as np
from numpy.typing import NDArray

from megatron_jobs._copies import Shingles
from megatron_jobs.config.settings import Settings

POINTS = 0x20000
"""Code points in the table; those above (rare Chinese characters, all letters) stand for
themselves."""
SEPARATES, DROPPED, DIGIT = 0, 1, 2


class Normalisation(Settings):
    """What is made alike before texts are compared; white space always parts words.

    The defaults are FineWeb's (datatrove's TextNormConfig): only letters and digits count, in lower
    case, digits all alike, without accents. What a letter is, is Python's Unicode: compare only
    fingerprints that one version of Python has made.
    """

    lower_case: bool = True
    """Count A as a."""
    punctuation: bool = True
    """Leave it out; it parts words. False: it is like letters."""
    digits: bool = True
    """Count each run of decimal digits as one 0."""
    accents: bool = True
    """Leave out marks that Unicode's decomposition (NFD) parts from their letters."""


class ShingleSettings(Settings):
    """What texts are compared by."""

    ngram: int = 5
    """Words in a shingle."""
    letters_ngram: int = 10
    """Letters in a shingle of a text that hardly parts words, as Chinese or Thai."""
    longest_words: float = 20
    """Letters a word on average; a text above it is cut by letters, not by words."""
    normalisation: Normalisation = Normalisation()
    """What is made alike first."""


def make_shingles(settings: ShingleSettings, *, machine: str = "") -> Shingles:
    """The C++ side of the settings.

    Args:
        machine: the code that runs, plain, sse4.1, avx2 or avx512, which changes nothing but the
            speed; "" for the fastest that the processor has.
    """
    return Shingles(
        letter_table(settings.normalisation),
        words=settings.ngram,
        letters=settings.letters_ngram,
        longest=settings.longest_words,
        machine=machine,
    )


@functools.cache
def letter_table(rules: Normalisation) -> NDArray[np.uint32]:
    """Of each code point the letter it counts as, or SEPARATES, DROPPED, DIGIT; [POINTS]."""
    return np.array([_fold(chr(point), rules) for point in range(POINTS)], np.uint32)


def _fold(letter: str, rules: Normalisation) -> int:
    category = unicodedata.category(letter)
    if category[0] == "L" or category == "Mc":
        return ord(_fold_letter(letter, rules))
    if letter.isspace() or category in ("Cc", "Cs", "Cn", "Zs", "Zl", "Zp"):
        return SEPARATES
    if category == "Mn" and rules.accents:
        return DROPPED
    if category == "Nd" and rules.digits:
        return DIGIT
    if category[0] not in "NM" and rules.punctuation:
        return SEPARATES
    return ord(letter)


def _fold_letter(letter: str, rules: Normalisation) -> str:
    """Lower case and bare, where that is still one letter."""
    found = letter.lower() if rules.lower_case else letter
    if rules.accents and (len(found) > 1 or unicodedata.decomposition(found)):
        found = unicodedata.normalize("NFD", found)
        found = "".join(c for c in found if unicodedata.category(c) != "Mn")
    return found if len(found) == 1 else letter  # Hangul syllables, and such that become two
