"""The lines of a start that tell of trouble: the ranks', Slurm's, the watch's, the preflight's."""

import re
import signal
from collections.abc import Iterator
from dataclasses import replace

from megatron_jobs.errors import EXIT_UNFIT
from megatron_jobs.jobs.causes import (
    BATCH_RULES,
    CRASHED,
    EXITED,
    KILLED,
    MEMORY,
    NODE_LOSS,
    PYTHON,
    SETTINGS,
    SIGNALS,
    SIGNALS_BY_NUMBER,
    SILENT_NODE,
    STALL,
    UNFIT,
    Rule,
    Weight,
    lines_of_trouble,
    rule_for,
)
from megatron_jobs.jobs.evidence import Start, Words, last_words, raised_in, rank_words
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.verdict import At, Finding
from megatron_jobs.runtime.files import read_json

TASKS = re.compile(r"srun: error: (?P<node>[^\s:]+): tasks? (?P<tasks>[\d,-]+): (?P<how>.+)")
EXIT = re.compile(r"Exited with exit code (\d+)")
ENDING = re.compile(r"Terminating StepId|Terminating job step|Job step aborted")
"""From here on srun ends tasks itself."""
HOST = re.compile(r"^(?:\[[^\]]*\] ?)*(?P<node>[\w.-]+):\d+:\d+ \[\d+\]")
"""The beginning of NCCL's lines: host:process:thread [GPU]."""
STOPPED = "stopped: by SIG"
LAST = float("inf")
OWN_WORDS = 10**9
"""Place of a rank's last words: after all that it has logged."""


class Findings:
    """All that was found, and who gave a sign of life."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.all: list[Finding] = []
        self.ran = False
        """Whether any rank wrote anything."""
        self.nodes: set[str] = set()
        """Nodes of which a sign of life at the end is known."""
        self._exits: dict[int, At] = {}
        self._exit_lines: dict[int, str] = {}
        """Of ranks that ended with a status before srun ended the others."""

    def collect(self, status: int) -> "Findings":
        """Read everything; a rank's own words stand in place of the signal that ended it."""
        by_words = list(self._of_last_words())
        by_slurm = list(self._of_slurm())
        first = [found.at.rank for found in [*by_words, *by_slurm] if found.at.rank is not None]
        last = {found.at.rank: found for found in by_words}
        by_logs = list(self._of_logs([*first, *self._exits], last))
        spoken = by_words + by_logs
        self.nodes |= {found.at.node for found in spoken}
        stalls = list(_stalls(self.start))
        by_slurm = [_explained(found, spoken, stalls) for found in by_slurm]
        self.all = [*stalls, *_unfit(self.start, status), *by_words, *by_logs, *by_slurm]
        self.all += _told_by_launcher(self.start.folder)
        return self

    def first(self) -> Finding | None:
        """The heaviest, of those the earliest."""
        return min(self.all, key=lambda found: found.order, default=None)

    def _of_slurm(self) -> Iterator[Finding]:
        batch = self.start.batch
        ending = False
        for line in batch.text.splitlines() if batch else []:
            assert batch is not None
            tasks = TASKS.search(line)
            if tasks:
                yield from self._of_tasks(batch, tasks, ending=ending)
            elif ENDING.search(line):
                ending = True
            else:
                yield from _of_slurm_itself(batch, line)

    def _of_tasks(self, batch: Words, tasks: "re.Match[str]", *, ending: bool) -> Iterator[Finding]:
        """How tasks ended. Once srun ends the others, what it says of them is no cause."""
        rank, how = int(re.split("[,-]", tasks["tasks"])[0]), tasks["how"]
        at = At(batch.file, 0.0, rank, tasks["node"])
        self.nodes.add(at.node)
        exited = EXIT.search(how)
        if exited and int(exited[1]) > 128:
            how = SIGNALS_BY_NUMBER.get(int(exited[1]) - 128, how)
        rule = next((rule for word, rule in SIGNALS.items() if how.startswith(word)), None)
        if how.startswith("Out Of Memory"):
            yield Finding(MEMORY, Weight.CAUSE, tasks.group(0), at)
        elif rule is not None:
            weight = Weight.LIKELY if how.startswith("Aborted") else Weight.CAUSE
            found = Finding(rule, weight, tasks.group(0), at)  # NCCL's watchdog aborts as well
            yield _no_cause(found) if ending else found
        elif exited and not ending:
            self._exits[rank], self._exit_lines[rank] = at, tasks.group(0)

    def _of_last_words(self) -> Iterator[Finding]:
        for words in last_words(self.start):
            self.ran = True
            at = At(words.file, words.time, words.rank, self.start.node_of(words.rank))
            raised = raised_in(words.text)
            if raised is None:  # an error for the user, without its traceback
                rule = rule_for(words.text)
                rule = rule if rule and rule.weight == Weight.CAUSE else SETTINGS
                yield Finding(rule, rule.weight, words.text.strip(), at, OWN_WORDS)
                continue
            rule = next(filter(None, map(rule_for, raised.all)), PYTHON)
            yield Finding(rule, rule.weight, raised.words, at, OWN_WORDS, raised.place)

    def _of_logs(self, first: list[int], last: dict[int | None, Finding]) -> Iterator[Finding]:
        """What the logs say beside the last words; it was said before them."""
        for words in rank_words(self.start, first):
            rank = words.rank or 0
            self.ran = self.ran or bool(words.text.strip())
            node = words.node or self.start.node_of(rank)
            time = min(words.time, last[rank].at.time) if rank in last else words.time
            at = At(words.file, time, rank, node)
            if STOPPED in words.text:
                self.nodes.add(node)
            found = list(_in_lines(words.text, at))
            yield from (f for f in found if rank not in last or f.rule is not last[rank].rule)
            if rank in self._exits and rank not in last and not found:
                yield self._of_exit(words, at)

    def _of_exit(self, words: Words, at: At) -> Finding:
        """Of a rank that ended with a status, and left no words on purpose."""
        at = replace(at, node=self._exits[at.rank or 0].node)
        raised = raised_in(words.text)
        if raised is not None:
            return Finding(PYTHON, Weight.CAUSE, raised.words, at, source=raised.place)
        return Finding(EXITED, EXITED.weight, self._exit_lines[at.rank or 0], at)


