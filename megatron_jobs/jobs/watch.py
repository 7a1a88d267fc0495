"""The watch: one small process on each node of a running job, `enter --watch`.

Each reads the heartbeats of its node's ranks (`runtime.heartbeat`) and writes them, as one small
file, to RUN/JOB/watch/GROUP/NODE.json. The first node's judges. When no rank has given a sign of
life for `watch.stall_seconds` it asks all others for the stacks and states of their ranks, writes
down which rank is behind (verdict.json, an event, a line), and all ranks are killed: the job ends,
and what becomes of it is decided as after any failure. Clocks of nodes are taken to agree to a few
seconds: the preflight looks at that.

    RUN/JOB/watch/
      000/NODE.json        {start, node, name, time, ranks}: the heartbeats of a node
      request.json         {id, start, end}: show your stacks, or end your ranks
      stacks/ID/000/NODE.json   the answers; stacks/ID.txt all of them for people
      verdict.json         {kind: stall, start, time} and the fields of `jobs.stall.Stall`
      stragglers.json      see `jobs.stragglers`
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from megatron_jobs.config.site import Watch
from megatron_jobs.errors import Stopped
from megatron_jobs.jobs.cluster import cluster_of
from megatron_jobs.jobs.events import note
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.inquiry import POLL_SECONDS, gather, summaries
from megatron_jobs.jobs.stacks import (
    RankState,
    answer,
    ask,
    collect,
    heartbeats_of,
    in_group,
    merged,
    put,
    request,
    scratch_of,
)
from megatron_jobs.jobs.stall import Stall, judge_stall
from megatron_jobs.jobs.stragglers import straggler_table, write_stragglers
from megatron_jobs.runtime.heartbeat import (
    Beat,
    read_beats,
    remove_leftovers,
)
from megatron_jobs.runtime.rank import Rank, read_rank
from megatron_jobs.runtime.stop import heed_stop

SAVE_TIMES = 4
"""A save may be silent for so many times `stall_seconds`: one phase of it writes all that a rank
has, and a save that is killed is lost, and would be at the next start."""
TABLE_SECONDS = 60
"""Between two tables of stragglers, at least."""


def watch(folder: JobFolder) -> None:
    """Look after this node's ranks until told to end: by USR1, which srun hands on to its tasks."""
    signal.signal(signal.SIGUSR1, _end)
    for number in (signal.SIGUSR2, signal.SIGHUP):  # meant for the ranks: while they save we watch
        signal.signal(number, signal.SIG_IGN)
    cluster, rank = cluster_of(folder), read_rank()
    place = heartbeats_of(folder, rank)
    remove_leftovers(host=rank.host, scratch=scratch_of(folder))
    node = NodeWatch(folder, rank, place, cluster.watch if cluster else Watch())
    try:
        heed_stop()
        while True:
            node.look()
            time.sleep(node.tick)
    except Stopped:
        node.leave()


def _end(number: int, frame: object) -> None:
    raise Stopped("told to end")


