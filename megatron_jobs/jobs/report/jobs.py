"""What is told of each job by itself: numbers, settings, outputs, versions."""

from collections.abc import Iterator, Sequence
from typing import Any

from megatron_jobs.errors import DataError
from megatron_jobs.jobs.receipt import read_receipt
from megatron_jobs.jobs.report.settings import own_settings
from megatron_jobs.jobs.report.story import Story
from megatron_jobs.jobs.words import say_name, say_number, say_seconds
from megatron_jobs.page.elements import Element, join, short, table, tag

FIRST = 3
"""How many numbers stand beside the name."""
LONGEST = 300
"""Characters of a value."""


def job_cards(stories: Sequence[Story]) -> Element:
    """One card a job, in the order of the plan."""
    return join(*[_card(story, number) for number, story in enumerate(stories)])


def _card(story: Story, number: int) -> Element:
    record = story.record
    badge = tag("span", story.state, class_=f"badge is-{story.state}")
    after = ", ".join(map(say_name, record["after"]))
    words = [record["stage"], f"after {after}" if after else "", record["reason"] or ""]
    said = tag("p", " · ".join(filter(None, words)), class_="muted")
    receipt = _receipt_of(story)
    opened = "" if story.state == "failed" else None
    numbers = list((receipt.get("numbers") or {}).items())[:FIRST]
    said_first = [f"{name.replace('_', ' ')} {say_number(value)}" for name, value in numbers]
    aside = tag("span", " · ".join(said_first), class_="aside")
    summary = tag("summary", tag("span", say_name(story.name), class_="name"), badge, aside)
    return tag("details", summary, said, *_parts(story, receipt), id=f"job-{number}", open=opened)


def _receipt_of(story: Story) -> dict[str, Any]:
    try:
        return read_receipt(story.folder) or {}
    except DataError:  # the reason of its state says so
        return {}


def _parts(story: Story, receipt: dict[str, Any]) -> Iterator[Element]:
    numbers = receipt.get("numbers") or {}
    if numbers:
        items = [(name.replace("_", " "), say_number(value)) for name, value in numbers.items()]
        yield tag("h4", "Numbers")
        yield tag("dl", *[tag("div", tag("dt", n), tag("dd", v)) for n, v in items], class_="few")
    settings = own_settings(story.folder)
    if settings:
        rows = [[name, short(value, LONGEST)] for name, value in settings]
        yield tag("h4", "Settings that are not the default")
        yield table(f"Settings of {story.name}", ["setting", "value"], rows, foot=[])
    yield from _outputs(story, receipt)
    yield from _facts(story, receipt)


def _outputs(story: Story, receipt: dict[str, Any]) -> Iterator[Element]:
    outputs = receipt.get("outputs") or {}
    if outputs:
        rows = [[name, _bytes(o["bytes"]), o["sha256"][:16]] for name, o in outputs.items()]
        yield tag("h4", "Outputs")
        yield table(f"Outputs of {story.name}", ["name", "#size", "sha256 begins"], rows, foot=[])


def _facts(story: Story, receipt: dict[str, Any]) -> Iterator[Element]:
    """Where it ran, and with which versions."""
    facts = {"Slurm ids": ", ".join(story.record["slurm_ids"])}
    if receipt:
        facts |= {"host": receipt["host"], "ranks": str(receipt["ranks"])}
        facts |= {"time": say_seconds(receipt["seconds"]), "key": receipt["key"][:16]}
        facts["versions"] = ", ".join(f"{n} {v}" for n, v in receipt["versions"].items())
    found = [f"{name} {value}" for name, value in facts.items() if value]
    if found:
        yield tag("p", " · ".join(found), class_="muted small")


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment] # a float from here on
    return f"{count:.1f} TB"
