"""What each job has cost, and all of them together."""

from collections.abc import Sequence

from megatron_jobs.jobs.costs import Costs
from megatron_jobs.jobs.report.story import Story
from megatron_jobs.jobs.status import all_costs
from megatron_jobs.jobs.words import say_energy, say_hours, say_money, say_name, say_seconds
from megatron_jobs.page.elements import Element, table


def cost_table(stories: Sequence[Story]) -> Element:
    """Only the columns in which something stands."""
    heads = ["job", "#starts", "#waited", "#time", "#CPU-hours", "#GPU-hours", "#energy", "#money"]
    rows = [
        [say_name(s.name), str(len(s.chapters) or ""), _waited([s]), *_cells(s.record["costs"])]
        for s in stories
    ]
    starts = sum(len(story.chapters) for story in stories)
    total = all_costs([story.record for story in stories])
    foot = ["total", str(starts), _waited(stories), *_cells(total)]
    used = [place for place in range(len(heads)) if place < 2 or any(row[place] for row in rows)]
    picked = [[row[place] for place in used] for row in rows]
    return table("Costs", [heads[i] for i in used], picked, foot=[foot[i] for i in used])


def _cells(costs: Costs) -> list[str]:
    time = say_seconds(costs.hours * 3600) if costs.hours else ""
    hours = [say_hours(costs.cpu_hours), say_hours(costs.gpu_hours)]
    return [time, *hours, say_energy(costs.joules, partly=costs.partly), say_money(costs.money)]


def _waited(stories: Sequence[Story]) -> str:
    """For nodes; not for other jobs."""
    starts = [chapter.start for story in stories for chapter in story.chapters]
    seconds = [
        s.began - max(s.eligible or 0, s.submitted) for s in starts if s.submitted is not None
    ]
    return say_seconds(sum(seconds)) if sum(seconds) >= 1 else ""
