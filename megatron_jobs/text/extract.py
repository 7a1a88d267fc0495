"""Pages to texts: letters, main content, repair, normal form; what is no page is rejected.

    mode fast     resiliparse's main content: by rules over the tree, some 2,000 pages/s a core
    mode careful  trafilatura: better at leaving navigation out, some 100 pages/s a core
    mode plain    all visible text of the page

Sources: Bevendorff et al. 2018 (Resiliparse), Barbaresi 2021 (Trafilatura, ACL demo).
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from megatron_jobs.text.charsets import decode_page
from megatron_jobs.text.duplicate_ids import IdList
from megatron_jobs.text.normalise import NormalRules, normalise
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict

if TYPE_CHECKING:
    from resiliparse.parse.html import HTMLTree

Mode = Literal["fast", "careful", "plain"]
HTML = ("text/html", "application/xhtml+xml")
TEXT = ("text/plain",)
UNKNOWN = ("", "application/octet-stream", "unknown/unknown")
"""Types that say nothing: the first bytes decide."""
LOOKS_LIKE_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|\?xml|!--)", re.I)
"""Behind white space and the mark of UTF-8."""
BOXES = re.compile(
    r"<(/?)(?:div|section|article|blockquote|[uo]l|span|center|main|aside|font|form)\b", re.I
)
DEEPEST = 2000
"""Boxes in each other: browsers stop at 512; the time of resiliparse grows with the square."""
LICENCE = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<terms>by(?:-nc)?(?:-nd|-sa)?)/(?P<version>\d\.\d)(?:/(?P<place>[a-z]{2,3})\b)?"
    r"|(?P<zero>publicdomain/zero/1\.0)|(?P<mark>publicdomain/mark/1\.0))"
)


@dataclass(frozen=True)
class ExtractRules:
    """How pages become texts."""

    mode: Mode = "fast"
    statuses: tuple[int, ...] = (200,)
    """Of HTTP; others are rejected. Pages of files have none."""
    min_letters: int = 1
    """A text with fewer is rejected."""
    max_replaced_share: float = 0.01
    """Of letters, that stand for bytes which no charset reads."""
    licences: bool = True
    """Take a Creative Commons licence that the page links to as its own."""
    normal: NormalRules = field(default_factory=NormalRules)


class Extractor:
    """The treatment of `extract`; see `text.passes`.

    Args:
        folder: where the ids of each unit are left.
    """

    def __init__(self, rules: ExtractRules, folder: Path | None = None) -> None:
        self.rules = rules
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.ids = IdList()

    def begin(self, number: int) -> None:
        """Forget the ids of a unit that was not finished."""
        self.ids = IdList()

    def finish(self, number: int) -> None:
        """Leave the ids of a unit's documents."""
        if self.folder:
            self.ids.write(self.folder, number)

    def numbers(self) -> dict[str, int]:
        """Pages by how their charset was found, repairs, licences found."""
        found, self.counts = dict(self.counts), Counter()
        return found

    def treat(self, record: Record) -> Record | Verdict:
        """The record with its text, or why it has none."""
        if refused := self._take_page(record) if _is_page(record) else None:
            return refused
        normal = normalise(record.text, self.rules.normal)
        record.text = normal.text
        self.counts["repaired"] += normal.repaired
        letters = len(record.text)
        if not record.text.strip():
            return Verdict("extract.empty", 0, 1)
        if letters < self.rules.min_letters:
            return Verdict("extract.too_short", letters, self.rules.min_letters)
        self.ids.add(record.id)
        return record

    def _take_page(self, record: Record) -> Verdict | None:
        """Make the text of the payload; a verdict when there is none."""
        status = record.metadata.get("status", 200)
        if status not in self.rules.statuses:
            return Verdict("extract.http_status", status, list(self.rules.statuses))
        kind = _kind(record)
        if kind not in (*HTML, *TEXT):
            return Verdict("extract.not_html", kind, "text/html or text/plain")
        decoded = decode_page(record.payload, record.metadata.pop("charset", ""))
        record.payload = b""
        self.counts[f"charset.{decoded.by}"] += 1
        record.metadata["charset"] = decoded.charset
        most = self.rules.max_replaced_share * len(decoded.text)
        if decoded.replaced > most:
            return Verdict("extract.unreadable", decoded.replaced, int(most))
        if kind in TEXT:
            record.text = decoded.text
        elif (depth := _depth(decoded.text)) > DEEPEST:
            return Verdict("extract.too_deep", depth, DEEPEST)
        else:
            self._read_html(record, decoded.text)
        return None

    def _read_html(self, record: Record, html: str) -> None:
        from resiliparse.parse.html import HTMLTree

        tree = HTMLTree.parse(html.replace("\0", ""))
        facts = {"title": " ".join((tree.title or "").split()), "html_language": _language(tree)}
        record.metadata |= {name: value for name, value in facts.items() if value}
        if self.rules.licences and not record.licence:
            record.licence = licence_of(tree)
            self.counts["licence_found"] += bool(record.licence)
        record.text = _main_text(tree, html, self.rules.mode)


