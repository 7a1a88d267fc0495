"""The plan as a drawing: jobs in layers from left to right, each behind those it waits for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from megatron_jobs.jobs.report.story import Story
from megatron_jobs.jobs.tree import job_depths, plan_tree
from megatron_jobs.jobs.words import say_name, say_seconds
from megatron_jobs.page.elements import Element, join, short, tag

WIDTH, HEIGHT = 150, 48
ACROSS, DOWN = 40, 16
"""Pixels of a job, and between two of them."""
EDGE = 4
LETTERS = 18
Place = tuple[int, str]
"""A job, or where a line passes by a layer: (layer, job, or `job>job`)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands, in pixels."""

    heights: Mapping[Place, float]
    """Middle of each place, from the top."""
    lines: Sequence[list[Place]]
    """The places that each line goes through."""
    layers: int


def draw_plan(stories: Sequence[Story]) -> Element:
    """The drawing; a job leads to what is told of it below."""
    after = {story.name: story.record["after"] for story in stories}
    layout = lay_out(after)
    top = min(layout.heights.values()) - HEIGHT / 2 - EDGE
    bottom = max(layout.heights.values()) + HEIGHT / 2 + EDGE
    width = layout.layers * (WIDTH + ACROSS) - ACROSS + 2 * EDGE
    depths = job_depths(after)
    implied = _implied(after)
    lines = [
        tag(
            "path",
            d=_path(line, layout, top),
            class_=f"edge{' implied' * (_ends(line) in implied)}",
        )
        for line in layout.lines
    ]
    boxes = []
    for number, story in enumerate(stories):
        place = (depths[story.name], story.name)
        boxes.append(_box(story, number, _left(place[0]), layout.heights[place] - top))
    size = f"{width:.0f} {bottom - top:.0f}"
    drawing = tag(
        "svg",
        tag("title", "The jobs of the plan, each behind those it waits for"),
        *lines,
        *boxes,
        viewBox=f"0 0 {size}",
        width=f"{width:.0f}",
        height=f"{bottom - top:.0f}",
        role="group",
        class_="plan",
    )
    wide = tag("div", drawing, class_="scroll tall", tabindex=0, role="region", aria_label="Plan")
    return join(wide, _as_tree(stories, after))


def _as_tree(stories: Sequence[Story], after: Mapping[str, Sequence[str]]) -> Element:
    """The same as lines of text, for narrow screens."""
    numbers = {story.name: (number, story) for number, story in enumerate(stories)}
    lines = []
    for branch in plan_tree(after):
        number, story = numbers[branch.job]
        guide = tag("span", branch.guide, class_="guide", aria_hidden="true")
        name = tag("a", say_name(branch.job), href=f"#job-{number}")
        lines.append(
            tag("li", guide, name, tag("span", story.state, class_=f"badge is-{story.state}"))
        )
    return tag("ul", *lines, class_="tree")


def lay_out(after: Mapping[str, Sequence[str]]) -> Layout:
    """Layers by the longest way, few crossings by the middles of neighbours, no two closer than
    they may be.

    Source: Sugiyama, Tagawa, Toda 1981, the layered drawing of graphs, in its plainest form.
    """
    depths = job_depths(after)
    lines = [
        _passing(other, job, depths)
        for job, others in after.items()
        for other in others
        if depths.get(other, depths[job]) < depths[job]
    ]
    layers: list[list[Place]] = [[] for _ in range(max(depths.values(), default=0) + 1)]
    for job, depth in depths.items():
        layers[depth].append((depth, job))
    for line in lines:
        for place in line[1:-1]:
            layers[place[0]].append(place)
    beside: dict[Place, list[Place]] = {place: [] for layer in layers for place in layer}
    for line in lines:
        for one, other in pairwise(line):
            beside[one].append(other)
            beside[other].append(one)
    heights = _heights(layers, beside)
    return Layout(heights, lines, len(layers))


def _passing(first: str, last: str, depths: Mapping[str, int]) -> list[Place]:
    between = range(depths[first] + 1, depths[last])
    passing = [(depth, f"{first}\0{last}") for depth in between]
    return [(depths[first], first), *passing, (depths[last], last)]


def _heights(layers: list[list[Place]], beside: Mapping[Place, list[Place]]) -> dict[Place, float]:
    """Heights after some sweeps there and back, each layer by its neighbours in the last one."""
    heights: dict[Place, float] = {}
    for layer in layers:
        heights |= _spread(layer, [float(i) * (HEIGHT + DOWN) for i in range(len(layer))])
    for sweep in range(8):
        side = -1 if sweep % 2 == 0 else 1
        for layer in layers if side < 0 else reversed(layers):
            wished = [_wish(place, side, heights, beside) for place in layer]
            order = sorted(range(len(layer)), key=lambda i: wished[i])
            layer[:] = [layer[i] for i in order]
            heights |= _spread(layer, [wished[i] for i in order])
    return heights


def _wish(
    place: Place, side: int, heights: Mapping[Place, float], beside: Mapping[Place, list[Place]]
) -> float:
    """The mean height of the neighbours on one side; where it is if it has none."""
    near = [heights[other] for other in beside[place] if (other[0] - place[0]) * side > 0]
    return sum(near) / len(near) if near else heights[place]


def _spread(layer: Sequence[Place], wished: Sequence[float]) -> dict[Place, float]:
    """Heights as near to the wished ones as the room between neighbours allows."""
    found: list[float] = []
    for place, (name, wish) in enumerate(zip(layer, wished, strict=True)):
        room = _room(layer[place - 1], name) if place else 0.0
        found.append(max(wish, found[-1] + room) if found else wish)
    shift = sum(w - f for w, f in zip(wished, found, strict=True)) / max(len(found), 1)
    return {name: height + shift for name, height in zip(layer, found, strict=True)}


def _room(one: Place, other: Place) -> float:
    """Between the middles of two neighbours; lines that pass by take little."""
    tall = [DOWN if "\0" in place[1] else HEIGHT for place in (one, other)]
    return sum(tall) / 2 + DOWN


def _ends(line: Sequence[Place]) -> tuple[str, str]:
    return line[0][1], line[-1][1]


def _implied(after: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
    """Lines that say nothing new: there is a longer way from the one job to the other."""
    before: dict[str, set[str]] = {}
    for job, others in after.items():
        known = [other for other in others if other in before]
        before[job] = set(known).union(*(before[other] for other in known))
    return {
        (other, job)
        for job, others in after.items()
        for other in others
        if any(other in before.get(third, ()) for third in others)
    }


def _left(layer: int) -> float:
    return EDGE + layer * (WIDTH + ACROSS)


def _path(line: Sequence[Place], layout: Layout, top: float) -> str:
    """From the right side of the first job to the left side of the last."""
    y = layout.heights[line[0]] - top
    words = [f"M{_left(line[0][0]) + WIDTH:.0f} {y:.1f}"]
    for place in line[1:]:
        x, before, y = _left(place[0]), y, layout.heights[place] - top
        middle = x - ACROSS / 2
        words.append(f"C{middle:.0f} {before:.1f} {middle:.0f} {y:.1f} {x:.0f} {y:.1f}")
        if place is not line[-1]:
            words.append(f"H{x + WIDTH:.0f}")
    return "".join(words)


def _box(story: Story, number: int, left: float, middle: float) -> Element:
    top, hours = middle - HEIGHT / 2, story.record["costs"].hours
    spent = f" · {say_seconds(hours * 3600)}" if hours else ""
    more = f" · ↻{story.restarts}" if story.restarts else ""
    tip = (
        f"{say_name(story.name)}\n{story.record['stage']}, {story.state}\n{story.record['reason']}"
    )
    return tag(
        "a",
        tag(
            "rect", x=f"{left:.0f}", y=f"{top:.1f}", width=WIDTH, height=HEIGHT, rx=9, class_="box"
        ),
        tag(
            "rect",
            x=f"{left:.0f}",
            y=f"{top + 9:.1f}",
            width=4,
            height=HEIGHT - 18,
            class_="edge-mark",
        ),
        tag(
            "svg",  # cuts off what is too long
            tag("text", short(say_name(story.name), LETTERS), x=0, y=20, class_="name"),
            tag("text", f"{story.state}{spent}{more}", x=0, y=36, class_="small"),
            x=f"{left + 13:.0f}",
            y=f"{top:.1f}",
            width=WIDTH - 19,
            height=HEIGHT,
        ),
        href=f"#job-{number}",
        class_=f"job is-{story.state}",
        data_tip=tip.strip(),
        aria_label=tip.strip(),
    )
