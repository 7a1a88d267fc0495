"""The table through which ranks learn each other's addresses, for two ranks or for 16,000.

On few nodes every rank asks the store of rank 0. On many, each node's first rank starts a relay
(`runtime.relay`) and the ranks of its node ask that: rank 0 then has one connection a node instead
of two or three a rank, and one file is looked for by one process a node.
"""

import contextlib
import datetime
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch._C._distributed_c10d import HashStore, Store, TCPStore

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.runtime import relay
from megatron_jobs.runtime.files import write_text
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.runtime.shared import read_shared

LOOPBACK = "127.0.0.1"
FLAT_NODES = 64
"""Up to so many nodes all ranks ask rank 0 itself: 64 x 8 ranks are 512 connections, which the
usual limit of 1,024 open files allows; with NCCL's clones of the store, twice as many do not."""
SPARE_FILES = 512
"""Open files of rank 0 beside those of the store."""
MAGIC_WORDS = "mj-store"
_relays: list["subprocess.Popen[bytes]"] = []
"""The relay that this process has started: it ends when its standard input is closed."""


def open_store(rank: Rank, meet: Path, limit: datetime.timedelta) -> Store:
    """This rank's view of the one table of its job.

    Args:
        rank: which process this is; `rank.attempt` keeps this start apart from earlier ones.
        meet: a folder that all ranks see. Rank 0 leaves its address there.
        limit: how long to wait for rank 0, and for each key.
    Raises: MegatronJobsError when rank 0, or this node's relay, does not come.
    """
    if rank.world == 1:
        return HashStore()
    relayed = has_many_nodes(rank) and rank.local_world > 1
    place = meet / f"{rank.attempt}.address"
    if rank.leads:
        own = _serve(rank, place, limit)
        if relayed:
            _start_relay(rank, LOOPBACK, own.port)
        return own
    if not relayed:
        return _ask(*_address(place, limit), rank, limit)
    if rank.local == 0:
        _start_relay(rank, *_address(place, limit))
    return _ask(LOOPBACK, _relay_port(rank, limit), rank, limit)


def has_many_nodes(rank: Rank) -> bool:
    """Whether the job is one in which not every rank may ask one place."""
    return rank.nodes > FLAT_NODES


def close_store() -> None:
    """Let this node's relay end when all its ranks have left; does nothing in other processes."""
    while _relays:
        pipe = _relays.pop().stdin
        assert pipe is not None
        pipe.close()


def _serve(rank: Rank, place: Path, limit: datetime.timedelta) -> TCPStore:
    """The table itself, on rank 0, with its address in a file."""
    _allow_files(rank.nodes + SPARE_FILES)
    host = LOOPBACK if rank.nodes == 1 else rank.host
    store = TCPStore(host, 0, rank.world, is_master=True, timeout=limit, wait_for_workers=False)
    write_text(place, f"{host}:{store.port}")
    return store


def _allow_files(wanted: int) -> None:
    """Raise this process's own limit of open files; a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UserError(
            f"open files: the limit is {hard}, rank 0 needs {wanted}, one for each node and "
            f"{SPARE_FILES}; raise it in the profile (setup: ulimit -n) or with the site"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _ask(host: str, port: int, rank: Rank, limit: datetime.timedelta) -> TCPStore:
    return TCPStore(host, port, rank.world, is_master=False, timeout=limit, wait_for_workers=False)


def _address(place: Path, limit: datetime.timedelta) -> tuple[str, int]:
    """Rank 0's host and port, from its file."""
    found = [""]

    def is_told() -> bool:
        found[0] = read_shared(place)
        return bool(found[0])

    _wait(is_told, f"the address of rank 0 in {place}", limit)
    host, _, port = found[0].rpartition(":")
    return host, int(port)


def _start_relay(rank: Rank, host: str, port: int) -> None:
    """Start this node's relay; it closes with `close_store`, or when this process ends."""
    command = [sys.executable, "-I", "-S", relay.__file__, host, str(port), _relay_name(rank)]
    with _signals_held():
        _relays.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Inside, a process that is started holds back stop signals for ever: they are for ranks."""
    names = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, names)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _relay_name(rank: Rank) -> str:
    """Of a socket that is no file (unix(7), abstract): nothing is left behind on the node."""
    return f"{MAGIC_WORDS}.{os.getuid()}.{rank.attempt}.{rank.node}"


def _relay_port(rank: Rank, limit: datetime.timedelta) -> int:
    """The port of this node's relay, as the relay tells it once it has reached rank 0."""
    found: list[int] = []

    def told() -> bool:
        if _relays and _relays[0].poll() is not None:
            raise MegatronJobsError(f"this node's relay ended with status {_relays[0].returncode}")
        found.extend(_ask_relay(rank))
        return bool(found)

    _wait(told, f"the relay of node {rank.node}", limit)
    return found[0]


def _ask_relay(rank: Rank) -> list[int]:
    """Its port, or nothing while it is not there."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(f"\0{_relay_name(rank)}")
        except ConnectionRefusedError:
            return []
        peer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, user, _ = struct.unpack("3i", peer)
        if user != os.getuid():  # anyone on this node may take the name
            raise MegatronJobsError(f"the relay of node {rank.node} is of user {user}, not ours")
        line.settimeout(10)
        return [int(line.recv(16))]


def _wait(ready: Callable[[], bool], what: str, limit: datetime.timedelta) -> None:
    """Return when `ready()`; look ever more seldom, and not all processes at one moment."""
    end = time.monotonic() + limit.total_seconds()
    pause = 0.02
    while not ready():
        if time.monotonic() > end:
            raise MegatronJobsError(f"waited {limit.total_seconds():.0f} s for {what}, in vain")
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.3, 2)
