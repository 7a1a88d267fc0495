"""Which nodes worked when, and what was held against them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from megatron_jobs.jobs.report.story import Story
from megatron_jobs.jobs.report.timeline import MOST_NODES, Span, draw_nodes
from megatron_jobs.jobs.stragglers import read_stragglers
from megatron_jobs.jobs.words import say_hours
from megatron_jobs.page.elements import Element, join, table, tag


def sections(stories: Sequence[Story], span: Span) -> Iterator[tuple[str, Element]]:
    """`Nodes`, if any are known: nodes with something against them first, then by name."""
    hours: dict[str, float] = defaultdict(float)
    starts: Counter[str] = Counter()
    for chapter in (chapter for story in stories for chapter in story.chapters):
        for node in chapter.start.nodes:
            hours[node] += (chapter.ended - chapter.start.began) / 3600
            starts[node] += 1
    found = held_against(stories)
    names = sorted({*hours, *found}, key=lambda node: (node not in found, natural(node)))
    if not names:
        return
    rows = [
        [node, str(starts[node]), say_hours(hours.get(node, 0)), "; ".join(found.get(node, []))]
        for node in names[:MOST_NODES]
    ]
    heads = ["node", "#starts", "#hours", "what was held against it"]
    inner = table("Nodes", heads, rows, foot=[])
    listed = tag("details", tag("summary", "as a table"), inner, open="" if found else None)
    yield "Nodes", join(draw_nodes(stories, span, names), listed)


def held_against(stories: Sequence[Story]) -> Mapping[str, list[str]]:
    """Node -> failed preflights, failures for which it was left out, stalls, slowness."""
    found: dict[str, list[str]] = {}

    def add(node: str, words: str) -> None:
        known = found.setdefault(node, [])
        if words not in known:
            known.append(words)

    for story in stories:
        for event in (event for chapter in story.chapters for event in chapter.events):
            for node, cause in (event.get("bad") or {}).items():
                add(str(node), f"preflight: {cause}")
            if event["event"] == "failed" and event.get("decision") == "exclude":
                add(str(event["node"]), f"{event.get('cause')}")
            if event["event"] == "stall" and event.get("node"):
                add(str(event["node"]), f"stalled in {event.get('where') or 'an unknown place'}")
        for node, words in slow_nodes(story):
            add(node, words)
    return found


def slow_nodes(story: Story) -> Iterator[tuple[str, str]]:
    """Stragglers that the watch of the job has found."""
    for row in read_stragglers(story.folder):
        if row["straggler"]:
            yield row["node"], f"straggler: {row['times']:.2f} x the median's own work"


def natural(name: str) -> list[tuple[int, str]]:
    """For sorting: n2 before n10."""
    parts, digits = [], ""
    for letter in f"{name}\0":
        if letter.isdigit():
            digits += letter
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, letter))
    return parts
