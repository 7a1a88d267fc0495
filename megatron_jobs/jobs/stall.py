"""Which rank a stalled job waits for: judged from what every rank was doing at one moment."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from megatron_jobs.jobs.blame import are_few
from megatron_jobs.jobs.stacks import RankState

DEAD = ("gone", "dead", "stopped", "traced", "silent")
"""States of ranks that nobody needs to look at a stack for, the worst first."""
IN_WORDS = {
    "gone": "is gone",
    "dead": "is dead",
    "stopped": "is stopped by a signal",
    "traced": "is stopped by a debugger",
    "silent": "does not answer, nor does its node",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A verdict; RUN/JOB/watch/verdict.json has these fields beside `kind`, `start`, `time`."""

    line: str
    """All of it for people."""
    seconds: float
    rank: int = -1
    """The rank that the others wait for; -1 when none is behind."""
    node: str = ""
    step: int = -1
    what: str = ""
    where: str = ""
    state: str = ""
    """Of its process; see `RankState.state`. Anything but nothing points at the node."""

    def as_record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)


def judge_stall(ranks: Sequence[RankState], seconds: float) -> Stall:
    """The verdict on ranks that have given no sign of life for so many seconds.

    When more nodes are silent than are likely to have failed at once (`jobs.blame`), it is hardly
    the nodes: the judgement is on the others, and says so.
    """
    silent = {rank.node for rank in ranks if rank.state == "silent"}
    nodes = {rank.node for rank in ranks}
    if are_few(len(silent), len(nodes)) and 2 * len(silent) <= len(nodes):
        return _judge(ranks, seconds)
    reached = [rank for rank in ranks if rank.node not in silent]
    unknown = f"the watch reached {len(nodes) - len(silent)} of {len(nodes)} nodes"
    if not reached:
        return Stall(line=f"stalled {seconds:.0f} s: {unknown}", seconds=seconds)
    found = _judge(reached, seconds)
    return replace(found, line=f"{found.line}; {unknown}")


def _judge(ranks: Sequence[RankState], seconds: float) -> Stall:
    guilty = behind(ranks)
    since = f"stalled {seconds:.0f} s"
    if not guilty:
        return Stall(line=f"{since}: no rank is behind: {_all_wait(ranks)}", seconds=seconds)
    first = guilty[0]
    who = f"rank {first.rank} on {first.node}"
    if len(guilty) > 1:
        who += f" (and {len(guilty) - 1} more like it)"
    others = [rank for rank in ranks if rank not in guilty]
    facts = [f"step {first.step}, in {first.what}" if first.step >= 0 else "before its first step"]
    facts += [place] if (place := first.place()) else []
    rest = _others_wait(others)
    line = f"{since}: {who} {_how(first)}: {', '.join(facts)}{'; ' if rest else ''}{rest}"
    return Stall(
        line=line,
        seconds=seconds,
        rank=first.rank,
        node=first.node,
        step=first.step,
        what=first.what,
        where=first.place(),
        state=first.state,
    )


def behind(ranks: Sequence[RankState]) -> list[RankState]:
    """The ranks that keep the others waiting; none when nothing sets any apart.

    First those whose process cannot go on; then, among those of the smallest step, those that do
    not wait for others; then the few that stand elsewhere than the most.
    """
    for state in DEAD:
        if found := [rank for rank in ranks if rank.state == state]:
            return found
    least = min(rank.step for rank in ranks)
    late = [rank for rank in ranks if rank.step == least]
    busy = [rank for rank in late if not rank.waits()]
    for found in (busy, late):
        if found and 2 * len(found) <= len(ranks):
            return found
    return busy if 0 < len(busy) < len(ranks) else _minority(ranks)


def _minority(ranks: Sequence[RankState]) -> list[RankState]:
    """Those at the rarest place, when most are at another."""
    counts = Counter((rank.step, rank.place()) for rank in ranks)
    (common, many), *others = counts.most_common()
    if not others or 2 * many <= len(ranks):
        return []
    return [rank for rank in ranks if (rank.step, rank.place()) != common]


def _how(rank: RankState) -> str:
    if rank.state == "disk":
        return f"is behind, waiting for a disk{f' ({rank.wchan})' if rank.wchan else ''}"
    return IN_WORDS.get(rank.state, "is behind")


def _others_wait(others: list[RankState]) -> str:
    """Where those wait that are not to blame."""
    names = Counter(name for rank in others if (name := rank.waits()))
    if not names:
        return ""
    name, count = names.most_common(1)[0]
    if count == len(others) == 1:
        return f"the other waits in {name}"
    some = f"the other {count}" if count == len(others) else f"{count} of the other {len(others)}"
    return f"{some} wait{'s' if count == 1 else ''} in {name}"


def _all_wait(ranks: Sequence[RankState]) -> str:
    places = Counter((rank.step, rank.waits() or rank.place()) for rank in ranks)
    (step, place), count = places.most_common(1)[0]
    many = f"all {count}" if count == len(ranks) else f"{count} of {len(ranks)}"
    return f"{many} are in {place or 'no known place'} at step {step}"
