"""Which nodes of a Slurm job are fit: judges what they left in RUN/JOB/preflight.

began, ended     attempt and time on the first node, before and after the nodes' checks
NODE.json        by slurm/node_check.sh; `said` holds those of nodes that cannot write there
pairs/NODE.json  by parallel/pairs.py

What more than a few nodes fail alike (`jobs.blame`) is `common`: what the job asks for, what the
profile says, or a file system that is slow for all. Another start does not avoid them for it. A
node that failed goes on the strike list only if it is surely the node: not for what is common or
most others fail, not when a link failed and either end may be at fault, not for being silent once.
"""

import contextlib
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.errors import EXIT_DONE, EXIT_UNFIT
from megatron_jobs.jobs.blame import are_few
from megatron_jobs.jobs.cluster import Cluster, cluster_of
from megatron_jobs.jobs.events import note, read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.starts import node_names
from megatron_jobs.jobs.strikes import strike, struck
from megatron_jobs.runtime.rank import slurm_nodes

SLOW = {"nccl": 0.7, "gloo": 0.25}
"""A node whose best link has less than this part of the median is named as slow. Loose on the CPU,
where the time is also that of whatever else runs."""
PAIRS = "pairs"
SILENT = "silent"
LINKS = "links"
CHECK_PART = 3
"""What part of `preflight.seconds` batch.sh gives to node_check.sh; and of the rest it keeps..."""
KEPT_SECONDS = 3
NOT_ITS_OWN = frozenset({"run folder"})
"""Checks in which a node that is alone in its job proves nothing against itself."""

Answer = dict[str, Any]


@dataclass(slots=True)
class Verdict:
    """What is held of one node."""

    faults: dict[str, str] = field(default_factory=dict)
    """Check -> cause; the first is the one that is told."""
    suspect: str = ""
    """A link failed, and this end of it may be the one at fault."""
    notes: list[str] = field(default_factory=list)
    """What makes it a spare rather than others: slow, not proven, on the strike list."""

    @property
    def checks(self) -> set[str]:
        """What it failed."""
        return {*self.faults, *([LINKS] if self.suspect else [])}

    @property
    def cause(self) -> str:
        """Why no rank is to start there, or nothing."""
        return next(iter(self.faults.values()), self.suspect)


@dataclass(frozen=True, slots=True)
class Fitness:
    """The verdict on a job's nodes; each mapping is from node to cause."""

    bad: dict[str, str]
    """They failed."""
    suspects: dict[str, str]
    """They are left out though the fault may be another's."""
    notes: dict[str, str]
    """Of good nodes, what speaks against them all the same."""
    common: str
    """Checks that many nodes fail alike: then it is hardly the nodes."""
    avoid: list[str]
    """Nodes that another start is not to be given: those that fail what is not common."""
    silent: list[str]
    """Bad nodes of which nothing is known but that they did not answer."""
    strikes: dict[str, str]
    """What goes on the strike list."""
    left_out: list[str]
    """Nodes on which no rank is to start: these, and the spares that are not needed."""
    used: int
    wanted: int

    @property
    def enough(self) -> bool:
        return self.used == self.wanted


def check_words(cluster: Cluster, asked: Resources) -> list[str]:
    """What node_check.sh is told of the job and the profile."""
    settings = cluster.preflight
    words = {
        "seconds": settings.seconds // 4,  # before batch.sh ends the whole check, at a third
        "gpus": asked.gpus,
        "gpu_celsius": settings.gpu_celsius,
        "memory_gb": asked.memory_gb,
        "scratch": cluster.scratch,
        "disk_gb": settings.disk_gb,
        "fabric": cluster.fabric,
    }
    return [f"{name}={value}" for name, value in words.items()] + [
        f"line={line}" for line in settings.lines
    ]


def fit(folder: JobFolder, wanted: int) -> int:
    """Judge, note and strike; prints for srun the nodes to leave out, commas between.

    Args:
        wanted: how many nodes the ranks need.
    Returns: EXIT_DONE, or EXIT_UNFIT when too few nodes are left.
    """
    cluster = cluster_of(folder)
    assert cluster is not None, f"{folder.cluster}: a batch script runs, but no profile is there"
    found = judge_nodes(folder, cluster, node_names(slurm_nodes()), wanted)
    told: dict[str, Any] = {"bad": found.bad, "suspects": found.suspects, "notes": found.notes}
    told |= {"common": found.common, "avoid": found.avoid, "silent": found.silent}
    seconds = round(time.time() - _times(folder).began, 1)
    note(folder, "preflight", **told, left_out=found.left_out, seconds=seconds)
    for node, cause in found.strikes.items():
        strike(cluster, node, f"preflight: {cause}", folder)
    print("\n".join(in_words(found)), file=sys.stderr, flush=True)
    print(",".join(found.left_out), flush=True)
    return EXIT_DONE if found.enough else EXIT_UNFIT


