"""What happens after a start of a job under Slurm: done, stopped for good, or once more.

`settle` writes its decision to RUN/JOB/next, one line that the batch script acts on:

end 0            the receipt is written
stop STATUS      it is not gone on with; the Slurm job ends with this status
again NODES      it goes on, without these nodes and those that the profile leaves out (names with
                 commas between, the oldest first, may be empty)
behind ID:ID     it waits for these Slurm jobs under a new id
"""

import signal
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from megatron_jobs.errors import EXIT_BUG, EXIT_DONE, EXIT_STOPPED, EXIT_UNFIT
from megatron_jobs.jobs.again import (
    ended_silently,
    excluded,
    moved_on,
    own_exclusions,
    superseded,
    verdict_before,
    why_not,
)
from megatron_jobs.jobs.causes import (
    BATCH_RULES,
    NODE_LOSS,
    PREEMPTED,
    PUT_BACK,
    TIME_LIMIT,
    rule_for,
)
from megatron_jobs.jobs.cluster import Cluster, cluster_of
from megatron_jobs.jobs.events import note
from megatron_jobs.jobs.evidence import last_start
from megatron_jobs.jobs.folder import JobFolder, append_slurm_id
from megatron_jobs.jobs.notify import News, tell
from megatron_jobs.jobs.plan import Job
from megatron_jobs.jobs.preflight import unfit_nodes
from megatron_jobs.jobs.triage import judge, strike_nodes, write_postmortem
from megatron_jobs.runtime.files import write_text
from megatron_jobs.runtime.rank import slurm_job_id

WARNED_EARLY = 128 + signal.SIGUSR2
"""srun's status when the warning came before a rank could take it: nothing had begun."""
OVER_TIME = 124
"""Of the batch script: the time limit came before the ranks had saved and left."""
REASONS = {
    EXIT_STOPPED: "told to stop, saved in time",
    WARNED_EARLY: "told to stop before its ranks had begun",
    OVER_TIME: "its time limit came before it had saved; a longer signal_seconds gives it time",
}
BLAMELESS = (NODE_LOSS, PREEMPTED, PUT_BACK)
"""Ends that say nothing of the job: the guard does not count such starts."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, and what people are told of it."""

    line: str
    """Of RUN/JOB/next."""
    news: News | None = None
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def settle_before(job: Job) -> str:
    """The decision that no rank is to start now, as a line of RUN/JOB/next; or nothing."""
    folder = job.folder
    if folder.receipt.exists():  # it holds, or it is of other settings and the work begins anew
        return ""
    if ended_silently(folder):
        _note_silent_end(folder)
    ids = moved_on(job)
    if ids:
        note(folder, "behind", behind=ids)
        return _decided(folder, Decision(f"behind {':'.join(ids)}"))
    verdict = verdict_before(folder)
    if verdict:
        return _decided(folder, Decision(verdict))
    why = _why_not(folder, _cluster(folder))
    return _decided(folder, _stop(folder, EXIT_STOPPED, why)) if why else ""


def _note_silent_end(folder: JobFolder) -> None:
    """Note why, as far as Slurm said so in the batch script's log; of a lost node, a postmortem."""
    batch = last_start(folder).batch
    lines = batch.text.splitlines() if batch else []
    rule = next(filter(None, (rule_for(line, BATCH_RULES) for line in lines)), None)
    blameless = rule in BLAMELESS
    if rule is NODE_LOSS:
        verdict = judge(folder, status=EXIT_BUG)
        write_postmortem(folder, verdict)
        note(folder, "lost", why=verdict.sentence, node=verdict.node, blameless=blameless)
    elif folder.stopped.exists():
        note(folder, "lost", why="Slurm ended it, it had saved in time", blameless=blameless)
    else:
        why = (
            REASONS[OVER_TIME] if rule is TIME_LIMIT else rule.why if rule else "nobody left a word"
        )
        note(folder, "lost", why=why, blameless=blameless)


def settle(folder: JobFolder, status: int) -> str:
    """Judge how a start ended; the line of RUN/JOB/next, or nothing: it is not ours to judge.

    Args:
        status: exit status of the step that ended it: 0, EXIT_STOPPED, EXIT_UNFIT or a failure's.
    """
    if is_superseded(folder):
        return ""
    return _decided(folder, _judge(folder, status))


