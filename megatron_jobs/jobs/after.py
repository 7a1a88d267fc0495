"""What happens after a start of a job under Slurm: done, stopped for good, or once more.

`settle` writes its decision to RUN/JOB/next, one line that the batch script acts on:

end 0            the receipt is written
stop STATUS      it is not gone on with; the Slurm job ends with this status
again NODES      it goes on, without these nodes (names with commas between, may be empty)
behind ID:ID     it waits for these Slurm jobs under a new id
"""

import signal
from collections.abc import Iterable
from dataclasses import replace

from megatron_jobs.errors import EXIT_BUG, EXIT_DONE, EXIT_STOPPED, EXIT_UNFIT
from megatron_jobs.jobs.again import (
    ended_silently,
    excluded,
    moved_on,
    verdict_before,
    why_not,
)
from megatron_jobs.jobs.causes import BATCH_RULES, NODE_LOSS, rule_for
from megatron_jobs.jobs.cluster import Cluster, cluster_of
from megatron_jobs.jobs.events import note
from megatron_jobs.jobs.evidence import last_start
from megatron_jobs.jobs.folder import JobFolder, append_slurm_id
from megatron_jobs.jobs.notify import tell
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
        return _decided(folder, f"behind {':'.join(ids)}")
    verdict = verdict_before(folder)
    if verdict:
        return _decided(folder, verdict)
    why = _why_not(folder, _cluster(folder))
    return _decided(folder, _stop(folder, EXIT_STOPPED, why)) if why else ""


def _note_silent_end(folder: JobFolder) -> None:
    """Note why, as far as Slurm said so in the batch script's log; of a lost node, a postmortem."""
    batch = last_start(folder).batch
    lines = batch.text.splitlines() if batch else []
    rule = next(filter(None, (rule_for(line, BATCH_RULES) for line in lines)), None)
    if rule is NODE_LOSS:
        verdict = judge(folder, status=EXIT_BUG)
        write_postmortem(folder, verdict)
        note(folder, "lost", why=verdict.sentence, node=verdict.node)
    elif folder.stopped.exists():
        note(folder, "lost", why="Slurm ended it, it had saved in time")
    else:
        note(folder, "lost", why=rule.why if rule else "nobody left a word")


def settle(folder: JobFolder, status: int) -> str:
    """Judge how a start ended; the line of RUN/JOB/next.

    Args:
        status: exit status of the step that ended it: 0, EXIT_STOPPED, EXIT_UNFIT or a failure's.
    """
    return _decided(folder, _judge(folder, status))


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
    _stop(folder, EXIT_STOPPED, f"{why}; submit it again to go on, or set `again: ahead`")


def _judge(folder: JobFolder, status: int) -> str:
    if status == EXIT_DONE:
        note(folder, "end")
        tell(folder, "end", "done")
        return "end 0"
    if status in REASONS:
        note(folder, "stopped", reason=REASONS[status])
        return _again(folder, EXIT_STOPPED, REASONS[status])
    if status == EXIT_UNFIT:
        return _again(folder, status, "too few good nodes", unfit_nodes(folder))
    return _judge_failure(folder, status)


def _judge_failure(folder: JobFolder, status: int) -> str:
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


def _again(folder: JobFolder, status: int, why: str, nodes: Iterable[str] = ()) -> str:
    """Go on without `nodes`, if nothing speaks against it."""
    against = _why_not_again(folder, _cluster(folder))
    return _stop(folder, status, against) if against else _go_on(folder, why, nodes)


def _go_on(folder: JobFolder, why: str, nodes: Iterable[str] = ()) -> str:
    """Go on without `nodes`."""
    cluster = _cluster(folder)
    left_out = excluded(folder, cluster, nodes)
    note(folder, "again", how=cluster.again, exclude=left_out)
    tell(folder, "requeue", f"goes on after it ended: {why}", reason=why)
    return f"again {','.join(left_out)}"


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


def _stop(folder: JobFolder, status: int, why: str) -> str:
    print(why, flush=True)
    note(folder, "stop", why=why, status=status)
    tell(folder, "fail", f"stopped: {why}", reason=why)
    return f"stop {status}"


def _cluster(folder: JobFolder) -> Cluster:
    cluster = cluster_of(folder)
    assert cluster is not None, f"{folder.cluster}: a batch script runs, but no profile is there"
    return cluster


def _decided(folder: JobFolder, line: str) -> str:
    write_text(folder.next, line + "\n")
    return line