def unfit_nodes(folder: JobFolder) -> list[str]:
    """The nodes that another start avoids, by the last preflight."""
    last = next((e for e in reversed(read_events(folder)) if e["event"] == "preflight"), None)
    return [] if last is None else list(last.get("avoid", ()))


def _silent_before(folder: JobFolder) -> set[str]:
    """Nodes that did not answer in an earlier preflight of this job."""
    flights = (event for event in read_events(folder) if event["event"] == "preflight")
    return {node for event in flights for node in event.get("silent", ())}


def judge_nodes(folder: JobFolder, cluster: Cluster, nodes: Sequence[str], wanted: int) -> Fitness:
    """Judge each of a job's nodes, and choose those that its ranks start on.

    Args:
        nodes: all that Slurm gave to the job, in its order.
        wanted: how many its ranks need.
    """
    verdicts = {node: Verdict() for node in nodes}
    times = _times(folder)
    if cluster.preflight.nodes:
        answers = _answers(folder.preflight, times.attempt)
        judge_answers(verdicts, answers, cluster, (times.began, times.ended))
    if cluster.preflight.links and len(nodes) > 1:
        trials = _answers(folder.preflight / PAIRS, times.attempt)
        left = cluster.preflight.seconds - (times.ended - times.began) - KEPT_SECONDS
        judge_links(verdicts, trials, left)
    for node, cause in struck(cluster).items():
        if node in verdicts:
            verdicts[node].notes.append(f"is on the strike list: {cause}")
    return choose(verdicts, wanted, silent_before=_silent_before(folder))


def judge_answers(
    verdicts: Mapping[str, Verdict],
    answers: Mapping[str, Answer],
    cluster: Cluster,
    between: tuple[float, float],
) -> None:
    """Add to each verdict the faults that the node's own check found, or that it is silent.

    Args:
        between: times on the first node before and after all checks: a node's clock is surely
            wrong when it lies outside, however long its start took.
    """
    settings = cluster.preflight
    earliest, latest = between[0] - settings.clock_seconds, between[1] + settings.clock_seconds
    rates = Counter(answer["facts"].get("fabric_gbps", 0) for answer in answers.values())
    usual = max(rates, key=lambda rate: (rates[rate], rate), default=0)
    for node, verdict in verdicts.items():
        if node not in answers:
            verdict.faults[SILENT] = f"did not answer within {settings.seconds // CHECK_PART} s"
            continue
        answer = answers[node]
        for fault in answer["faults"]:
            verdict.faults.setdefault(fault["check"], fault["cause"])
        off = max(earliest - answer["time"], answer["time"] - latest)
        if off > 0:
            off += settings.clock_seconds
            limit = f"{settings.clock_seconds:g} s are allowed"
            verdict.faults["clock"] = f"its clock is {off:.0f} s off the first node's, {limit}"
        gbps = answer["facts"].get("fabric_gbps", 0)
        if gbps < usual:
            usually = f"most nodes of the job have {usual:g}"
            verdict.faults.setdefault("fabric", f"its ports give {gbps:g} Gb/s, {usually}")


def judge_links(
    verdicts: Mapping[str, Verdict], trials: Mapping[str, Answer], seconds: float
) -> None:
    """Add what the trials in pairs say: a node is bad that fails with one that is proven good.

    Trials that one end came too late for prove nothing.

    Args:
        seconds: how long nodes had for it.
    """
    proven = {node for node, answer in trials.items() if any(t["good"] for t in answer["trials"])}
    partners = _partners(trials)
    for node, verdict in verdicts.items():
        if node not in trials:
            verdict.faults.setdefault(SILENT, f"did not answer within {seconds:.0f} s")
        elif trials[node].get("alone"):
            verdict.faults["alone"] = f"cannot reduce even with itself: {trials[node]['alone']}"
        elif node not in proven and proven & partners[node]:
            verdict.faults[LINKS] = _failures(trials[node], partners[node])
    for node, verdict in verdicts.items():
        if node in trials and node not in proven and not verdict.faults:
            if not partners[node]:
                verdict.notes.append("its links are not proven: there was no time left for them")
            elif all(verdicts[partner].faults for partner in partners[node]):
                verdict.notes.append("its links are not proven: all it was tried with are bad")
            else:
                failures = _failures(trials[node], partners[node])
                verdict.suspect = f"{failures}; either end may be at fault"
    _name_slow(verdicts, trials)


def _partners(trials: Mapping[str, Answer]) -> dict[str, set[str]]:
    """With whom each node was tried in time."""
    late = {
        frozenset((node, trial["partner"]))
        for node, answer in trials.items()
        for trial in answer["trials"]
        if trial.get("late")
    }
    return {
        node: {t["partner"] for t in answer["trials"] if {node, t["partner"]} not in late}
        for node, answer in trials.items()
    }


