"""One HTML file that tells of a run: everything is in it, and nothing is fetched from anywhere."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from megatron_jobs.jobs.report import costs, jobs, nodes, restarts
from megatron_jobs.jobs.report.curve import curve_rows, draw_curves, read_curves
from megatron_jobs.jobs.report.graph import draw_plan
from megatron_jobs.jobs.report.story import Story, read_story
from megatron_jobs.jobs.report.timeline import draw_jobs, key_of_colours, whole_span
from megatron_jobs.jobs.status import Record, all_costs
from megatron_jobs.jobs.words import (
    say_energy,
    say_hours,
    say_money,
    say_name,
    say_number,
    say_seconds,
    say_utc,
)
from megatron_jobs.page import Section, figures, render_page
from megatron_jobs.page.elements import Element, join, table, tag

HERE = Path(__file__).parent


def render_report(run: Path, records: Sequence[Record], *, now: float | None = None) -> str:
    """The whole page; the same for the same run, as long as nothing of it runs.

    Args:
        records: of `jobs.status.plan_status`.
        now: until when running jobs are told, in seconds since 1970; the present when None.
    """
    moment = time.time() if now is None else now
    stories = [read_story(run, record, moment) for record in records]
    name = say_name(run.absolute().name)
    script = HERE.joinpath("page.js").read_text(encoding="utf-8")
    head = join(*_head(run, stories))
    return render_page(f"{name}: report of a run", head, [*_sections(stories)], script=script)


def _sections(stories: Sequence[Story]) -> Iterator[Section]:
    yield "Plan", draw_plan(stories)
    span = whole_span(stories)
    if span is not None:
        yield "Timeline", join(draw_jobs(stories, span), key_of_colours())
    losses = [*_losses(stories)]
    if losses:
        yield "Loss", join(*losses)
    yield from restarts.sections(stories)
    if span is not None:
        yield from nodes.sections(stories, span)
    yield "Costs", costs.cost_table(stories)
    yield "Jobs", jobs.job_cards(stories)


def _losses(stories: Sequence[Story]) -> Iterator[Element]:
    for story in stories:
        curves = read_curves(story)
        if curves is None:
            continue
        heads = ["step", "#training", "#validation"]
        numbers = table(f"Losses of {story.name}", heads, curve_rows(curves), foot=[])
        more = tag("details", tag("summary", "as numbers"), numbers)
        yield join(tag("h3", say_name(story.name)), draw_curves(curves), more)


def _head(run: Path, stories: Sequence[Story]) -> Iterator[Element]:
    """Name, times, and the figures that are asked for first."""
    state = _state_of(stories)
    badge = tag("span", state, class_=f"badge is-{state}")
    yield tag("h1", say_name(run.absolute().name), " ", badge)
    span = whole_span(stories)
    if span is not None:
        going = any(story.state == "running" for story in stories)
        words = "as of" if going else "to"
        text = f"{say_utc(span.first)} {words} {say_utc(span.last)} UTC"
        yield tag("p", f"{text} · {say_name(str(run.absolute()))}", class_="muted")
    yield figures([*_figures(stories, span.seconds if span else 0)])


def _figures(stories: Sequence[Story], seconds: float) -> Iterator[tuple[str, str]]:
    total = all_costs([story.record for story in stories])
    done = sum(story.state == "done" for story in stories)
    yield "jobs done", f"{done} of {len(stories)}"
    yield "from first to last", say_seconds(seconds)
    again = sum(story.restarts for story in stories)
    if again:
        yield "restarts", str(again)
    yield from _unless_empty("GPU-hours", say_hours(total.gpu_hours))
    yield from _unless_empty("CPU-hours", say_hours(total.cpu_hours))
    yield from _unless_empty("energy", say_energy(total.joules, partly=total.partly))
    yield from _unless_empty("money", say_money(total.money))
    for name in ("validation_loss", "loss"):
        values = [n[name] for s in stories if name in (n := s.record["numbers"] or {})]
        if values:
            yield name.replace("_", " "), say_number(values[0])
            return


def _unless_empty(name: str, value: str) -> Iterator[tuple[str, str]]:
    if value:
        yield name, value


def _state_of(stories: Sequence[Story]) -> str:
    """One word for the whole run."""
    states = {story.state for story in stories}
    order = ("running", "failed", "cancelled", "stopped", "interrupted", "unknown", "waiting")
    return next((state for state in order if state in states), "done")
