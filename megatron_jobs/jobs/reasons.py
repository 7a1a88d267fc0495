"""Why a job waits: Slurm's reasons in plain words."""

REASONS = {
    "None": "not looked at yet",
    "AssociationJobLimit": "the account has as many jobs as it may",
    "BadConstraints": "no node fits what was asked for",
    "BeginTime": "put back in the queue, starts again in a moment",
    "Cleaning": "its last start is being cleared away",
    "DependencyNeverSatisfied": "a job that it waits for did not end well",
    "InvalidAccount": "its account is not valid any more",
    "InvalidQOS": "its QOS is not valid any more",
    "JobArrayTaskLimit": "as many of its tasks run as may run at once",
    "JobHoldMaxRequeue": "was requeued as often as Slurm lets it: scontrol release",
    "JobHeldAdmin": "held by an administrator",
    "JobHeldUser": "held by its user: scontrol release",
    "JobLaunchFailure": "could not be launched, probably a bad node",
    "Licenses": "waits for a licence",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs now",
    "PartitionNodeLimit": "asks for more nodes than its partition has",
    "PartitionTimeLimit": "asks for more time than its partition gives",
    "Priority": "other jobs come first",
    "Prolog": "the nodes are being made ready",
    "QOSNotAllowed": "its partition does not take its QOS",
    "REQUEUE_HOLD": "held after a requeue: scontrol release",
    "RESV_DEL_HOLD": "held, its reservation is gone: scontrol release",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Reservation": "waits for its reservation",
    "ReservationDeleted": "its reservation is gone",
    "Resources": "no free nodes",
    "STOPPED": "stands still: it was sent SIGSTOP, and keeps its nodes",
    "SUSPENDED": "stands still: Slurm has suspended it",
    "SystemFailure": "Slurm or a node failed",
    "launch failed requeued held": "held after it could not be launched: scontrol release",
    "job requeued in held state": "held after a requeue: scontrol release",
    "user env retrieval failed requeued held": "held, its user's environment could not be read on "
    "the node: scontrol release",
}
"""Slurm's reasons for waiting (squeue(1), JOB REASON CODES), and states that tell as much -> plain
words."""
LIMITS = {"QOS": "QOS", "Assoc": "account", "Max": "partition"}
"""Beginnings of the many words for limits, such as QOSMaxGRESPerUser -> whose limit."""


def plain_reason(said: str) -> str:
    """A reason of Slurm in plain words; one that is not known as it is.

    What Slurm adds to the word, as in `ReqNodeNotAvail, UnavailableNodes:n1`, stays.
    """
    word, _, rest = said.partition(", ")
    plain = REASONS.get(word) or _limit(word)
    if not plain:
        return said
    nodes = rest.removeprefix("UnavailableNodes:")
    return f"{plain} ({nodes})" if nodes else plain


def _limit(word: str) -> str:
    whose = next((name for start, name in LIMITS.items() if word.startswith(start)), "")
    return f"a limit of the {whose} is reached ({word})" if whose else ""
