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
"""Not a pattern: each digit apart."""
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
    "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
"""Of DeepSeek-V3, one after the other."""
LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-"
    "\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1"
    "\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-"
    "\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15"
    "\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d"
    "\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d"
    "\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183"
    "\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-"
    "\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb"
    "\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
"""Those that have a small and a large form."""
DEEPSEEK = (
    "[\r\n]",
    rf"\s?[{LETTERS}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    DIGITS,
)
"""Of DeepSeek-V2."""
PATTERNS: dict[str, str | tuple[str, ...]] = {
    "gpt-2": GPT2,
    "smollm": DIGITS,
    "dbrx": CL100K,
    "llama-bpe": CL100K,
    "qwen2": pattern_of(CL100K, single_digits=True),
    "gpt-4o": O200K,
    "tekken": TEKKEN,
    "deepseek-v3": DEEPSEEK3,
    "deepseek-llm": DEEPSEEK,
}
"""DIGITS alone is followed by GPT-2's pattern. llama-bpe is dbrx that takes a word which is a token
whole, without merging."""
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
    parts = (pattern,) if isinstance(pattern, str) else pattern
    steps = [_step(part) for part in parts]
    return {"type": "Sequence", "pretokenizers": [*steps, _bytes(regex=pattern == DIGITS)]}


def _step(pattern: str) -> dict[str, Any]:
    if pattern == DIGITS:
        return {"type": "Digits", "individual_digits": True}
    cut = {"behavior": "Isolated", "invert": False}
    return {"type": "Split", "pattern": {"Regex": pattern}, **cut}


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
    nothing = normalizer == {"type": "Sequence", "normalizers": []}
    if normalizer is not None and normalizer.get("type") != "NFC" and not nothing:
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
