"""When what ran where: a row for each job, a row for each node."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from megatron_jobs.jobs.report.story import Chapter, Story
from megatron_jobs.jobs.starts import short_names
from megatron_jobs.jobs.words import say_name, say_seconds
from megatron_jobs.page.elements import Element, join, short, tag

STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Seconds between two marks of the axis; then whole days."""
MARKS = 6
LANES = 5
"""More nodes than this are not drawn one by one in a job's bar."""
MOST_NODES = 64
MOST_BARS = 500
"""Starts of one job, or on one node, that are drawn: the last ones."""
KEY = {
    "held": "waits for other jobs",
    "waiting": "waits for nodes",
    "preflight": "preflight",
    "running": "runs",
    "done": "done",
    "requeued": "stopped or preempted, to go on",
    "failed": "failed or lost",
}
"""Colour -> what it means."""
WAITED = 0.5
"""Waits below so many seconds are not drawn."""


@dataclass(frozen=True, slots=True)
class Span:
    """The time that is drawn, in seconds since 1970."""

    first: float
    last: float

    @property
    def seconds(self) -> float:
        return max(self.last - self.first, 1.0)

    def percent(self, seconds: float) -> float:
        """Where a time stands, from the left."""
        return 100 * min(max((seconds - self.first) / self.seconds, 0), 1)


def whole_span(stories: Iterable[Story]) -> Span | None:
    """From the first submission or start to the last end; None when nothing has started."""
    chapters = [chapter for story in stories for chapter in story.chapters]
    if not chapters:
        return None
    begins = [c.start.began if c.start.submitted is None else c.start.submitted for c in chapters]
    return Span(min(begins), max(chapter.ended for chapter in chapters))


def draw_jobs(stories: Sequence[Story], span: Span) -> Element:
    """A row for each job: each start with its wait, its preflight and how it ended."""
    rows = [_axis(span)]
    for story in stories:
        bars = [
            bar for chapter in story.chapters[-MOST_BARS:] for bar in _bars_of(story, chapter, span)
        ]
        label = f"{say_name(story.name)}: {story.state}, {len(story.chapters)} starts"
        rows.append(_row(say_name(story.name), bars, label))
    return tag("div", *rows, class_="times")


def draw_nodes(stories: Sequence[Story], span: Span, nodes: Sequence[str]) -> Element:
    """A row for each node: which job was on it when."""
    rows = [_axis(span)]
    chapters = [(story, chapter) for story in stories for chapter in story.chapters]
    for node in nodes[:MOST_NODES]:
        mine = [(story, chapter) for story, chapter in chapters if node in chapter.start.nodes]
        bars = _side_by_side(mine[-MOST_BARS:], span)
        names = ", ".join(dict.fromkeys(say_name(story.name) for story, _ in mine))
        rows.append(_row(node, bars, f"{node}: {names}"))
    left = len(nodes) - MOST_NODES
    more = [tag("p", f"and {left} more nodes", class_="muted")] if left > 0 else []
    return join(tag("div", *rows, class_="times"), *more)


def key_of_colours() -> Element:
    """What the colours of the bars mean."""
    items = [tag("li", tag("span", class_=f"dot is-{kind}"), said) for kind, said in KEY.items()]
    return tag("ul", *items, class_="key")


def _side_by_side(mine: Sequence[tuple[Story, Chapter]], span: Span) -> list[Element]:
    """The bars of one node, those of jobs that shared it one below the other."""
    bars: list[Element] = []
    together: list[tuple[Story, Chapter]] = []
    end = float("-inf")
    for story, chapter in sorted(mine, key=lambda pair: pair[1].start.began):
        if chapter.start.began >= end:
            bars += _stacked(together, span)
            together = []
        together.append((story, chapter))
        end = max(end, chapter.ended)
    return bars + _stacked(together, span)


def _stacked(together: Sequence[tuple[Story, Chapter]], span: Span) -> list[Element]:
    high = 100 / max(len(together), 1)
    return [
        _run(story, chapter, span, style=f";top:{place * high:.2f}%;height:{high:.2f}%")
        for place, (story, chapter) in enumerate(together)
    ]


def _bars_of(story: Story, chapter: Chapter, span: Span) -> Iterable[Element]:
    start = chapter.start
    if start.submitted is not None:
        ready = start.submitted if start.eligible is None else max(start.eligible, start.submitted)
        waited = start.began - ready
        if ready - start.submitted > WAITED:
            tip = f"{say_seconds(ready - start.submitted)} for other jobs, or for its time"
            yield _bar(
                span, start.submitted, ready, "held", f"{say_name(story.name)}: waited {tip}"
            )
        if waited > WAITED:
            tip = f"waited {say_seconds(waited)} for nodes"
            yield _bar(span, ready, start.began, "waiting", f"{say_name(story.name)}: {tip}")
    yield _run(story, chapter, span, lanes=min(max(len(start.nodes), 1), LANES))
    flight = chapter.preflight
    if flight is not None and flight.get("seconds"):
        tip = f"{say_name(story.name)}: preflight, {flight['seconds']:.0f} s"
        yield _bar(span, flight["time"] - flight["seconds"], flight["time"], "preflight", tip)


def _run(story: Story, chapter: Chapter, span: Span, *, lanes: int = 1, style: str = "") -> Element:
    """The time from start to end of one start."""
    start, seconds = chapter.start, chapter.ended - chapter.start.began
    count = f"{len(start.nodes)} node{'s' if len(start.nodes) != 1 else ''}"
    where = f"{count}: {short(short_names(start.nodes), 80)}" if start.nodes else "this machine"
    head = f"{say_name(story.name)}, start {chapter.number}"
    tip = f"{head}\n{say_seconds(seconds)}, {chapter.ending}\n{where}"
    why = chapter.why()
    text = f"{tip}\n{short(why, 300)}" if why else tip
    style += f";--lanes:{lanes}" if lanes > 1 else ""
    return _bar(span, start.began, chapter.ended, chapter.ending, text, style=style)


def _bar(span: Span, first: float, last: float, kind: str, tip: str, *, style: str = "") -> Element:
    left, right = span.percent(first), span.percent(last)
    place = f"left:{left:.3f}%;width:{max(right - left, 0):.3f}%{style}"
    kinds = f"bar is-{kind}" + (" lanes" if "--lanes" in style else "")
    return tag("span", class_=kinds, style=place, data_tip=tip)


def _row(name: str, bars: list[Element], label: str) -> Element:
    track = tag("div", *bars, class_="track", role="img", aria_label=label)
    return tag("div", tag("div", name, class_="who", title=name), track, class_="line")


def _axis(span: Span) -> Element:
    """Marks at round times since the beginning."""
    step = next((s for s in STEPS if span.seconds / s <= MARKS), 0)
    while not step or span.seconds / step > MARKS:
        step = step * 2 if step else 2 * 86400
    marks = []
    for place in range(int(span.seconds // step) + 1):
        left = 100 * place * step / span.seconds
        kind = "mark end" if left > 90 else "mark"
        marks.append(tag("span", _since(place * step), class_=kind, style=f"left:{left:.3f}%"))
    return tag("div", tag("div", class_="who"), tag("div", *marks, class_="axis"), class_="line")


def _since(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    return f"{days} d" + (f" {rest // 3600} h" if rest else "") if days else say_seconds(seconds)
