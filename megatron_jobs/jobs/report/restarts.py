"""Starts that did not end well, with the reasons; postmortems."""

from collections.abc import Iterator, Sequence

from megatron_jobs.jobs.report.story import Chapter, Story
from megatron_jobs.jobs.starts import short_names
from megatron_jobs.jobs.words import say_name, say_seconds, say_utc
from megatron_jobs.page.elements import Element, join, short, table, tag

MOST = 300
"""Rows of the table: the last ones."""
LONGEST = 6000
"""Characters of a postmortem."""
HEADS = ["job", "#start", "began (UTC)", "#ran", "nodes", "ended", "why, and how it went on"]


def sections(stories: Sequence[Story]) -> Iterator[tuple[str, Element]]:
    """`Restarts and failures` if anything ended before its time, `Postmortems` if there are any."""
    troubled = [
        (story, chapter)
        for story, again in ((story, story.restarts > 0) for story in stories)
        for chapter in story.chapters
        if again or chapter.ending not in ("done", "running")
    ]
    if troubled:
        left = len(troubled) - MOST
        note = [tag("p", f"and {left} earlier starts", class_="muted")] if left > 0 else []
        rows = [_row(story, chapter) for story, chapter in troubled[-MOST:]]
        yield (
            "Restarts and failures",
            join(table("Starts of jobs that were restarted", HEADS, rows, foot=[]), *note),
        )
    found = [story for story in stories if story.folder.postmortem.exists()]
    if found:
        yield "Postmortems", join(*map(_postmortem, found))


def _row(story: Story, chapter: Chapter) -> list[str]:
    start = chapter.start
    return [
        say_name(story.name),
        str(chapter.number),
        tag("span", say_utc(start.began), class_="still"),
        say_seconds(chapter.ended - start.began),
        short(short_names(start.nodes), 60),
        tag("span", chapter.ending, class_=f"badge is-{chapter.ending}"),
        tag("span", short(chapter.why(), 600), class_="wide"),
    ]


def _postmortem(story: Story) -> Element:
    text = story.folder.postmortem.read_text(encoding="utf-8", errors="replace")
    opened = "" if story.state == "failed" else None
    summary = tag("summary", say_name(story.name))
    return tag(
        "details", summary, tag("pre", short(text.strip(), LONGEST), tabindex=0), open=opened
    )
