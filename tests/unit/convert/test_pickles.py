"""Pickles that would run code, take any memory or any time are refused by name, and do nothing."""

import builtins
import contextlib
import os
import pickle
import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_jobs.convert.pickles import read_pickle
from megatron_jobs.convert.torch_files import open_torch
from megatron_jobs.errors import DataError


class Calls:
    """Pickled, it asks that a function be called."""

    def __init__(self, function: Callable[..., Any], *args: Any, state: Any = None) -> None:
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        found = (self.function, self.args)
        return found if self.state is None else (*found, self.state)


MARK = "ran"
TOUCH = f"open({MARK!r}, 'w').close()"
ATTACKS: dict[str, tuple[Any, str]] = {
    "system": (Calls(os.system, f"touch {MARK}"), r"asks for posix\.system: a weights file"),
    "eval": (Calls(eval, TOUCH), r"asks for \w+\.eval: a weights file"),
    "exec": (Calls(exec, TOUCH), r"asks for \w+\.exec: a weights file"),
    "open": (Calls(open, MARK, "w"), r"asks for \w+\.open: a weights file"),
    "import": (Calls(__import__, "os"), r"asks for \w+\.__import__: a weights file"),
    "nested": ({"a": [({"b": Calls(eval, TOUCH)},)]}, r"asks for \w+\.eval: a weights file"),
    "twice": (Calls(map, eval, [TOUCH]), r"asks for \w+\.i?map: a weights file"),
    "getattr": (
        Calls(getattr, Calls(__import__, "os"), "system"),
        r"asks for \w+\.__import__: a weights file",
    ),
    "state": (Calls(dict, state={"x": Calls(eval, TOUCH)}), r"asks for \w+\.eval: a weights file"),
    "load": (Calls(torch.load, MARK), r"asks for torch\.serialization\.load: a weights file"),
    "loads": (Calls(pickle.loads, b"N."), r"asks for \w+\.loads: a weights file"),
    "path": (Calls(Path.touch, Path(MARK)), r"getattr of pathlib\.Path|asks for pathlib\.Path\.t"),
}


@pytest.mark.parametrize("kind", ["archive", "stream", *range(6)])
@pytest.mark.parametrize("name", ATTACKS)
def test_code_is_refused_by_name_and_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str | int
) -> None:
    monkeypatch.chdir(tmp_path)
    value, words = ATTACKS[name]
    path = tmp_path / "a.pt"
    if isinstance(kind, str):
        torch.save({"x": value}, path, _use_new_zipfile_serialization=kind == "archive")
    with pytest.raises(DataError, match=rf"a\.pt: .*(?:{words})"):
        if isinstance(kind, str):
            open_torch(path)
        else:
            read_pickle(pickle.dumps(value, kind), "a.pt")
    assert not (tmp_path / MARK).exists()


def test_bytes_within_bytes_are_refused() -> None:
    """Written by hand: megatron-core puts a function of its own in this one's place."""
    data = b"ctorch.storage\n_load_from_bytes\n(c_codecs\nencode\n(Vx\nVlatin1\ntRtR."
    with pytest.raises(DataError, match=r"asks for torch\.storage\._load_from_bytes: a weights"):
        read_pickle(data, "a.pt")


def test_the_words_of_a_refusal() -> None:
    for data in (b"cos\nsystem\n.", b"\x8c\x02os\x8c\x06system\x93."):
        with pytest.raises(DataError) as caught:
            read_pickle(data, "x.bin")
        words = "x.bin: asks for os.system: a weights file needs no such thing; not read"
        assert str(caught.value) == words


