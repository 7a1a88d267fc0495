"""All-reduce between pairs of nodes before a job starts: which node has a bad link or GPU?

The nodes stand in a ring and each is tried with its neighbours, one after the other: a node whose
trials all fail is told from one that met a bad node. Every trial is made by processes that can be
killed, one for each GPU of the node (over NCCL) or one on the CPU (over gloo), and a round ends in
time whatever hangs. Rounds have their times: a node that comes late, for Python and torch may load
slowly, says so and leaves the round out. Pairs meet at folders of their own: no server, and no
folder, sees all nodes.
"""

import datetime
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, Store, TCPStore

from megatron_jobs.errors import MegatronJobsError
from megatron_jobs.parallel.device import engine_device, has_gpu, use_local_device, wait_for_device
from megatron_jobs.runtime.files import wait_for, write_json, write_text
from megatron_jobs.runtime.launch import end_with_parent
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.shared import read_shared

FOLDERS = 64
"""Nodes whose meeting places stand in one folder."""
NUMBERS = {"cpu": 1 << 20, "cuda": 1 << 26}
"""fp32 numbers that are reduced: 4 MiB, or on a GPU 256 MiB."""
TIMES = 4
"""Reductions of a trial; the fastest counts, so that the first may open connections."""
LOOPBACK_SHARE = 0.2
"""Part of the time that is kept for a trial of a node with itself."""
LATE = 0.5
"""Who comes when so much of a round is over leaves it out."""
HERE = "here"
"""What end 1 puts into the store when it comes."""
LONGEST = 300
"""Letters of a cause."""


TOO_LATE = {"good": False, "gbps": 0, "cause": "this node came too late for it", "late": True}


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one process sits in a trial."""

    place: int
    """0 or 1: which end of the pair. End 0 opens the store, end 1 finds its address."""
    ends: int
    local: int
    """The GPU."""
    meet: Path
    """A folder of this pair's own."""
    host: str
    seconds: float


def partners_of(node: int, nodes: int) -> list[int | None]:
    """With whom a node is tried in each round; None: it rests.

    Around the ring, every second pair at a time. An odd ring needs a third round for its last pair.
    """
    if nodes < 2:
        return []
    first = node ^ 1 if node ^ 1 < nodes else None
    if nodes == 2:
        return [first]
    if nodes % 2 == 0:
        return [first, (node - 1 + node % 2 * 2) % nodes]
    second = node - 1 + node % 2 * 2 if node else None
    return [first, second, {0: nodes - 1, nodes - 1: 0}.get(node)]


def try_pairs(
    rank: Rank, names: Sequence[str], folder: Path, *, seconds: float, gpus: int, gone: float = 0
) -> dict[str, Any]:
    """Try this node with two others, and leave what was found in folder/NODE.json.

    Args:
        rank: this process, the only one of its node.
        names: of all nodes, in the order of the ranks.
        folder: seen by all nodes.
        seconds: after which this returns, whatever the others do.
        gpus: of the job on each node; without CUDA here the CPU is tried.
        gone: how many of the seconds are over already.
    Returns: `over` nccl or gloo; `trials`, each with partner, good, gbps and cause, and `late` when
        this node came too late for it; `alone`: why this node cannot even reduce with itself, empty
        when it can; only if all trials failed.
    """
    started = time.monotonic() - gone
    partners = partners_of(rank.node, rank.nodes)
    share = seconds * (1 - LOOPBACK_SHARE) / max(1, len(partners))
    lanes = gpus if gpus and has_gpu() else 1
    trials: list[dict[str, Any]] = []
    found: dict[str, Any] = {"node": names[rank.node], "attempt": rank.attempt, "over": backend()}
    found["trials"] = trials
    for number, partner in enumerate(partners):
        if partner is None:
            continue
        low = min(rank.node, partner)
        left = started + (number + 1) * share - time.monotonic()
        meet = folder / "meet" / f"{low // FOLDERS}" / f"{rank.attempt}.{number}.{low}"
        seat = Seat(int(partner < rank.node), 2, 0, meet, rank.host, left)
        seats = [replace(seat, local=lane) for lane in range(lanes)]
        trial = _try(seats, left) if left >= LATE * share else TOO_LATE
        trials.append({"partner": names[partner]} | trial)
        write_json(folder / f"{names[rank.node]}.json", found)
    tried = [trial["good"] for trial in trials if "late" not in trial]
    if tried and not any(tried):
        left = started + seconds - time.monotonic()
        found["alone"] = _try_alone(rank, folder, lanes, left)
        write_json(folder / f"{names[rank.node]}.json", found)
    return found


def backend() -> str:
    """What the numbers travel over."""
    return "nccl" if has_gpu() else "gloo"


