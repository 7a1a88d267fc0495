#!/usr/bin/env python3
"""Record datatrove's verdicts of texts, for the tests of our filters.

    tools/record_verdicts.py tests/unit/text/filters/recorded.jsonl

Each line of the file is an object with a `text`; it gets `verdicts`, by our names of the rules:
[reason, text after the rule, or null when it is as before]; and `words`, the words by spaCy of each
text that a rule cuts, put together by line ends. Needs what tools/bench/filter.py needs.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from megatron_jobs.text.filters.spacy_words import spacy_splitter


def main() -> int:
    """Write the file anew."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    lines = asked.file.read_text(encoding="utf-8").rstrip("\n").split("\n")
    bench = load_bench()
    recorded = [record(bench, json.loads(line)["text"]) for line in lines]
    text = "".join(f"{json.dumps(entry, ensure_ascii=False)}\n" for entry in recorded)
    asked.file.write_text(text, encoding="utf-8")
    return 0


def load_bench() -> ModuleType:
    """tools/bench/filter_datatrove.py, which knows datatrove's names."""
    path = Path(__file__).parent / "bench/filter_datatrove.py"
    spec = importlib.util.spec_from_file_location("filter_datatrove", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(bench: ModuleType, text: str) -> dict[str, Any]:
    """What datatrove says of a text, and all words that our rules ask for on the way."""
    words: dict[str, str] = {}
    split = spacy_splitter()

    def splitter(part: str, language: str) -> list[str]:
        found = split(part, language)
        words[part] = "\n".join(found)
        return found

    verdicts = {}
    for name in bench.PAIRS:
        reason, after = bench.theirs(name)(text)
        verdicts[name] = [reason, None if after == text else after]
        bench.ours(name, splitter)(text)
    return {"text": text, "verdicts": verdicts, "words": words}


if __name__ == "__main__":
    sys.exit(main())
