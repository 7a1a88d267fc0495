#!/usr/bin/env python3
"""The rendezvous of very many ranks at one torch TCPStore: each by itself, or by a relay a node.

    tools/bench/scale.py --nodes 125 500 2000 --ranks 8

The store is torch's own, in a process of its own. Ranks are connections of a few processes on this
machine, and say what ranks say that gloo (lazily) and megatron-core connect: each leaves its
address for every group, reads the keys of its groups (world, node, data) and of two neighbours, and
waits in a barrier of all. With relays the real `runtime.relay` runs, one for each node. Printed are
what the store's process bore (connections, its own CPU seconds, requests) and the time from the
first connection to the last rank's leave; simulating the ranks is most of that time.
"""

import argparse
import asyncio
import contextlib
import itertools
import multiprocessing
import os
import queue
import random
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from megatron_jobs.runtime import relay

SERVER = """
import time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(100000)
"""
RANKS_A_PROCESS = 4000
"""More would need more open files than a process may usually have."""
ADDRESS = b"a" * 150
GROUPS = ("world", "node", "data")
KINDS = 3 * len(GROUPS)


class Rank:
    """One connection that speaks as torch's client does."""

    def __init__(self, index: int, ranks: int, world: int) -> None:
        self.index, self.ranks, self.world = index, ranks, world
        self.requests = 0

    async def live(self, port: int) -> None:
        """Meet the others, as ranks do."""
        await asyncio.sleep(random.uniform(0, 0.05))  # the look for the address of rank 0
        self.reader, self.writer = await connect(port)
        hello = bytes([relay.VALIDATE]) + struct.pack("=I", relay.MAGIC)
        await self.ask(hello + bytes([relay.PING]) + struct.pack("=I", self.index), 4)
        for kind in range(KINDS):
            self.set(f"/{kind}/{self.index}", ADDRESS)
        for repeat in range(3):
            for group, leader in self.groups().items():
                if self.index == leader:
                    self.set(f"/{group}/{repeat}", ADDRESS)
                await self.get(f"/{group}/{repeat}")
        for neighbour in (self.index + 1, self.index - 1):
            await self.get(f"/0/{neighbour % self.world}")
        await self.meet()
        self.writer.close()

    def groups(self) -> dict[str, int]:
        """The groups of this rank: name -> first rank."""
        node, local = divmod(self.index, self.ranks)
        return {"world": 0, f"node-{node}": node * self.ranks, f"data-{local}": local}

    async def meet(self) -> None:
        """A barrier: count, the last one opens it."""
        count = bytes([relay.ADD]) + packed("/count") + struct.pack("=q", 1)
        (reached,) = struct.unpack("=q", await self.ask(count, 8))
        if reached == self.world:
            self.set("/open", b"1")
        await self.wait("/open")

    def set(self, key: str, value: bytes) -> None:
        self.requests += 1
        self.writer.write(bytes([relay.SET]) + packed(key) + packed(value))

    async def wait(self, key: str) -> None:
        await self.ask(bytes([relay.WAIT]) + struct.pack("=Q", 1) + packed(key), 1)

    async def get(self, key: str) -> None:
        await self.wait(key)
        await self.ask(bytes([relay.GET]) + packed(key), 8 + len(ADDRESS))

    async def ask(self, request: bytes, size: int) -> bytes:
        self.requests += 1
        self.writer.write(request)
        return await self.reader.readexactly(size)


def packed(text: str | bytes) -> bytes:
    """A string as TCPStore writes it."""
    content = text.encode() if isinstance(text, str) else text
    return struct.pack("=Q", len(content)) + content


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(random.uniform(0.1, 1))


async def live_flat(node: int, asked: argparse.Namespace, port: int) -> int:
    """Be all ranks of a node; the requests that reached the root."""
    ranks = ranks_of(node, asked)
    await asyncio.gather(*(rank.live(port) for rank in ranks))
    return sum(rank.requests for rank in ranks)


