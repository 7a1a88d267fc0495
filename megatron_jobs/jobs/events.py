"""events.jsonl: what happened to a job over all its starts. For people, report and restart guard.

Submitting, the batch script's steps and the first node's watch write it: a few lines a start.
"""

import time
from typing import Any

from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.runtime.journal import Journal, read_journal
from megatron_jobs.runtime.rank import read_rank, slurm_job_id

Event = dict[str, Any]
"""time (seconds since 1970), event, slurm_job_id, host, and what the event adds:

submit                                          by a person: what came before is no longer counted
start       restart, nodes (names), reached     the ranks are about to start; headway until then
            slurm_restart                       restarts by Slurm's own count
behind      behind (Slurm ids)                  waits for jobs before it, which go on under new ids
preflight   bad, suspects, notes {node: cause}, verdict before the ranks start; common: checks
            left_out, common, avoid, silent,    that many nodes fail; suspects: one end of a link;
            seconds                             avoid: nodes that another start is not to be given
stall       rank, node, step, where, state, line    no sign of life; see `jobs.stall`
drain       nodes                               are being drained; the ranks are told to stop
lost        why, node                           the start before this one ended without a word
            blameless                           true: the guard does not count that start
stopped     reason                              saved in time
failed      cause, rank, node, decision, why    triage's verdict
again       how, exclude                        goes on: requeue, submit or ahead
            own                                 of the nodes left out, those the job itself found
again       how, successor (Slurm id)           and this job takes its place
stop        why, status                         is not gone on with
end                                             the receipt is written
"""


def note(folder: JobFolder, event: str, **facts: Any) -> Event:
    """Append an event, and return it."""
    record: Event = {"time": time.time(), "event": event, "slurm_job_id": slurm_job_id()}
    record |= {"host": read_rank().node_name} | facts
    with Journal(folder.events) as journal:
        journal.write(record)
    return record


def read_events(folder: JobFolder) -> list[Event]:
    """All events of a job, in order."""
    return read_journal(folder.events)