def _is_page(record: Record) -> bool:
    """Whether it has no text yet; an answer may also be empty."""
    answered = "content_type" in record.metadata or "status" in record.metadata
    return bool(record.payload) or (answered and not record.text)


def _kind(record: Record) -> str:
    """What the payload is: as its header says, as the crawl found, as it looks."""
    kind: str = record.metadata.get("content_type", "")
    if kind in UNKNOWN:
        kind = record.metadata.get("identified_type", "")
    if kind in UNKNOWN and _looks_like_html(record.payload):
        return HTML[0]
    return kind


def _looks_like_html(payload: bytes) -> bool:
    begins = payload.lstrip().removeprefix(b"\xef\xbb\xbf").lstrip()[:100]
    return LOOKS_LIKE_HTML.match(begins) is not None


def _depth(html: str) -> int:
    """How many boxes stand open at most; 0 when there are too few to care."""
    if html.count("<") < DEEPEST:
        return 0
    depth = most = 0
    for box in BOXES.finditer(html):
        depth = max(depth - 1, 0) if box[1] else depth + 1
        most = max(most, depth)
    return most


def _main_text(tree: "HTMLTree", html: str, mode: Mode) -> str:
    if mode == "careful":
        return _careful(html)
    from resiliparse.extract.html2text import extract_plain_text

    text: str = extract_plain_text(
        tree,
        preserve_formatting=True,
        main_content=mode == "fast",
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
    )
    return text


def _careful(html: str) -> str:
    import trafilatura

    text = trafilatura.extract(
        html, include_comments=False, include_tables=True, deduplicate=False, output_format="txt"
    )
    return text or ""


def _language(tree: "HTMLTree") -> str:
    """What the page says of its language, such as `pt-br`; lower case."""
    document: Any = tree.document
    root = document.query_selector("html") if document else None
    said = (root.get_attribute("lang") or root.get_attribute("xml:lang") or "") if root else ""
    return said.strip().lower().replace("_", "-")[:35]


def licence_of(tree: "HTMLTree") -> str:
    """SPDX name of the Creative Commons licence that links marked rel=license lead to; "" when
    there is none, or there are several: the page does not say which is its own."""
    found = set()
    document: Any = tree.document
    for element in document.query_selector_all("a[rel~=license], link[rel~=license]"):
        match = LICENCE.match(element.get_attribute("href") or "")
        found.add(_spdx(match) if match else "")
    return found.pop() if len(found) == 1 else ""


def _spdx(match: re.Match[str]) -> str:
    if match["zero"]:
        return "CC0-1.0"
    if match["mark"]:
        return "CC-PDM-1.0"
    return f"CC-{match['terms'].upper()}-{match['version']}"
