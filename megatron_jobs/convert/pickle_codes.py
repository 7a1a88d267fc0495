"""What each opcode of a pickle does to the machine. An opcode that is not here is refused.

Source: the documentation of each opcode in Python's pickletools.
"""

import struct
from collections.abc import Callable
from typing import Any

from megatron_jobs.convert.pickle_machine import MOST_INTEGER, Machine, Refused, key_of, name_of
from megatron_jobs.convert.pickle_names import Attributes, Record

Operation = Callable[[Machine], None]
CODES: dict[int, Operation] = {}


def opcode(letter: bytes) -> Callable[[Operation], Operation]:
    """Make a function what an opcode does."""

    def note(function: Operation) -> Operation:
        CODES[letter[0]] = function
        return function

    return note


def _constant(letter: bytes, value: Any) -> None:
    CODES[letter[0]] = lambda machine: machine.stack.append(value)


def _made(letter: bytes, read: Callable[[Machine], Any]) -> None:
    CODES[letter[0]] = lambda machine: machine.push(read(machine))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _old_text(data: bytes) -> str:
    """A string of Python 2, which does not say its encoding."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _integer(machine: Machine, size: int) -> int:
    if size > MOST_INTEGER:
        raise Refused(f"its pickle holds an integer of {size:,} bytes")
    return machine.number(size, signed=True)


def _decimal(line: bytes) -> int | bool:
    if line in (b"00", b"01"):
        return line == b"01"
    return int(line.rstrip(b"L"))


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise Refused("its pickle holds a string without quotes")
    return _old_text(line[1:-1])


_constant(b"N", None)
_constant(b"\x88", True)
_constant(b"\x89", False)
_constant(b")", ())
_made(b"]", lambda m: [])
_made(b"}", lambda m: {})
_made(b"\x8f", lambda m: set())
_made(b"K", lambda m: m.number(1))
_made(b"M", lambda m: m.number(2))
_made(b"J", lambda m: m.number(4, signed=True))
_made(b"\x8a", lambda m: _integer(m, m.number(1)))
_made(b"\x8b", lambda m: _integer(m, m.number(4)))
_made(b"I", lambda m: _decimal(m.line()))
_made(b"L", lambda m: _decimal(m.line()))
_made(b"F", lambda m: float(m.line()))
_made(b"G", lambda m: struct.unpack(">d", m.take(8))[0])
_made(b"S", lambda m: _quoted(m.line()))
_made(b"T", lambda m: _old_text(m.take(m.number(4))))
_made(b"U", lambda m: _old_text(m.take(m.number(1))))
_made(b"V", lambda m: m.line().decode("raw-unicode-escape"))
_made(b"X", lambda m: m.text(m.number(4)))
_made(b"\x8c", lambda m: m.text(m.number(1)))
_made(b"\x8d", lambda m: m.text(m.number(8)))
_made(b"B", lambda m: m.take(m.number(4)))
_made(b"C", lambda m: m.take(m.number(1)))
_made(b"\x8e", lambda m: m.take(m.number(8)))
_made(b"\x96", lambda m: bytearray(m.take(m.number(8))))
_made(b"t", lambda m: tuple(m.marked()))
_made(b"l", lambda m: m.marked())
_made(b"d", lambda m: dict(_pairs(m.marked())))
_made(b"\x91", lambda m: frozenset(map(key_of, m.marked())))
_made(b"\x85", lambda m: (m.stack.pop(),))
_made(b"\x86", lambda m: _last(m, 2))
_made(b"\x87", lambda m: _last(m, 3))
_made(b"c", lambda m: name_of(_text(m.line()), _text(m.line())))
_made(b"\x93", lambda m: name_of(*_last(m, 2)))
_made(b"R", lambda m: m.reduce(*_last(m, 2)))


def _last(machine: Machine, count: int) -> tuple[Any, ...]:
    """The uppermost values, which go."""
    if len(machine.stack) < count:
        raise Refused("its pickle takes more values than it has")
    found = tuple(machine.stack[-count:])
    del machine.stack[-count:]
    return found


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    if len(values) % 2:
        raise Refused("its pickle has a key without a value")
    return [(key_of(key), value) for key, value in zip(values[::2], values[1::2], strict=True)]


@opcode(b"\x80")
def _protocol(machine: Machine) -> None:
    if machine.number(1) > 5:
        raise Refused("its pickle is of a later protocol than 5")


@opcode(b"\x95")
def _frame(machine: Machine) -> None:
    if machine.number(8) > machine.end - machine.at:
        raise Refused("its pickle has a frame that reaches past its end")


@opcode(b"(")
def _mark(machine: Machine) -> None:
    machine.count()
    machine.below.append(machine.stack)
    machine.stack = []


@opcode(b"0")
def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


@opcode(b"1")
def _pop_mark(machine: Machine) -> None:
    machine.marked()


@opcode(b"2")
def _double(machine: Machine) -> None:
    machine.push(machine.stack[-1])


def _remember(letter: bytes, read: Callable[[Machine], int]) -> None:
    def put(machine: Machine) -> None:
        machine.memo[read(machine)] = machine.stack[-1]

    CODES[letter[0]] = put


_remember(b"p", lambda m: int(m.line()))
_remember(b"q", lambda m: m.number(1))
_remember(b"r", lambda m: m.number(4))
_remember(b"\x94", lambda m: len(m.memo))


def _recall(letter: bytes, read: Callable[[Machine], int]) -> None:
    CODES[letter[0]] = lambda machine: machine.stack.append(machine.memo[read(machine)])


_recall(b"g", lambda m: int(m.line()))
_recall(b"h", lambda m: m.number(1))
_recall(b"j", lambda m: m.number(4))


def _into(machine: Machine, kind: type) -> Any:
    """What stands on top, if it may be filled."""
    found = machine.stack[-1]
    if not isinstance(found, kind):
        raise Refused(f"its pickle fills a {type(found).__name__} like a {kind.__name__}; not read")
    return found


@opcode(b"a")
def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    _into(machine, list).append(value)


@opcode(b"e")
def _append_all(machine: Machine) -> None:
    values = machine.marked()
    _into(machine, list).extend(values)


@opcode(b"s")
def _set_item(machine: Machine) -> None:
    key, value = _last(machine, 2)
    _into(machine, dict)[key_of(key)] = value


@opcode(b"u")
def _set_items(machine: Machine) -> None:
    values = machine.marked()
    _into(machine, dict).update(_pairs(values))


@opcode(b"\x90")
def _add_all(machine: Machine) -> None:
    values = machine.marked()
    _into(machine, set).update(map(key_of, values))


@opcode(b"Q")
def _outside(machine: Machine) -> None:
    if machine.persistent is None:
        raise Refused("its pickle keeps something outside of itself; not read")
    machine.push(machine.persistent(machine.stack.pop()))


@opcode(b"\x81")
def _new(machine: Machine) -> None:
    kind, args = _last(machine, 2)
    machine.push(machine.reduce(kind, args))


@opcode(b"\x92")
def _new_with_words(machine: Machine) -> None:
    kind, args, words = _last(machine, 3)
    if words:
        raise Refused("its pickle makes an object of named values; not read")
    machine.push(machine.reduce(kind, args))


@opcode(b"b")
def _build(machine: Machine) -> None:
    state = machine.stack.pop()
    made = machine.stack[-1]
    if isinstance(made, Attributes) and isinstance(state, dict):
        machine.count(len(state))
        made.update(state)
    elif isinstance(made, Record):
        made.state = machine.fields(state)
    elif not isinstance(made, dict):  # attributes of an OrderedDict are not needed
        raise Refused(f"its pickle sets attributes of a {type(made).__name__}; not read")
