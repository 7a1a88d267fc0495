"""The losses of a training: drawn, thinned where they are many, restarts marked."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from megatron_jobs.jobs.report.story import Story
from megatron_jobs.jobs.words import say_number
from megatron_jobs.page.elements import Element, join, tag
from megatron_jobs.runtime.journal import NAME, read_journal

POINTS = 2000
"""Of a curve, at most; the lowest and the highest of each stretch are kept."""
WIDE, HIGH = 1000, 320
ROWS = 12
Point = tuple[int, float | None]
"""Step and loss; None where it was not finite."""


Frame = tuple[float, float, float, float]
"""What the drawing shows: first and last step, lowest and highest loss."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What is drawn of one training."""

    train: list[Point]
    validation: list[Point]
    restarts: list[int]
    """Steps at which it went on."""


def read_curves(story: Story) -> Curves | None:
    """The losses that a job has written down; None when there are none."""
    records = [record for record in read_journal(story.folder.path / NAME) if "loss" in record]
    kinds: dict[str, list[Point]] = {"train": [], "validation": []}
    for record in records:
        if record.get("kind") in kinds:
            kinds[record["kind"]].append((int(record["step"]), record["loss"]))
    if not any(loss is not None for points in kinds.values() for _, loss in points):
        return None
    events = [event for chapter in story.chapters for event in chapter.events]
    reached = [event.get("reached") for event in events if event["event"] == "start"]
    restarts = sorted({int(step) for step in reached[1:] if isinstance(step, (int, float))})
    return Curves(thin(kinds["train"]), thin(kinds["validation"]), restarts)


def thin(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most so many points: the first, the last, and of each stretch the lowest and highest."""
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept = [points[0]]
    for place in range(stretches):
        part = inner[place * len(inner) // stretches : (place + 1) * len(inner) // stretches]
        finite = [point for point in part if point[1] is not None]
        chosen = {min(finite, key=_loss), max(finite, key=_loss)} if finite else set(part[:1])
        kept += sorted(chosen, key=lambda point: point[0])
    return [*kept, points[-1]]


def _loss(point: Point) -> float:
    return math.inf if point[1] is None else point[1]


def draw_curves(curves: Curves) -> Element:
    """The drawing with its axes; the numbers are in the page for whoever points at it."""
    steps = [step for step, _ in curves.train + curves.validation]
    losses = [loss for _, loss in curves.train + curves.validation if loss is not None]
    x_marks = round_marks(min(steps), max(steps), 6)
    y_marks = round_marks(min(losses), max(losses), 5)
    right = max(max(steps), min(steps) + 1)
    low, high = min(min(losses), y_marks[0]), max(max(losses), y_marks[-1])
    frame = (min(steps), right, low, high if high > low else low + 1)
    ys = [(m, f"top:{_y(m, frame) / HIGH * 100:.2f}%") for m in y_marks]
    xs = [(m, f"left:{_x(m, frame) / WIDE * 100:.2f}%") for m in x_marks]
    numbers = json.dumps({"frame": frame, "train": curves.train, "validation": curves.validation})
    between = f"between {say_number(min(losses))} and {say_number(max(losses))}"
    title = f"Loss from step {min(steps)} to {max(steps)}, {between}"
    drawing = _drawing(curves, frame, y_marks, title)
    parts = [
        tag("div", *[tag("span", say_number(m), style=style) for m, style in ys], class_="ys"),
        tag("div", drawing, tag("div", class_="cross"), class_="canvas"),
        tag("div", *[tag("span", say_number(m), style=style) for m, style in xs], class_="xs"),
        tag("script", Element(numbers), type="application/json"),
    ]
    return join(tag("div", *parts, class_="plot"), _key(curves))


def _drawing(curves: Curves, frame: Frame, marks: Sequence[float], title: str) -> Element:
    """Grid, restarts and curves, stretched to whatever room there is."""
    lines = [tag("path", d=f"M0 {_y(mark, frame):.1f}H{WIDE}", class_="grid") for mark in marks]
    for step in curves.restarts:
        lines.append(tag("path", d=f"M{_x(step, frame):.1f} 0V{HIGH}", class_="restart"))
    lines.append(tag("path", d=_line(curves.train, frame), class_="train"))
    lines.append(tag("path", d=_line(curves.validation, frame), class_="validation"))
    lines.append(tag("path", d=_dots(curves.validation, frame), class_="dots"))
    size = f"0 0 {WIDE} {HIGH}"
    named = tag("title", title)
    return tag("svg", named, *lines, viewBox=size, preserveAspectRatio="none", role="img")


def curve_rows(curves: Curves) -> list[list[str]]:
    """Some of the numbers: step, loss in training, loss in validation."""
    validation = dict(curves.validation)
    every = max(1, len(curves.train) // ROWS)
    train = dict(curves.train)
    chosen = {step for step, _ in curves.train[::every]} | {s for s, _ in curves.train[-1:]}
    some = max(1, len(curves.validation) // ROWS)
    chosen |= {step for step, _ in curves.validation[::some]}
    return [
        [f"{step:,}", _shown(train.get(step)), _shown(validation.get(step))]
        for step in sorted(chosen)
    ]


def round_marks(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two, at most so many: 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)] or [low]


def _shown(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.4f}"


def _x(step: float, frame: Frame) -> float:
    return WIDE * (step - frame[0]) / (frame[1] - frame[0])


def _y(loss: float, frame: Frame) -> float:
    return HIGH * (frame[3] - loss) / (frame[3] - frame[2])


def _line(points: Sequence[Point], frame: Frame) -> str:
    """A path through the points, broken where a loss was not finite."""
    words, pen = [], "M"
    for step, loss in points:
        if loss is None:
            pen = "M"
            continue
        words.append(f"{pen}{_x(step, frame):.1f} {_y(loss, frame):.1f}")
        pen = "L"
    return "".join(words)


def _dots(points: Sequence[Point], frame: Frame) -> str:
    """Lines of no length: round ends make dots of them, however the drawing is stretched."""
    known = [(step, loss) for step, loss in points if loss is not None]
    return "".join(f"M{_x(s, frame):.1f} {_y(loss, frame):.1f}h0" for s, loss in known[:200])


def _key(curves: Curves) -> Element:
    kinds = [
        ("train", curves.train),
        ("validation", curves.validation),
        ("restart", curves.restarts),
    ]
    items = [tag("li", tag("span", class_=f"dash {kind}"), kind) for kind, found in kinds if found]
    return tag("ul", *items, class_="key")
