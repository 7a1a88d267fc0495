"""A relay for torch's TCPStore: the ranks of a node ask it, and it alone asks the store of rank 0.

    python -I -S relay.py HOST PORT NAME

On both sides it speaks TCPStore's own protocol (torch 2.1 to 2.13, TCPStoreBackend.hpp), so a rank
uses torch's own client: no Python, and no lock of Python's, stands between NCCL and its store.
It is a process of its own, without torch, and ends with the process that started it.

Requests go to the root in batches, one on its way at a time. Within a batch equal questions are
asked once and additions to one counter are one addition, so 8 ranks that want the same key cost
the root about what one does. Nothing is kept: every answer was given by the root after the
question, so the ranks of all nodes see one store.
"""

import asyncio
import contextlib
import os
import random
import signal
import struct
import sys
from collections.abc import AsyncIterator, Coroutine

MAGIC = 0x3C85F7CE
VALIDATE, SET, COMPARE_SET, GET, ADD, CHECK, WAIT = range(7)
NUM_KEYS, DELETE_KEY, APPEND, MULTI_GET, MULTI_SET, CANCEL_WAIT, PING = range(7, 14)
STOP_WAITING, WAIT_CANCELED = b"\0", b"\1"
READY = b"\0"
REQUESTS = {
    VALIDATE: "i",
    SET: "ss",
    COMPARE_SET: "sss",
    GET: "s",
    ADD: "sq",
    CHECK: "n",
    WAIT: "n",
    NUM_KEYS: "",
    DELETE_KEY: "s",
    APPEND: "ss",
    MULTI_GET: "n",
    MULTI_SET: "p",
    CANCEL_WAIT: "",
    PING: "i",
}
"""What follows each code: i 4 bytes, q 8 bytes, s a string (8 bytes of length, the string itself),
n strings (8 bytes of count, each string), p as many pairs of strings."""
ANSWERS = {COMPARE_SET: "s", GET: "s", ADD: "q", CHECK: "b", NUM_KEYS: "q", DELETE_KEY: "q"}
"""What is answered: b a byte, else as above; to MULTI_GET one string a key; else nothing."""
SHARED = frozenset({GET, CHECK, MULTI_GET, NUM_KEYS})
"""Questions that change nothing: asked by several at a time they are asked once."""
PAUSES = (0.002, 0.3)
"""Seconds between two looks for a key that is waited for: at first, and at most."""
LINGER_SECONDS = 30
"""How long ranks may go on after the one that started the relay."""


class Request:
    """A request on its way to the root, for one rank or for several that ask alike."""

    def __init__(self, code: int, body: bytes, answer: str) -> None:
        self.code = code
        self.body = body
        self.answer = answer
        self.asked: list[tuple[asyncio.Future[bytes], int]] = []
        """Who is to have the answer; for ADD, how much each adds."""

    def packed(self) -> bytes:
        """As the root reads it."""
        if self.code == ADD:
            total = sum(amount for _, amount in self.asked)
            return bytes([ADD]) + self.body + struct.pack("=q", total)
        return bytes([self.code]) + self.body

    def settle(self, answer: bytes) -> None:
        """Give everyone the answer; of a counter, its value after each one's own addition."""
        if self.code == ADD:
            count = struct.unpack("=q", answer)[0] - sum(amount for _, amount in self.asked)
        for future, amount in self.asked:
            if self.code == ADD:
                count += amount
                answer = struct.pack("=q", count)
            if not future.done():
                future.set_result(answer)


class Root:
    """The one connection to the store of rank 0."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.next: list[Request] = []
        self.shared: dict[tuple[int, bytes], Request] = {}
        self.filled = asyncio.Event()
        self.waits: dict[bytes, Wait] = {}
        self.sent = 0
        """Requests so far; tools/bench/scale.py prints it."""

    def ask(self, code: int, body: bytes, answer: str, amount: int = 0) -> "asyncio.Future[bytes]":
        """Put a request into the next batch; its answer will be the future's result."""
        request = self.shared.get((code, body))
        if request is None:
            request = Request(code, body, answer)
            self.next.append(request)
            if code in SHARED or code == ADD:
                self.shared[code, body] = request
            else:
                self.shared.clear()  # what is asked after a change must not be answered before it
            self.filled.set()
        future = asyncio.get_running_loop().create_future()
        request.asked.append((future, amount))
        return future

    async def carry(self) -> None:
        """Send batch after batch; raises IncompleteReadError or OSError when the root is gone."""
        while True:
            await self.filled.wait()
            batch, self.next = self.next, []
            self.shared = {}
            self.filled.clear()
            self.sent += len(batch)
            self.writer.write(b"".join(request.packed() for request in batch))
            await self.writer.drain()
            for request in batch:
                request.settle(await read_fields(self.reader, request.answer))

    async def wait(self, keys: bytes) -> None:
        """Return when all these keys are there."""
        if keys not in self.waits:
            self.waits[keys] = Wait(self, keys)
        await self.waits[keys].join()


