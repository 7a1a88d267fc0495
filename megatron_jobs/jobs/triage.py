"""Why a start of a job failed: the first real cause over all ranks, and what follows from it.

One failure makes hundreds of ranks cry out. Each line is weighed by the table in `jobs.causes`:
lost connections and time-outs only follow from something, and are never the cause beside anything
else. Of causes the earliest counts, by the time of a rank's last words and by what srun said first.
"""

import re
from collections import defaultdict
from dataclasses import replace

from megatron_jobs.errors import EXIT_USER
from megatron_jobs.jobs.causes import (
    CRASHED,
    GPU_FAULT,
    KILLED,
    NETWORKED,
    NO_GPU,
    NOT_STARTED,
    PYTHON,
    SETTINGS,
    SILENT,
    UNFIT,
    VANISHED,
    Decision,
    Weight,
)
from megatron_jobs.jobs.cluster import cluster_of
from megatron_jobs.jobs.events import Event
from megatron_jobs.jobs.evidence import Start, last_start, raised_in
from megatron_jobs.jobs.findings import LAST, Findings
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.postmortem import write_postmortem
from megatron_jobs.jobs.strikes import strike
from megatron_jobs.jobs.verdict import At, Finding, Verdict, shortened

__all__ = ["Verdict", "judge", "write_postmortem"]

MOST_QUOTES = 3
SPEAKER = re.compile(r"^(srun: error: \S+: tasks? [\d,-]+: |(srun|slurmstepd[^:]*): error: )")
"""Before Slurm's words; who is meant stands beside them anyway."""


def judge(folder: JobFolder, *, status: int) -> Verdict:
    """The first real cause of the last start's end, and what is to be done.

    Args:
        status: exit status of the step that ended the start.
    """
    start = last_start(folder)
    findings = Findings(start).collect(status)
    first = findings.first()
    if first is None or first.rule.kind in NETWORKED:
        first = _vanished(start, findings) or first
    if first is None:
        first = _without_words(start, status, ran=findings.ran)
    if first.rule.kind == GPU_FAULT and start.gpus == 0:
        first = replace(first, rule=NO_GPU)
    decision, why = _decide(start, first)
    found = first.at.time if 0 < first.at.time < LAST else 0.0
    source = f" ({first.source})" if first.source else ""
    return Verdict(
        cause=shortened(SPEAKER.sub("", first.line)) + source,
        kind=first.rule.kind,
        rank=first.at.rank,
        node=first.at.node,
        decision=decision,
        why=why,
        cure=first.rule.cure if decision == "stop" else "",
        source=first.source,
        time=found or (start.batch.time if start.batch else 0.0),
        quotes=_quotes(first, findings.all),
        aftermath=_aftermath(first, findings.all),
    )


def _vanished(start: Start, findings: Findings) -> Finding | None:
    """The one node of which no rank left a word, where those of all others did."""
    silent = [node for node in start.nodes if node not in findings.nodes]
    if len(start.nodes) < 2 or len(silent) != 1:
        return None
    line = f"no rank of {silent[0]} left a word, those of all other nodes did"
    return Finding(VANISHED, Weight.CAUSE, line, At(node=silent[0]))


def _without_words(start: Start, status: int, *, ran: bool) -> Finding:
    """The best that can be said where no rule fits anything."""
    batch = start.batch
    if batch is None:
        return Finding(SILENT if ran else NOT_STARTED, Weight.LIKELY, f"status {status}, no log")
    at = At(batch.file, batch.time)
    raised = raised_in(batch.text)
    if raised is not None:
        return Finding(PYTHON, Weight.CAUSE, raised.words, at, source=raised.place)
    lines = [line for line in batch.text.splitlines() if line.strip()]
    rule = SETTINGS if status == EXIT_USER else SILENT if ran else NOT_STARTED
    return Finding(rule, Weight.LIKELY, lines[-1] if lines else f"status {status}", at)


def _quotes(first: Finding, findings: list[Finding]) -> tuple[tuple[str, str], ...]:
    """(file, line) of the cause, and of what else its rank said."""
    beside = [f for f in findings if f.at.rank == first.at.rank and f.weight < Weight.AFTERMATH]
    chosen = [first, *sorted(beside, key=lambda finding: finding.order)]
    quotes = [(f.at.file.name, shortened(f.line)) for f in chosen if f.at.file]
    return tuple(dict.fromkeys(quotes))[:MOST_QUOTES]


def _aftermath(first: Finding, findings: list[Finding]) -> dict[str, int]:
    """Kind of trouble -> how many other ranks showed it."""
    ranks = defaultdict[str, set[int | None]](set)
    for finding in findings:
        if finding.at.rank != first.at.rank:
            ranks[finding.rule.kind].add(finding.at.rank)
    return {kind: len(found) for kind, found in ranks.items()}


def _decide(start: Start, first: Finding) -> tuple[Decision, str]:
    """The rule's decision, unless the same has happened at the start before."""
    rule, before = first.rule, _failed_before(start)
    if before.get("kind") == rule.kind:
        if rule.again and _same_node(before, first):
            return rule.again, f"it failed so on {first.at.node} twice in a row"
        same_place = first.source and before.get("source") == first.source
        if rule.decision == "requeue" and same_place and first.weight == Weight.CAUSE:
            return "stop", f"the same error at the same place, {first.source}, twice in a row"
    if rule.decision == "exclude" and not first.at.node:
        return "requeue", f"{rule.why}, but which node is not known"
    return rule.decision, rule.why


def _same_node(before: Event, first: Finding) -> bool:
    same_rank = before.get("rank") == first.at.rank or first.rule not in (KILLED, CRASHED)
    return bool(first.at.node) and before.get("node") == first.at.node and same_rank


def _failed_before(start: Start) -> Event:
    """How the start before this one failed; empty when it did not, or a person came between."""
    for event in reversed(start.before):
        if event["event"] == "failed":
            return event
        if event["event"] in ("start", "submit"):
            return {}
    return {}


def strike_nodes(folder: JobFolder, verdict: Verdict) -> None:
    """Put nodes at fault on the team's list of strikes; the preflight has done so for its own."""
    cluster = cluster_of(folder)
    if verdict.decision != "exclude" or cluster is None or verdict.kind == UNFIT.kind:
        return
    for node in verdict.node.split(","):
        strike(cluster, node, f"{verdict.kind}: {verdict.cause}", folder)