def _try_alone(rank: Rank, folder: Path, lanes: int, seconds: float) -> str:
    """The same within this node: on the CPU between two processes, on GPUs one by one."""
    meet = folder / "meet" / f"{rank.node // FOLDERS}" / f"{rank.attempt}.alone.{rank.node}"
    ends = 1 if has_gpu() else 2
    seats = [
        Seat(place, ends, lane, meet, rank.host, seconds)
        for lane in range(lanes)
        for place in range(ends)
    ]
    return str(_try(seats, seconds)["cause"])


def _try(seats: Sequence[Seat], seconds: float) -> dict[str, Any]:
    """Take all seats at once with a process each; whoever has not answered in time is killed."""
    answers = _in_processes([_sitting(seat) for seat in seats], seconds)
    causes = [
        (f"GPU {seat.local}: " if has_gpu() else "") + answer
        for seat, answer in zip(seats, answers, strict=True)
        if isinstance(answer, str)
    ]
    rates = [answer for answer in answers if isinstance(answer, float)]
    return {
        "good": not causes,
        "gbps": round(sum(rates), 3),
        "cause": "; ".join(causes)[:LONGEST],
    }


def _sitting(seat: Seat) -> Callable[[], float]:
    return lambda: reduce_at(seat)


def _in_processes(works: Sequence[Callable[[], float]], seconds: float) -> list[float | str]:
    """What each work returned in a process of its own, or why it did not, in words."""
    context = multiprocessing.get_context("fork")  # before CUDA is used: see device.has_gpu
    end = time.monotonic() + seconds
    started: list[tuple[BaseProcess, Connection]] = []
    for work in works:
        mine, its = context.Pipe(duplex=False)
        process: BaseProcess = context.Process(
            target=_answer, args=(work, its, os.getpid()), daemon=True
        )
        process.start()
        its.close()
        started.append((process, mine))
    answers = [_read_answer(pipe, end, seconds) for _, pipe in started]
    for process, _ in started:
        process.kill()  # no join: what hangs in a driver does not die of it
    return answers


def _read_answer(pipe: Connection, end: float, seconds: float) -> float | str:
    if not wait([pipe], max(0.0, end - time.monotonic())):
        return f"no answer within {seconds:.0f} s"
    try:
        answer: float | str = pipe.recv()
    except EOFError:
        return "the process died without a word"
    return answer


def _answer(work: Callable[[], float], pipe: Connection, parent: int) -> None:
    """The life of one process of a trial."""
    end_with_parent(parent)
    try:
        pipe.send(work())
    except (RuntimeError, OSError, MegatronJobsError) as error:
        pipe.send(str(error).splitlines()[0])


def reduce_at(seat: Seat) -> float:
    """Reduce numbers with the other end, several times; gigabits a second of the fastest.

    Raises: RuntimeError or OSError when the ends do not meet, MegatronJobsError at a wrong sum.
    """
    use_local_device(seat.local)
    limit = datetime.timedelta(seconds=max(1.0, 0.9 * seat.seconds))  # it says more than a kill
    store = _meet(seat, limit) if seat.ends > 1 else HashStore()
    dist.init_process_group(
        backend(), store=store, rank=seat.place, world_size=seat.ends, timeout=limit
    )
    device = engine_device()
    numbers = torch.arange(NUMBERS[device.type], device=device, dtype=torch.float32) % 1021
    wanted = numbers * (seat.ends * (seat.ends + 1) // 2)  # whole numbers: exact in fp32
    fastest = min(_reduce_once(numbers * (seat.place + 1), wanted) for _ in range(TIMES))
    dist.barrier()  # end 0 keeps the store until both are through
    return numbers.nbytes * 8 / fastest / 1e9


def _reduce_once(mine: torch.Tensor, wanted: torch.Tensor) -> float:
    """Seconds of one reduction."""
    wait_for_device()
    before = time.perf_counter()
    dist.all_reduce(mine)
    wait_for_device()
    seconds = time.perf_counter() - before
    wrong = int((mine != wanted).sum())
    if wrong:
        raise MegatronJobsError(f"{wrong} of {mine.numel()} sums are wrong")
    return seconds


def _meet(seat: Seat, limit: datetime.timedelta) -> Store:
    """A store between the two ends; each lane has its own."""
    place = seat.meet / f"{seat.local}.address"
    if seat.place == 0:
        store = TCPStore(
            seat.host, 0, seat.ends, is_master=True, timeout=limit, wait_for_workers=False
        )
        write_text(place, f"{seat.host}:{store.port}")
        wait_for(lambda: store.check([HERE]), "the other node", seconds=limit.total_seconds())
        return store
    wait_for(lambda: bool(read_shared(place)), "the other node", seconds=limit.total_seconds())
    address = read_shared(place)
    host, _, port = address.rpartition(":")
    store = TCPStore(host, int(port), seat.ends, is_master=False, timeout=limit)
    store.set(HERE, "")
    return store