def _explained(signal: Finding, spoken: list[Finding], stalls: list[Finding]) -> Finding:
    """A rank's end by a signal; the aftermath of a stall, or of what the rank itself has said.

    An abort follows from any trouble, a kill or crash from none that others have brought.
    """
    if signal.rule not in (KILLED, CRASHED):
        return signal
    least = Weight.AFTERMATH if "Aborted" in signal.line else Weight.LIKELY
    own = any(found.at.rank == signal.at.rank and found.weight <= least for found in spoken)
    return _no_cause(signal) if own or stalls else signal


def _no_cause(signal: Finding) -> Finding:
    """The same, behind all else."""
    return replace(signal, weight=Weight.AFTERMATH, at=replace(signal.at, time=LAST))


def _of_slurm_itself(batch: Words, line: str) -> Iterator[Finding]:
    """What Slurm says of nodes and of the whole job."""
    rule = rule_for(line, BATCH_RULES)
    said = rule.pattern.search(line) if rule else None
    if rule is None or said is None:
        return
    time = LAST if rule.weight > Weight.CAUSE else 0.0
    node = said.groupdict().get("node") or ""
    unnamed = rule is NODE_LOSS and not node  # of two lines about a loss the one with a name counts
    yield Finding(rule, rule.weight, line, At(batch.file, time, node=node), place=int(unnamed))


def _in_lines(text: str, at: At) -> Iterator[Finding]:
    """The first line for each kind of trouble."""
    seen: set[str] = set()
    for place, line in lines_of_trouble(text):
        rule: Rule | None = rule_for(line)
        if rule is None or rule.kind in seen:
            continue
        seen.add(rule.kind)
        host = HOST.match(line)
        there = replace(at, node=at.node or (host["node"] if host else ""))
        yield Finding(rule, rule.weight, line, there, place)


def _stalls(start: Start) -> Iterator[Finding]:
    for event in start.events:
        if event["event"] == "stall":
            rank = event["rank"] if event["rank"] >= 0 else None  # -1: none is behind
            rule = SILENT_NODE if event.get("state") == "silent" else STALL
            yield Finding(
                rule, Weight.CAUSE, event["line"], At(None, event["time"], rank, event["node"])
            )


def _unfit(start: Start, status: int) -> Iterator[Finding]:
    """Nodes that failed the preflight, where that ended the start."""
    for event in start.events:
        if event["event"] != "preflight" or status != EXIT_UNFIT:
            continue
        bad = {**event.get("bad", {}), **event.get("suspects", {})}
        if bad:
            line = "; ".join(f"{node}: {cause}" for node, cause in bad.items())
            yield Finding(UNFIT, Weight.CAUSE, line, At(None, event["time"], node=",".join(bad)))


def _told_by_launcher(folder: JobFolder) -> Iterator[Finding]:
    """The signal that ended a rank of a local run."""
    outcome = read_json(folder.outcome) if folder.outcome.exists() else {}
    if not outcome.get("signal"):
        return
    number = int(signal.Signals[outcome["signal"]])
    rule = SIGNALS.get(SIGNALS_BY_NUMBER.get(number, ""), KILLED)
    weight = Weight.LIKELY if number == signal.SIGABRT else Weight.CAUSE
    line = f"rank {outcome['guilty']} was ended by {outcome['signal']}"
    yield Finding(rule, weight, line, At(folder.outcome, 0.0, outcome["guilty"]))
