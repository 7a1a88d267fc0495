"""How many nodes may be blamed for one thing, before it is hardly the nodes."""

FEW = 2
FEW_SHARE = 0.05


def are_few(count: int, nodes: int) -> bool:
    """Whether so many of a job's nodes may well fail alike by faults of their own.

    Of more it is likelier that the job, the profile, or what all nodes share is at fault; who left
    them all out would wait for ever for others.
    """
    return count <= max(FEW, FEW_SHARE * nodes)
