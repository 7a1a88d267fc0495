"""Where a byte-level BPE cuts text before it merges: the patterns of known vocabularies, by name.

Written for Oniguruma, the engine of `tokenizers`, and of the same meaning for tiktoken's.
"""

import json
import re

from tokenizers import Regex, pre_tokenizers

from megatron_jobs.errors import UserError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {"gpt2": GPT2, "cl100k": CL100K, "o200k": O200K}
"""Name -> pattern. Llama 3's is cl100k. Source: openai_public.py of tiktoken."""
_NUMBERS = (r" ?\p{N}+", r"\p{N}{1,3}")


def pattern_of(pattern: str, *, single_digits: bool = False) -> str:
    """The pattern of a name of PATTERNS, or `pattern` itself.

    Args:
        single_digits: each digit is a word of its own, without a space before it.
    Raises: UserError for single digits in a pattern whose numbers are written in another way.
    """
    found = PATTERNS.get(pattern, pattern)
    if not single_digits:
        return found
    numbers = next((part for part in _NUMBERS if part in found), None)
    if numbers is None:
        raise UserError(
            f"single_digits: found no {' or '.join(_NUMBERS)} in the pattern {found!r}; "
            r"write \p{N} into it instead"
        )
    return found.replace(numbers, r"\p{N}")


def byte_level_splitter(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cuts text by a pattern and spells it in GPT-2's alphabet of bytes.

    Raises: UserError when it is no pattern, or a part of it means something else to Oniguruma.
    """
    if pattern == GPT2:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    twice = re.search(r"\{\d*,?\d*\}\+", pattern)
    if twice:  # possessive elsewhere; here {1,3}+ is any number of times one to three
        raise UserError(f"pattern: found {twice[0]!r}, which repeats twice here; leave out the +")
    try:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:  # the library raises no narrower one
        raise UserError(f"pattern: found {pattern!r}, which is no pattern: {error}") from error
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, bytes_])


def pattern_in(splitter: pre_tokenizers.PreTokenizer | None) -> str | None:
    """The pattern of a pre-tokenizer as `byte_level_splitter` makes it; None for others."""
    if splitter is None:
        return None
    found = json.loads(splitter.__getstate__())
    parts = found["pretokenizers"] if found["type"] == "Sequence" else [found]
    last = parts[-1]
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    if len(parts) == 1:
        return GPT2 if last["use_regex"] else None
    plain = {"type": "Split", "behavior": "Isolated", "invert": False}
    first = parts[0]
    cut = {key: first.get(key) for key in plain} == plain and "Regex" in first["pattern"]
    if len(parts) != 2 or not cut:
        return None
    pattern: str = first["pattern"]["Regex"]
    return None if last["use_regex"] else pattern
