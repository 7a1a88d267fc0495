"""What was found twice: clusters by size, sources, and pairs to look at."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from megatron_jobs.data.report.words import say_count, say_share
from megatron_jobs.page.bars import Bar, Column, draw_bars, draw_columns
from megatron_jobs.page.elements import Element, join, short, table, tag

Facts = Mapping[str, Any]
"""duplicates.json of a cluster job."""
ITEMS = {"line": "lines", "paragraph": "paragraphs", "sentence": "sentences"}
"""What is compared, by method; documents by the others."""
PAIRS = 8
LETTERS = 200


def draw_copies(facts: Facts) -> Element:
    """One method's clusters, what was removed, and examples."""
    return join(*_parts(facts))


def _parts(facts: Facts) -> Iterator[Element]:
    what = ITEMS.get(facts["method"], "documents")
    how = "equal" if facts["method"] in ITEMS else facts["method"]
    found = f"{say_count(facts['clusters'])} clusters ({how})"
    took = f"{say_count(facts['removed'])} of {say_count(facts['items'])} {what} removed"
    yield tag("h3", what.capitalize())
    yield tag("p", f"{found}; {took}. {_recall(facts)}")
    sizes = facts["clusters_by_size"]
    if sizes:
        columns = [*_sizes(sizes, what)]
        yield draw_columns("Clusters by size", ("clusters",), columns, along=f"{what} in a cluster")
    by_source = facts.get("removed_by_source") or {}
    if any(by_source.values()):
        sources = [*_sources(by_source, facts["sources"])]
        yield draw_bars("Copies removed, of the documents of each source", sources)
    pairs = (facts.get("pairs") or {}).get("examples") or []
    if pairs:
        heads = ["similarity", "one", "other"]
        rows = [_pair(pair) for pair in pairs[:PAIRS]]
        numbers = table("Pairs that were found", heads, rows, foot=[])
        yield tag("details", tag("summary", f"{len(rows)} pairs to look at"), numbers)


def _recall(facts: Facts) -> str:
    pairs = facts.get("pairs") or {}
    recall = pairs.get("estimated_recall")
    if recall is None:
        return ""
    return f"Of pairs as similar as those found, {recall:.1%} are found, by estimate."


def _sizes(sizes: Mapping[str, int], what: str) -> Iterator[Column]:
    """By binary order: "3" counts those of 4 to 7 documents."""
    orders = [int(order) for order in sizes]
    for order in range(min(orders), max(orders) + 1):
        count = sizes.get(str(order), 0)
        name = f"{max(1 << (order - 1), 2)}–{(1 << order) - 1}"
        yield Column(name, [count], f"{say_count(count)} clusters of {name} {what}")


def _sources(removed: Mapping[str, int], kept: Mapping[str, int]) -> Iterator[Bar]:
    for name, count in sorted(removed.items(), key=lambda pair: -pair[1]):
        whole = kept.get(name, 0)
        said = f"{say_count(count)} of {say_count(whole)} · {say_share(count, whole)}"
        yield Bar(name or "not known", [("second", count)], said)


def _pair(pair: Mapping[str, Any]) -> list[str]:
    """A row of the table; the texts' beginnings below the ids."""
    similar = pair.get("jaccard", pair.get("estimated_jaccard"))
    cells = [_document(*both) for both in zip(pair["ids"], pair["texts"], strict=True)]
    return ["–" if similar is None else f"{similar:.3f}", *cells]


def _document(name: str, text: str) -> Element:
    words = " ".join(text.split())
    return tag("span", tag("b", name), tag("br"), short(words, LETTERS), class_="wide small")


def draw_kinds(title: str, counts: Mapping[str, int]) -> Element:
    """A bar for each kind that something was counted by."""
    ranked: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda pair: -pair[1])
    if not any(counts.values()):
        return tag("p", "None was found.", class_="muted")
    return draw_bars(title, [Bar(name, [("first", n)], say_count(n)) for name, n in ranked])
