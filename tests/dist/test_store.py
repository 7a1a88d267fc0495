"""Ranks of many nodes meet through their nodes' relays; a relay answers as torch's store does."""

import asyncio
import datetime
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore
from torch.distributed import DistNetworkError, DistStoreError

from megatron_jobs.errors import MegatronJobsError, UserError
from megatron_jobs.parallel import store as store_module
from megatron_jobs.parallel.groups import close, connect
from megatron_jobs.parallel.store import open_store
from megatron_jobs.runtime import relay
from megatron_jobs.runtime.files import wait_for, write_text
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import Rank
from tests.ranks import report

NODES, LOCAL = 3, 2
SHORT = datetime.timedelta(seconds=0.3)
LIMIT = datetime.timedelta(seconds=20)


@pytest.fixture
def root() -> Any:  # torch's stubs lack clone
    return TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)


class Started:
    """A relay in a process of its own."""

    def __init__(self, port: int, name: str) -> None:
        self.name = f"{name}.{os.getpid()}"
        command = [sys.executable, "-I", "-S", relay.__file__, "127.0.0.1", str(port), self.name]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stderr=pipe)
        wait_for(self._told, "the relay", seconds=20, every=0.01)

    def _told(self) -> bool:
        with socket.socket(socket.AF_UNIX) as line:
            if line.connect_ex(f"\0{self.name}"):
                return False
            self.port = int(line.recv(16))
        return True

    def client(self) -> TCPStore:
        return TCPStore("127.0.0.1", self.port, None, False, LIMIT, wait_for_workers=False)


@pytest.fixture
def relays(root: Any) -> Iterator[list[Started]]:
    """Those of two nodes."""
    started = [Started(root.port, f"test-{place}") for place in range(2)]
    yield started
    for one in started:
        one.process.kill()
        one.process.wait()


def talk(store: Any, other: Any) -> list[Any]:
    """Every operation once or more; `other` is someone else at the same table."""
    said: list[Any] = []
    store.set("a", "hello")
    said += [
        store.get("a"),
        other.get("a"),
        store.add("n", 2),
        other.add("n", 3),
        store.add("n", -1),
    ]
    said += [store.add("n", 0), store.num_keys(), store.check(["a", "n"]), store.check(["a", "z"])]
    said += [store.compare_set("a", "hello", "bye"), store.compare_set("a", "hello", "never")]
    store.set("empty", "")
    said += [store.get("empty"), store.delete_key("a"), store.delete_key("a"), other.check(["a"])]
    store.append("log", "ab")
    store.append("log", "cd")
    store.multi_set(["m1", "m2"], ["1", "x" * 100_000])
    said += [other.get("log"), other.multi_get(["m2", "m1"])]
    with pytest.raises(DistStoreError, match="wait timeout"):
        store.wait(["never"], SHORT)
    threading.Timer(0.2, lambda: other.set("late", "v")).start()
    said += [store.get("late"), PrefixStore("p", store.clone()).add("n", 1), other.get("p/n")]
    return said


def test_a_relay_answers_as_the_store_itself(root: Any, relays: list[Started]) -> None:
    plain: Any = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    assert talk(relays[0].client(), root) == talk(plain, plain.clone())
    assert talk(root, relays[1].client()) == talk(plain, plain.clone())