async def live_relayed(node: int, asked: argparse.Namespace, port: int) -> int:
    """Be all ranks of a node, and its relay; the requests that reached the root."""
    await asyncio.sleep(random.uniform(0, 0.05))
    root = await relay.connect_root("127.0.0.1", port, seconds=600)
    own = relay.Relay(root)
    carrying = asyncio.create_task(root.carry())
    own_port = await own.open()
    await asyncio.gather(*(rank.live(own_port) for rank in ranks_of(node, asked)))
    carrying.cancel()
    root.writer.close()
    own.server.close()
    return root.sent


def ranks_of(node: int, asked: argparse.Namespace) -> list[Rank]:
    first = node * asked.ranks
    return [Rank(first + local, asked.ranks, asked.world) for local in range(asked.ranks)]


async def live_all(nodes: range, asked: argparse.Namespace, port: int, relayed: bool) -> int:
    live = live_relayed if relayed else live_flat
    return sum(await asyncio.gather(*(live(node, asked, port) for node in nodes)))


def be_nodes(answers: Any, *work: Any) -> None:
    """The whole life of one of the simulating processes."""
    allow_files()
    answers.put(asyncio.run(live_all(*work)))


def allow_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Store:
    """torch's store in a process of its own, and what that process bears."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", SERVER]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, text=True, preexec_fn=allow_files)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.files = self.open_files()
        self.cpu = self.cpu_seconds()
        self.most = 0

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def look(self) -> None:
        """Note how many connections there are; RuntimeError when the store is gone."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the store ended with exit status {self.process.returncode}")
        self.most = max(self.most, self.open_files() - self.files)

    def open_files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpu_seconds(self) -> float:
        """Of the process so far; proc(5), fields utime and stime."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(asked: argparse.Namespace, *, relayed: bool) -> None:
    """Print a line of the table."""
    store = Store()
    try:
        start = time.perf_counter()
        requests = play(asked, store, relayed=relayed)
        seconds = time.perf_counter() - start
        how = "a relay a node" if relayed else "each by itself"
        size = f"{asked.now:5} x {asked.ranks} = {asked.world:6}"
        load = f"{store.most:6} connections  {requests:9,} requests"
        cpu = f"{store.cpu_seconds() - store.cpu:6.2f} s of the store's CPU"
        print(f"{size}  {how:14}  {load}  {cpu}  {seconds:6.1f} s in all", flush=True)
    finally:
        store.close()


def play(asked: argparse.Namespace, store: Store, *, relayed: bool) -> int:
    """Be all nodes, in some processes; the requests that reached the store.

    Raises: RuntimeError when one of these processes dies, or the store.
    """
    count = -(-asked.world // RANKS_A_PROCESS)
    cuts = [asked.now * part // count for part in range(count + 1)]
    answers: Any = multiprocessing.Queue()
    players = [
        multiprocessing.Process(
            target=be_nodes,
            args=(answers, range(first, end), asked, store.port, relayed),
            daemon=True,
        )
        for first, end in itertools.pairwise(cuts)
    ]
    requests: list[int] = []
    try:
        for player in players:
            player.start()
        while len(requests) < count:
            store.look()
            refuse_dead(players)
            with contextlib.suppress(queue.Empty):
                requests.append(answers.get(timeout=0.1))
    finally:
        for player in players:
            if player.pid is not None:
                player.kill()
                player.join()
    return sum(requests)


def refuse_dead(players: list[multiprocessing.Process]) -> None:
    """RuntimeError when one has failed."""
    for place, player in enumerate(players, start=1):
        if player.exitcode not in (None, 0):
            status = f"ended with exit status {player.exitcode}"
            raise RuntimeError(f"process {place} of {len(players)}, playing nodes, {status}")


def main() -> int:
    """Print one line for each number of nodes and each way."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[125, 500, 2000])
    parser.add_argument("--ranks", type=int, default=8, help="of each node")
    asked = parser.parse_args()
    for nodes in asked.nodes:
        asked.now, asked.world = nodes, nodes * asked.ranks
        for relayed in (False, True):
            measure(asked, relayed=relayed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
