"""What a plan is to Slurm: which batch jobs there are, and which of them wait for which.

A job is one batch job, or with tasks some arrays and after them one that gathers. Where the nodes
cannot put a job back in the queue (`again: ahead`) each is a chain: successors wait behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from megatron_jobs.jobs.executor import Submission
from megatron_jobs.jobs.plan import Job
from megatron_jobs.jobs.tasks import deal_out


@dataclass(frozen=True, slots=True)
class Work:
    """The batch jobs of one job of a plan, without what they wait for."""

    job: Job
    drafts: list[Submission]
    """The arrays if it has tasks, and last the job itself."""

    def kinds(self) -> list[Submission]:
        """One of each kind: they ask Slurm for the same."""
        return [*self.drafts[:-1][:1], self.drafts[-1]]

    def with_code(self, code: Path) -> "Work":
        """The same, run with the package that stands in `code`."""
        return replace(self, drafts=[replace(draft, code=code) for draft in self.drafts])


def work_of(draft: Submission, tasks: Sequence[int]) -> Work:
    """What has to be submitted for a job, of its tasks only those listed."""
    job, cluster = draft.job, draft.cluster
    if not job.gathers:
        return Work(job, [draft])
    parts = deal_out(tasks, size=cluster.max_array_size, at_once=job.resources.tasks_at_once)
    arrays = [replace(draft, part=part, place=place) for place, part in enumerate(parts)]
    asked = job.asked.model_copy(update={"tasks": job.resources.tasks})
    gather = replace(draft, job=replace(job, resources=asked), place=len(arrays))
    return Work(job, [*arrays, gather])


def submit_works(
    works: Sequence[Work],
    submit: Callable[[Submission], str],
    made: list[str],
) -> dict[str, str]:
    """Submit all, each with the ids of those that it waits for; the id of each job.

    Args:
        works: in the plan's order.
        submit: gives the id.
        made: every id is added to it as soon as it is known.
    """
    last: dict[str, str] = {}
    first: dict[str, str] = {}
    for work in works:
        # of a chain the last: the work may be done in any of its jobs
        before = tuple(last[name] for name in work.job.after if name in last)
        ends: list[str] = []
        for draft in work.drafts:
            ids = _submit_chain(_linked(draft, before, ends), submit, made)
            ends.append(ids[-1])
        first[work.job.name], last[work.job.name] = ids[0], ids[-1]
    return first


def _linked(draft: Submission, before: tuple[str, ...], arrays: list[str]) -> Submission:
    """With what it waits for: an array for jobs before it, the gather for all arrays."""
    if draft.part is None:
        return replace(draft, after=tuple(arrays) or before)
    behind = arrays[draft.part.after] if draft.part.after >= 0 else ""
    return replace(draft, after=before, behind=behind)


def _submit_chain(
    submission: Submission, submit: Callable[[Submission], str], made: list[str]
) -> list[str]:
    """Ids of a batch job and the successors that are to take it up."""
    ids = [submit(submission)]
    made += ids
    if submission.cluster.again == "ahead":
        for number in range(1, submission.cluster.successors + 1):
            ids.append(submit(replace(submission, behind=ids[-1], successor=number)))
            made.append(ids[-1])
    return ids