ODD = {
    "a class of Python 2": b"(ios\nsystem\n.",
    "the same, by opcode": b"(cos\nsystem\no.",
    "a dotted name": b"\x8c\x05torch\x8c\x13_utils.os.system.__x\x93.",
    "a call of no name": b"X\x01\x00\x00\x00a(tR.",
    "attributes of a list": b"]}X\x01\x00\x00\x00aK\x01sb.",
    "attributes of a number": b"K\x01}b.",
    "a registered extension": b"\x82\x01.",
    "buffers outside": b"\x97.",
    "something kept outside": b"K\x01Q.",
    "the same, in words": b"Px\n.",
    "a list for a key": b"}]K\x01s.",
    "a deep key": b"})\x85\x85K\x01s.",
    "items of a record": b"csignal\nSignals\n(tRK\x01a.",
    "getattr of a number": b"cbuiltins\ngetattr\nK\x01X\x01\x00\x00\x00a\x86R.",
    "getattr of a function": b"cbuiltins\ngetattr\nctorch\nSize\nX\x01\x00\x00\x00a\x86R.",
    "no value": b".",
    "two values": b"K\x01K\x02.",
    "an open mark": b"(K\x01.",
    "no end": b"K\x01",
    "a later protocol": b"\x80\x06K\x01.",
    "nothing to take": b"0.",
    "no such memory": b"h\x07.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 60) + b"a.",
    "an array that is not there": b"\x96" + struct.pack("<Q", 1 << 60) + b"a.",
    "a text that is not there": b"X\xff\xff\xff\xffa.",
    "a frame that is not there": b"\x95" + struct.pack("<Q", 1 << 60) + b"K\x01.",
    "a huge integer": b"\x8b" + struct.pack("<i", 5000) + bytes(5000) + b".",
    "a negative length": b"\x8b" + struct.pack("<i", -5) + b".",
    "a line without end": b"I" + b"1" * 9000 + b"\n.",
    "a text that is none": b"\x8c\x02\xff\xfe.",
    "a size of words": b"ctorch\nSize\n(X\x01\x00\x00\x00at\x85R.",
    "a tensor of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR.",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_pickles_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"^w: "):
        read_pickle(ODD[name], "w")


def nested_tuples() -> bytes:
    """((..., ...), (..., ...)) of depth 60: hashing it would take 2^60 steps."""
    return b"})" + b"2\x86" * 60 + b"K\x01s."


def deep_lists() -> bytes:
    return b"]" * 100_000 + b"a" * 99_999 + b"."


def laughs() -> bytes:
    """A list of a million, copied a thousand times."""
    million = b"(" + b"N" * 1_000_000 + b"lq\x00"
    return million + b"0" + b"cbuiltins\nlist\nh\x00\x85R0" * 1000 + b"N."


def far_memory() -> bytes:
    """A place in the memo for which Python's own reader makes room of 64 GB."""
    return b"Nr\xff\xff\xff\xff."


def test_what_takes_time_is_refused() -> None:
    with pytest.raises(DataError, match="has a tuple for a key; not read"):
        read_pickle(nested_tuples(), "w")
    with pytest.raises(DataError, match="makes over 8,000,000 objects"):
        read_pickle(laughs(), "w")


@pytest.mark.parametrize("made", [nested_tuples, deep_lists, laughs, far_memory])
def test_time_and_memory_are_bounded(made: Callable[[], bytes]) -> None:
    data = made()
    start = time.monotonic()
    tracemalloc.start()
    with contextlib.suppress(DataError):
        read_pickle(data, "w")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.monotonic() - start < 20
    assert peak < 300 << 20


PLAIN: list[Any] = [
    *(None, True, 0, -1, 255, 256, 65536, -70000, 2**40, -(2**70), 1.5, -0.0),
    *("", "aé\n\t\\u", "€" * 300, b"", b"\0\xff" * 200, bytearray(b"abc")),
    *((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, [2]], {}, {"a": {1: 2}}),
    *({1, 2, 3}, frozenset({"a"}), {(1, "a"): 2, None: 3, True: 4}),
    *(list(range(3000)), {str(n): n for n in range(3000)}),
]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_is_what_python_reads(protocol: int) -> None:
    for value in PLAIN:
        data = pickle.dumps(value, protocol)
        found, end = read_pickle(b"xx" + data + b"rest", "w", start=2)
        assert repr(found) == repr(value)
        assert end == 2 + len(data)


def test_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are allowed stand for records, and no module is imported for them."""

    def refuse(name: str, *rest: Any, **words: Any) -> Any:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(builtins, "__import__", refuse)
    found, _ = read_pickle(b"cmegatron.core.enums\nModelType\nK\x01\x85R.", "w")
    assert (found.name, found.args) == ("megatron.core.enums.ModelType", (1,))


@pytest.mark.parametrize("count", [0, 1, 3, 8, 9, 300])
def test_attributes_of_many_objects_are_kept_apart(count: int) -> None:
    """Names that come again are kept once, also where more have been than are remembered."""
    states = [{f"name{i}": (i, n) for i in range(count)} | {f"own{n}": n} for n in range(300)]
    new = b"cmegatron.core.enums\nModelType\n)\x81"
    made = b"".join(new + pickle.dumps(state, 2)[2:-1] + b"b" for state in states)
    found, _ = read_pickle(b"\x80\x02](" + made + b"e.", "w")
    for n, (record, state) in enumerate(zip(found, states, strict=True)):
        assert {name: record.field(name) for name in state} == state
        assert record.field(f"own{n + 1}") is None
