"""A corpus of real text out of local trees: documentation, manuals, books, source code.

Paragraphs are taken once; documents are of log-normal length, some 2,700 letters in the middle.
When
the trees hold too little, more documents are made of paragraphs in random order.
"""

import gzip
import hashlib
import html
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

TEXT = (".txt", ".rst", ".md", ".texi", ".pod", ".adoc", ".tex", ".py", ".c", ".h", ".js", ".sh")
PAGE = (".html", ".htm", ".xhtml")
SCRIPT = re.compile(r"<(script|style|head|nav)\b.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
BLOCK = re.compile(
    r"</?(p|div|li|h[1-6]|tr|pre|br|dd|dt|section|table|ul|ol)\b[^>]*>", re.IGNORECASE
)
TAG = re.compile(r"<[^>]+>")
LEAST, MOST = 20, 60_000
"""Letters of a paragraph, and of a document."""


def make_corpus(trees: Sequence[Path], out: Path, size: int, seed: int = 1) -> dict[str, int]:
    """Write JSONL of at least `size` bytes; equal trees give equal bytes.

    Returns: documents, and the bytes of those made of paragraphs used before.
    """
    chance = random.Random(seed)
    paragraphs: list[str] = []
    written = again = number = 0
    with out.open("wb") as file:
        fresh = _documents(_paragraphs(trees, paragraphs), chance)
        for text in _until_enough(fresh, paragraphs, chance):
            line = json.dumps({"id": f"doc-{number}", "text": text}, ensure_ascii=False) + "\n"
            raw = line.encode("utf-8", "replace")
            if fresh.gi_frame is None:  # the trees are used up
                again += len(raw)
            file.write(raw)
            number, written = number + 1, written + len(raw)
            if written >= size:
                break
    return {"documents": number, "bytes": written, "made of paragraphs used before": again}


def _until_enough(
    fresh: Iterator[str], paragraphs: list[str], chance: random.Random
) -> Iterator[str]:
    yield from fresh
    assert paragraphs, "the trees hold no text that can be read"
    while True:
        yield "\n\n".join(chance.choices(paragraphs, k=chance.choice((2, 4, 8, 16, 30))))


def _documents(paragraphs: Iterator[str], chance: random.Random) -> Iterator[str]:
    held: list[str] = []
    letters, limit = 0, 0
    for paragraph in paragraphs:
        held.append(paragraph)
        letters += len(paragraph)
        if letters > limit:
            yield "\n\n".join(held)
            held, letters = [], 0
            limit = min(MOST, int(chance.lognormvariate(7.9, 1.0)))
    if held:
        yield "\n\n".join(held)


def _paragraphs(trees: Sequence[Path], kept: list[str]) -> Iterator[str]:
    """Each paragraph once; those of some length are kept."""
    seen: set[bytes] = set()
    files = (path for tree in trees for path in sorted(tree.rglob("*")))
    texts = (_text_of(path) for path in files if path.is_file() and not path.is_symlink())
    for paragraph in (part for text in texts for part in re.split(r"\n\s*\n+", text)):
        text = paragraph.strip("\n")
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
        if len(text) < LEAST or digest in seen:
            continue
        seen.add(digest)
        kept.append(text)
        yield text


def _text_of(path: Path) -> str:
    """Its text; nothing where it is of another kind."""
    name = path.name.lower().removesuffix(".gz")
    manual = re.search(r"\.[1-8]$", name)
    if not (name.endswith((*TEXT, *PAGE)) or manual):
        return ""
    raw = path.read_bytes()
    if path.name.endswith(".gz"):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError):
            return ""
    if b"\0" in raw[:4096]:
        return ""
    text = raw.decode("utf-8", "replace")
    if name.endswith(PAGE):
        text = html.unescape(TAG.sub("", BLOCK.sub("\n\n", SCRIPT.sub(" ", text))))
    return re.sub(r"(?m)^[.'].*$", "", text) if manual else text