@dataclass(slots=True)
class NodeWatch:
    """The watch of one node."""

    folder: JobFolder
    rank: Rank
    """Of this process: its node, and the start that it belongs to."""
    place: Path
    """Where the node's ranks leave their heartbeats."""
    settings: Watch
    told: float = 0.0
    """When this node's file was written last."""
    table_due: float = 0.0
    """When the table of stragglers is to be made anew."""
    answered: str = ""
    """The last request that was."""
    ended: bool = False
    """Whether its ranks have been killed."""
    looked: float = field(default_factory=time.time)
    awake: float = field(default_factory=time.time)
    """Since when this process has not been held up itself: a whole job may be suspended."""

    @property
    def tick(self) -> float:
        """Seconds between two looks."""
        return min(self.settings.every, POLL_SECONDS)

    def look(self) -> None:
        """Everything that is to be done now."""
        beats, now = read_beats(self.place), time.time()
        if now - self.looked > 3 * self.tick + 5:
            self.awake = now
        self.looked = now
        if now - self.told >= self.settings.every:
            self.told = now
            put(
                in_group(self.folder.watch, self.rank.node, self.rank.node_name),
                self.summary(beats),
            )
        self.answer_request(beats)
        if self.rank.node == 0 and not self.ended:
            self.judge(beats, now)

    def summary(self, beats: list[Beat]) -> dict[str, Any]:
        """What this node tells the first."""
        own = {"start": self.rank.start, "node": self.rank.node, "name": self.rank.node_name}
        return own | {"time": time.time(), "ranks": [asdict(beat) for beat in beats]}

    def answer_request(self, beats: list[Beat]) -> None:
        """Show this node's stacks, or end its ranks, if somebody asks for it."""
        asked = request(self.folder)
        if asked.get("start") != self.rank.start or asked["id"] == self.answered:
            return
        self.answered = asked["id"]
        if asked["end"]:
            self.ended = True
            kill(beats)
            return
        place = self.folder.watch / "stacks" / asked["id"]
        path = in_group(place, self.rank.node, self.rank.node_name)
        answer(path, collect(self.place, self.rank.node_name, path.parent))

    def judge(self, beats: list[Beat], now: float) -> None:
        """What only the first node's watch does. While its own ranks live it needs no others."""
        if any(beat.own_seconds for beat in beats) and now >= self.table_due:
            self.make_table(now)
        if self.silent(beats, now) and self.silent(self.all_beats(), now):
            self.settle()

    def make_table(self, now: float) -> None:
        """Compare the nodes; soon again as long as some have measured nothing yet."""
        told = summaries(self.folder, self.rank.start)
        rows = straggler_table(told, self.settings.straggler)
        write_stragglers(self.folder, rows)
        counted = sum(len(row["ranks"]) for row in rows)
        known = sum(len(summary["ranks"]) for summary in told)
        whole = len(rows) == self.rank.nodes and counted == known
        self.table_due = now + max(TABLE_SECONDS if whole else 0, self.settings.every)

    def silent(self, beats: list[Beat], now: float) -> bool:
        """Whether there are ranks to watch and none of them has given a sign of life in time."""
        signs = [beat.time for beat in beats if beat.watched]
        limit = self.limit(beats)
        return bool(limit and signs) and now - max([*signs, self.awake]) >= limit

    def limit(self, ranks: Sequence[Beat | RankState]) -> int:
        """Seconds of silence that are a stall: more while a rank saves, and others wait for it."""
        saves = any(rank.watched and rank.what == "save" for rank in ranks)
        return self.settings.stall_seconds * (SAVE_TIMES if saves else 1)

    def all_beats(self) -> list[Beat]:
        """The heartbeats of all nodes, as they were a moment ago."""
        found = summaries(self.folder, self.rank.start)
        return [Beat(**beat) for summary in found for beat in summary["ranks"]]

    def settle(self) -> None:
        """Find out who is behind, write it down, and have all ranks killed."""
        place = ask(self.folder, self.rank.start)
        self.answer_request([])
        ranks = gather(self.folder, self.rank.start, place)
        last = max((rank.time for rank in ranks if rank.watched), default=0.0)
        seconds = time.time() - last
        if seconds < self.limit(ranks):  # meanwhile it went on
            return
        stall = judge_stall(ranks, seconds)
        place.with_suffix(".txt").write_text(f"{stall.line}\n\n{merged(ranks)}", encoding="utf-8")
        self.tell(stall, place.with_suffix(".txt"))
        ask(self.folder, self.rank.start, end=True)
        self.answer_request(read_beats(self.place))

    def tell(self, stall: Stall, text: Path) -> None:
        """Leave the verdict for triage, as an event and in this process's log."""
        record = {"kind": "stall", "start": self.rank.start, "time": time.time()}
        put(
            self.folder.watch / "verdict.json",
            record | stall.as_record() | {"stacks": str(text.relative_to(self.folder.path))},
        )
        facts = {"rank": stall.rank, "node": stall.node, "step": stall.step, "where": stall.where}
        note(self.folder, "stall", **facts, state=stall.state, line=stall.line)
        print(f"{stall.line}; all stacks: {text}", flush=True)

    def leave(self) -> None:
        """Leave nothing on the node. Ranks that still live, of a job that is cancelled, may be
        killed together with this process; what they write they write to files without a name."""
        shutil.rmtree(self.place, ignore_errors=True)


def kill(beats: list[Beat]) -> None:
    """End ranks that nothing else would end."""
    for beat in beats:
        if beat.lives():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(beat.pid, signal.SIGKILL)