def _failures(answer: Answer, partners: set[str]) -> str:
    in_time = (trial for trial in answer["trials"] if trial["partner"] in partners)
    trials = (f"{trial['partner']} ({trial['cause']})" for trial in in_time)
    return f"cannot reduce with {' nor '.join(trials)}"


def _name_slow(verdicts: Mapping[str, Verdict], trials: Mapping[str, Answer]) -> None:
    best = {
        node: max((trial["gbps"] for trial in answer["trials"]), default=0)
        for node, answer in trials.items()
    }
    usual = statistics.median(best.values()) if best else 0
    for node, gbps in best.items():
        if node in verdicts and 0 < gbps < SLOW[trials[node]["over"]] * usual:
            verdicts[node].notes.append(f"slow: {gbps:.1f} Gb/s, the median is {usual:.1f}")


def choose(
    verdicts: Mapping[str, Verdict], wanted: int, *, silent_before: Set[str] = frozenset()
) -> Fitness:
    """Take the nodes with the least against them, in Slurm's order; the others are left out.

    Args:
        silent_before: nodes that another start of the job found silent.
    """
    good = [node for node, verdict in verdicts.items() if not verdict.cause]
    good.sort(key=lambda node: len(verdicts[node].notes))
    used = set(good[:wanted])
    bad = {node: verdict.cause for node, verdict in verdicts.items() if verdict.faults}
    common = _common(verdicts)
    return Fitness(
        bad=bad,
        suspects={n: v.suspect for n, v in verdicts.items() if v.suspect and not v.faults},
        notes={node: "; ".join(verdicts[node].notes) for node in good if verdicts[node].notes},
        common=", ".join(sorted(common)),
        avoid=[node for node, verdict in verdicts.items() if verdict.checks - common],
        silent=[node for node, verdict in verdicts.items() if verdict.checks == {SILENT}],
        strikes={node: bad[node] for node in _blamed(verdicts, common, silent_before)},
        left_out=[node for node in verdicts if node not in used],
        used=len(used),
        wanted=wanted,
    )


def _common(verdicts: Mapping[str, Verdict]) -> set[str]:
    """The checks that so many nodes fail, or all, that it is hardly the nodes."""
    failed = Counter(check for verdict in verdicts.values() for check in verdict.checks)
    nodes = len(verdicts)
    common = {check for check, n in failed.items() if n == nodes or not are_few(n, nodes)}
    if nodes == 1:
        return common & NOT_ITS_OWN
    return common - {LINKS} if nodes == 2 else common  # one of the two: another start avoids both


def _blamed(
    verdicts: Mapping[str, Verdict], common: Set[str], silent_before: Set[str]
) -> list[str]:
    """Bad nodes that fail what few others do; of the silent those that were so before."""
    failed = Counter(check for verdict in verdicts.values() for check in verdict.faults)
    most = max(1, len(verdicts) / 2)
    own = {check for check, count in failed.items() if count <= most} - common
    return [
        node
        for node, verdict in verdicts.items()
        if own & (set(verdict.faults) - ({SILENT} if node not in silent_before else set()))
    ]


def in_words(found: Fitness) -> list[str]:
    """The verdict for the batch script's log."""
    lines = [f"preflight: {node} {cause}" for node, cause in (found.bad | found.suspects).items()]
    lines += [f"preflight: {node}: {words}" for node, words in found.notes.items()]
    if found.common:
        lines.append(
            f"preflight: many nodes fail alike ({found.common}), so it is hardly the nodes, and "
            "they are not avoided: look at logs/preflight.log, at what the job asks for and at "
            "the profile"
        )
    if not found.enough:
        return [*lines, f"preflight: {found.used} nodes are fit, the job needs {found.wanted}"]
    without = f", without {', '.join(found.left_out)}" if found.left_out else ""
    return [*lines, f"preflight: {found.used} nodes are used{without}"]


@dataclass(frozen=True, slots=True)
class Times:
    """The span of the nodes' checks, in seconds since 1970."""

    attempt: str
    began: float
    ended: float


def _times(folder: JobFolder) -> Times:
    attempt, began = (folder.preflight / "began").read_text(encoding="utf-8").split()
    ended = (folder.preflight / "ended").read_text(encoding="utf-8")
    return Times(attempt, float(began), float(ended))


def _answers(folder: Path, attempt: str) -> dict[str, Answer]:
    """What the nodes left there in this start, by node; a late word from an earlier one is none."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.json")]
    said = folder / "said"
    if said.exists():
        texts += said.read_text(encoding="utf-8", errors="replace").splitlines()
    found: dict[str, Answer] = {}
    for text in texts:
        with contextlib.suppress(ValueError):  # what else a node may print
            answer = json.loads(text)
            if f"{answer['attempt']}.".startswith(f"{attempt}."):
                found[answer["node"]] = answer
    return found