def at_once(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_counters_are_those_of_all_nodes(root: Any, relays: list[Started]) -> None:
    seen: list[int] = []

    def count(store: TCPStore) -> None:
        seen.extend(store.add("n", 1) for _ in range(100))

    clients = [one.client() for one in relays for _ in range(4)] + [root.clone()]
    at_once([lambda s=store: count(s) for store in clients])  # type: ignore[misc]
    assert sorted(seen) == list(range(1, 901))


def test_a_change_is_seen_by_whoever_asks_after_it(relays: list[Started]) -> None:
    """A lock made of compare_set and a plain number: one stale answer and the sum is wrong."""
    first = relays[0].client()
    first.set("lock", "free")
    first.set("sum", "0")

    def raise_sum(name: str, store: TCPStore) -> None:
        for _ in range(15):
            while store.compare_set("lock", "free", name) != name.encode():
                time.sleep(0.001)
            store.set("sum", str(int(store.get("sum")) + 1))
            assert store.compare_set("lock", name, "free") == b"free"

    names = [(f"{place}.{one}", relays[place].client()) for place in range(2) for one in range(3)]
    at_once([lambda n=name, s=store: raise_sum(n, s) for name, store in names])  # type: ignore[misc]
    assert first.get("sum") == b"90"


def sent(questions: list[tuple[int, str]]) -> list[int]:
    """The codes of what a relay sends for questions that come while another is on its way."""

    async def play() -> list[int]:
        near, far = socket.socketpair()
        root = relay.Root(*await asyncio.open_connection(sock=near))
        reader, writer = await asyncio.open_connection(sock=far)
        carrying = asyncio.create_task(root.carry())
        answers = [root.ask(relay.NUM_KEYS, b"", "q")]
        assert await reader.readexactly(1) == bytes([relay.NUM_KEYS])
        answers += [root.ask(code, field.encode(), "b") for code, field in questions]
        writer.write(bytes(8 + len(questions)))
        await asyncio.gather(*answers)
        writer.close()
        codes = await reader.read(1000)
        carrying.cancel()
        return [byte for byte in codes if chr(byte) not in "xyz"]

    return asyncio.run(play())


def test_only_equal_questions_with_no_change_between_are_one() -> None:
    get, change, swap = relay.GET, relay.SET, relay.COMPARE_SET
    assert sent([(get, "x"), (get, "x"), (get, "y"), (get, "x")]) == [get, get]
    assert sent([(get, "x"), (change, "x"), (get, "x")]) == [get, change, get]
    assert sent([(swap, "x"), (swap, "x")]) == [swap, swap]


def test_a_relay_outlives_signals_but_not_its_starter(relays: list[Started]) -> None:
    client = relays[0].client()
    process = relays[0].process
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        process.send_signal(number)
    assert client.add("n", 1) == 1
    assert process.stdin is not None
    process.stdin.close()
    assert client.add("n", 1) == 2  # ranks that still talk are served
    del client
    assert process.wait(timeout=10) == 0


def test_when_the_root_is_gone_everyone_hears_of_it() -> None:
    line = socket.create_server(("127.0.0.1", 0))

    def answer_once() -> None:
        link, _ = line.accept()
        link.sendall(link.recv(10)[6:10])  # the ping
        link.recv(100)
        link.close()

    thread = threading.Thread(target=answer_once)
    thread.start()
    one = Started(line.getsockname()[1], "test-gone")
    with pytest.raises((DistStoreError, DistNetworkError)):
        one.client().get("x")
    thread.join()
    line.close()
    assert b"the store of rank 0 is gone" in one.process.communicate(timeout=10)[1]


def meet(folder: Path, flat_nodes: int) -> tuple[list[Any], int]:
    """What each of 3 nodes x 2 ranks found, and the connections at rank 0's store."""
    store_module.FLAT_NODES = flat_nodes  # then gloo connects lazily too

    def whole_life(rank: Rank) -> None:
        torch.set_num_threads(1)
        node, local = divmod(rank.index, LOCAL)
        rank = replace(rank, nodes=NODES, local_world=LOCAL, node=node, local=local)
        rank = replace(rank, host="127.0.0.1")
        connect(rank, folder, seconds=30)
        pair = [dist.new_group([low, low + 1]) for low in range(0, NODES * LOCAL, LOCAL)]
        sums = torch.tensor([rank.index, rank.index])
        dist.all_reduce(sums[0])
        dist.all_reduce(sums[1], group=pair[rank.node])
        links = len(connections_at(folder)) if rank.leads else 0
        torch.save((sums.tolist(), links), folder / f"{rank.index}.pt")
        dist.barrier()
        close()

    world = NODES * LOCAL
    outcome = fork_ranks(whole_life, world, error_file=lambda index: folder / f"{index}.txt")
    assert outcome.status == 0, report(folder, outcome.guilty, outcome.signal)
    found = [torch.load(folder / f"{index}.pt") for index in range(world)]
    return [sums for sums, _ in found], found[0][1]


def connections_at(folder: Path) -> list[str]:
    """Those that the store of rank 0 has accepted, from /proc/net (proc(5): 01 is ESTABLISHED)."""
    (address,) = folder.glob("*.address")
    port = f":{int(address.read_text().rpartition(':')[2]):04X}"
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return [line[2] for line in lines if line[1].endswith(port) and line[3] == "01"]


def test_ranks_of_many_nodes_meet_by_one_connection_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.setattr(store_module, "FLAT_NODES", 0)
    found = {}
    for name, flat_nodes in (("flat", NODES), ("relayed", 0)):
        (tmp_path / name).mkdir()
        found[name] = meet(tmp_path / name, flat_nodes)
    assert found["relayed"][0] == found["flat"][0] == [[15, 4 * (r // 2) + 1] for r in range(6)]
    assert found["flat"][1] >= NODES * LOCAL
    assert found["relayed"][1] == NODES + 1  # the last is rank 0's own


def test_a_relay_of_another_user_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FLAT_NODES", 0)
    rank = Rank(index=3, world=4, local=1, local_world=2, node=1, nodes=2, attempt="theirs")
    name = store_module._relay_name(rank)
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(f"\0{name}")
        line.listen()
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
        monkeypatch.setattr(store_module, "_relay_name", lambda rank: name)
        words = r"the relay of node 1 is of user \d+, not ours"
        with pytest.raises(MegatronJobsError, match=words):
            open_store(rank, Path("nowhere"), LIMIT)


def test_a_relay_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FLAT_NODES", 0)
    rank = Rank(index=3, world=4, local=1, local_world=2, node=1, nodes=2, attempt="none")
    with pytest.raises(MegatronJobsError, match=r"^waited 0 s for the relay of node 1, in vain"):
        open_store(rank, Path("nowhere"), SHORT)


def test_open_files_are_asked_for_before_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    store_module._allow_files(1000)
    assert limits == [(1024, 4096)]
    store_module._allow_files(2512)
    assert limits[1:] == [(2512, 4096)]
    with pytest.raises(UserError, match=r"^open files: the limit is 4096, rank 0 needs 8512"):
        store_module._allow_files(8512)


def test_an_address_is_found_though_the_client_remembers_that_it_was_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "meet" / "1.address"
    monkeypatch.setattr(Path, "exists", lambda _: False)
    later = threading.Timer(0.3, write_text, (place, "node1:77"))
    later.start()
    assert store_module._address(place, LIMIT) == ("node1", 77)
    later.join()