def is_superseded(folder: JobFolder) -> bool:
    """Whether the job has been started anew since this start, which then must not act; says so."""
    found = superseded(folder)
    if found:
        print("the job was started anew since: this start ends without a word", flush=True)
    return found


def note_successor(folder: JobFolder, slurm_id: str) -> None:
    """Note the Slurm job that takes the place of this one."""
    if folder.task is None:
        append_slurm_id(folder, slurm_id)
    else:
        folder.note_moved(slurm_id, int(slurm_job_id().partition("_")[2]))
    note(folder, "again", how="submit", successor=slurm_id)


def note_stuck(folder: JobFolder) -> None:
    """Note that no job could be submitted from the node."""
    why = "neither scontrol nor sbatch on the node could put it back in the queue"
    cure = "submit it again to go on, or set `again: ahead`"
    _tell(folder, _stop(folder, EXIT_STOPPED, f"{why}; {cure}"))


def _judge(folder: JobFolder, status: int) -> Decision:
    if status == EXIT_DONE:
        note(folder, "end")
        return Decision("end 0", "end", "done")
    if status in REASONS:
        note(folder, "stopped", reason=REASONS[status])
        return _again(folder, EXIT_STOPPED, REASONS[status])
    if status == EXIT_UNFIT:
        return _again(folder, status, "too few good nodes", unfit_nodes(folder))
    return _judge_failure(folder, status)


def _judge_failure(folder: JobFolder, status: int) -> Decision:
    """Find the cause, tell it, and do what it asks for if nothing else speaks against that."""
    verdict = judge(folder, status=status)
    strike_nodes(folder, verdict)
    against = _why_not_again(folder, _cluster(folder)) if verdict.decision != "stop" else ""
    if against:
        verdict = replace(verdict, decision="stop", why=against)
    write_postmortem(folder, verdict)
    note(folder, "failed", **verdict.facts())
    if verdict.decision == "stop":
        return _stop(folder, status, f"{verdict.sentence}; {verdict.why}")
    nodes = verdict.node.split(",") if verdict.decision == "exclude" else ()
    return _go_on(folder, verdict.sentence, nodes)


def _again(folder: JobFolder, status: int, why: str, nodes: Iterable[str] = ()) -> Decision:
    """Go on without `nodes`, if nothing speaks against it."""
    against = _why_not_again(folder, _cluster(folder))
    return _stop(folder, status, against) if against else _go_on(folder, why, nodes)


def _go_on(folder: JobFolder, why: str, nodes: Iterable[str] = ()) -> Decision:
    """Go on without `nodes`."""
    cluster, bad = _cluster(folder), list(nodes)
    left_out, own = excluded(folder, cluster, bad), own_exclusions(cluster, bad)
    note(folder, "again", how=cluster.again, exclude=left_out, own=own)
    text = f"goes on after it ended: {why}"
    return Decision(f"again {','.join(left_out)}", "requeue", text, {"reason": why})


def _why_not(folder: JobFolder, cluster: Cluster) -> str:
    if folder.kill_switch.exists():
        return f"{folder.kill_switch} is there: remove it and submit the job again to go on"
    return why_not(folder, cluster)


def _why_not_again(folder: JobFolder, cluster: Cluster) -> str:
    """Why a start is not to be followed by another."""
    if cluster.again == "ahead" and slurm_job_id() == folder.slurm_ids()[-1]:
        text = f"the last of {cluster.successors} successors has come to its end"
        return f"{text}: submit the job again to go on"
    return _why_not(folder, cluster)


def _stop(folder: JobFolder, status: int, why: str) -> Decision:
    print(why, flush=True)
    note(folder, "stop", why=why, status=status)
    news: News = "end" if folder.kill_switch.exists() else "fail"  # somebody wanted it
    return Decision(f"stop {status}", news, f"stopped: {why}", {"reason": why})


def _cluster(folder: JobFolder) -> Cluster:
    cluster = cluster_of(folder)
    assert cluster is not None, f"{folder.cluster}: a batch script runs, but no profile is there"
    return cluster


def _decided(folder: JobFolder, decision: Decision) -> str:
    """Write it down, and only then tell it: the script waits for the file."""
    write_text(folder.next, decision.line + "\n")
    _tell(folder, decision)
    return decision.line


def _tell(folder: JobFolder, decision: Decision) -> None:
    if decision.news:
        tell(folder, decision.news, decision.text, **decision.facts)
