"""How byte-level tokenizers cut text before merging, by llama.cpp's names (tokenizer.ggml.pre).

Source of the names and what they mean: llama-vocab.cpp.
"""

from typing import Any

from megatron_jobs.errors import UserError
from megatron_jobs.text.split_patterns import CL100K, GPT2, O200K, pattern_of

TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DIGITS = "digits"
"""Not a pattern: each digit apart, then GPT-2's pattern."""
PATTERNS: dict[str, str] = {
    "gpt-2": GPT2,
    "smollm": DIGITS,
    "dbrx": CL100K,
    "llama-bpe": CL100K,
    "qwen2": pattern_of(CL100K, single_digits=True),
    "gpt-4o": O200K,
    "tekken": TEKKEN,
}
"""llama-bpe is dbrx that takes a word which is a token whole, without merging."""
WHOLE_WORDS = "llama-bpe"
OTHERS = {
    **dict.fromkeys(("olmo", "phi-2", "mpt", "jais", "trillion", ""), "gpt-2"),
    **dict.fromkeys(("starcoder", "refact", "command-r", "codeshell", "exaone"), "smollm"),
    **dict.fromkeys(("llama3", "llama-v3", "falcon3", "pixtral"), "llama-bpe"),
    **dict.fromkeys(("smaug-bpe",), "dbrx"),
    **dict.fromkeys(("deepseek-r1-qwen", "megrez", "stablelm2"), "qwen2"),
    **dict.fromkeys(("llama4", "kanana2"), "gpt-4o"),
}
"""Further names of the same. Files from before there were names are GPT-2's kin."""


def splitter_json(name: str) -> dict[str, Any]:
    """The pre_tokenizer of tokenizer.json for a name; UserError for one that is not known."""
    name = OTHERS.get(name, name)
    if name not in PATTERNS:
        known = ", ".join(sorted({*PATTERNS, *OTHERS} - {""}))
        raise UserError(f"tokenizer.ggml.pre: found {name!r}, which has no pattern; {known} have")
    pattern = PATTERNS[name]
    if pattern == GPT2:
        return _bytes(regex=True)
    first = {"type": "Digits", "individual_digits": True}
    if pattern != DIGITS:
        cut = {"behavior": "Isolated", "invert": False}
        first = {"type": "Split", "pattern": {"Regex": pattern}, **cut}
    steps = [first, _bytes(regex=pattern == DIGITS)]
    return {"type": "Sequence", "pretokenizers": steps}


def _bytes(*, regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": regex,
    }


def splitter_name(state: dict[str, Any]) -> str:
    """The name of a byte-level tokenizer.json's way to cut; UserError when llama.cpp has none."""
    normalizer = state.get("normalizer")
    if normalizer is not None and normalizer.get("type") != "NFC":
        found = normalizer.get("type")
        raise UserError(f"tokenizer.json: normalizer {found}: llama.cpp has none but NFC")
    found = _without_offsets(state["pre_tokenizer"])
    whole = bool(state["model"].get("ignore_merges"))
    names = [name for name in PATTERNS if _without_offsets(splitter_json(name)) == found]
    if len(names) > 1:
        names = [name for name in names if (name == WHOLE_WORDS) == whole]
    if not names:
        known = ", ".join(PATTERNS)
        raise UserError(
            f"tokenizer.json: pre_tokenizer: it cuts text in a way that llama.cpp has no name for; "
            f"it has {known}"
        )
    return names[0]


def _without_offsets(state: Any) -> Any:
    """What cuts; trim_offsets changes no token."""
    if isinstance(state, dict):
        return {k: _without_offsets(v) for k, v in state.items() if k != "trim_offsets"}
    return [_without_offsets(part) for part in state] if isinstance(state, list) else state