class Wait:
    """Looks for keys, at growing intervals, for all that wait for them."""

    def __init__(self, root: Root, keys: bytes) -> None:
        self.root = root
        self.keys = keys
        self.waiting: list[asyncio.Future[None]] = []
        self.woken = asyncio.Event()
        self.task = asyncio.create_task(self._look())

    async def join(self) -> None:
        """Return when the keys are there, as seen after this call."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.woken.set()
        await future

    async def _look(self) -> None:
        pause, most = PAUSES
        while self.waiting:
            self.woken.clear()
            asked, self.waiting = self.waiting, []
            if await self.root.ask(CHECK, self.keys, "b") == READY:
                for future in asked:
                    if not future.done():
                        future.set_result(None)
                continue
            self.waiting += [future for future in asked if not future.done()]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.woken.wait(), pause * random.uniform(0.5, 1.5))
                pause = PAUSES[0]
            pause = min(pause * 1.5, most)
        del self.root.waits[self.keys]


async def read_fields(reader: asyncio.StreamReader, fields: str) -> bytes:
    """The bytes of some fields, as they came; see REQUESTS."""
    return b"".join([part async for part in _parts(reader, fields)])


async def _parts(reader: asyncio.StreamReader, fields: str) -> AsyncIterator[bytes]:
    for field in fields:
        if field in "biq":
            yield await reader.readexactly({"b": 1, "i": 4, "q": 8}[field])
            continue
        size = await reader.readexactly(8)
        yield size
        (count,) = struct.unpack("=Q", size)
        if field == "s":
            yield await reader.readexactly(count)
        else:
            yield await read_fields(reader, ("s" if field == "n" else "ss") * count)


class Client:
    """One connection of a rank of this node."""

    def __init__(
        self, root: Root, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.root = root
        self.reader = reader
        self.writer = writer
        self.waiting: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Answer until the rank leaves."""
        try:
            while code := await self.reader.read(1):
                if code[0] not in REQUESTS:
                    say(f"request {code[0]} of torch's TCPStore is unknown to the relay")
                    return
                await self._serve_one(code[0])
                await self.writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            if self.waiting is not None:
                self.waiting.cancel()
            self.writer.close()

    async def _serve_one(self, code: int) -> None:
        body = await read_fields(self.reader, REQUESTS[code])
        if code == PING:
            self.writer.write(body)
        elif code == WAIT:
            self.waiting = asyncio.create_task(self._wait(body))
        elif code == CANCEL_WAIT:
            if self.waiting is not None:
                self.waiting.cancel()
            self.writer.write(WAIT_CANCELED)
        elif code != VALIDATE:
            await self._pass_on(code, body)

    async def _wait(self, keys: bytes) -> None:
        await self.root.wait(keys)
        self.writer.write(STOP_WAITING)

    async def _pass_on(self, code: int, body: bytes) -> None:
        answer, amount = ANSWERS.get(code, ""), 0
        if code == ADD:
            body, (amount,) = body[:-8], struct.unpack("=q", body[-8:])
        if code == MULTI_GET:
            answer = "s" * struct.unpack("=Q", body[:8])[0]
        future = self.root.ask(code, body, answer, amount)
        if answer:
            self.writer.write(await future)


async def connect_root(host: str, port: int, seconds: float) -> Root:
    """The connection to rank 0's store; tries again while it is refused, as by a full queue."""
    end = asyncio.get_running_loop().time() + seconds
    pause = 0.05
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            break
        except OSError:
            if asyncio.get_running_loop().time() > end:
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 2, 2)
    nonce = struct.pack("=I", os.getpid())
    writer.write(bytes([VALIDATE]) + struct.pack("=I", MAGIC) + bytes([PING]) + nonce)
    if await reader.readexactly(4) != nonce:
        raise ConnectionError(f"{host}:{port} does not answer as torch's TCPStore does")
    return Root(reader, writer)


class Relay:
    """Serves the ranks of one node from one root."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.clients = 0
        self.empty = asyncio.Event()

    async def open(self) -> int:
        """Begin to serve on this node's loopback; the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.server = server
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients += 1
        self.empty.clear()
        await Client(self.root, reader, writer).serve()
        self.clients -= 1
        if self.clients == 0:
            self.empty.set()


async def main(host: str, port: str, name: str) -> None:
    """Serve until the starter has ended and the ranks have left, or the root is gone."""
    root = await connect_root(host, int(port), seconds=120)
    relay = Relay(root)
    own_port = await relay.open()

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(str(own_port).encode())
        writer.close()

    async with await asyncio.start_unix_server(tell, path=f"\0{name}"):
        await _first(root.carry(), _starter_ends(relay))


async def _starter_ends(relay: Relay) -> None:
    """Return when the pipe from the starter breaks, and soon after it the last rank has left."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(0)
    if relay.clients:
        relay.empty.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(relay.empty.wait(), LINGER_SECONDS)


async def _first(*works: Coroutine[None, None, None]) -> None:
    """Wait for the first of some works to end; raises what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def say(words: str) -> None:
    """A line for the log of the rank that started the relay."""
    print(f"relay of {os.uname().nodename}: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for ranks, which may save for a while yet
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (asyncio.IncompleteReadError, OSError) as error:
        say(f"the store of rank 0 is gone: {error}")
        sys.exit(1)
