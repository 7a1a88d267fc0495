"""The state of the machine that reads pickles, and what its opcodes share."""

import mmap
from collections.abc import Callable
from typing import Any

from megatron_jobs.convert.pickle_names import CONTAINERS, Fields, Global, Record, global_of, make

MOST_BYTES = 64 << 20
"""Of a pickle; the largest known of a checkpoint's metadata has some ten million."""
MOST_OBJECTS = 8_000_000
"""Lists, records, tensors and so on of one pickle, and what copies of them hold."""
MOST_LINE = 4096
"""Bytes of a number or name that ends with the line."""
MOST_INTEGER = 1024
"""Bytes of an integer."""
WORD, MOST_WORDS = 40, 256
"""Bytes of a string that is looked for among the latest, to be kept once, and how many they are."""
MOST_FIELDS, MOST_KINDS = 8, 256
"""Attributes of an object that are kept in a tuple, and sets of their names that are shared."""
MOST_KEY = 16
"""Parts of a tuple that is a key."""
FILLED = (tuple, list, dict, set, frozenset, bytes, bytearray)
ATOMS = (str, int, float, bool, bytes, type(None), Record, Global)
Bytes = bytes | mmap.mmap
Persistent = Callable[[Any], Any]


class Refused(Exception):
    """What is wrong with a pickle, in words."""


class Machine:
    """A stack, a memo and the opcodes."""

    def __init__(self, data: Bytes, start: int, persistent: Persistent | None) -> None:
        self.data, self.at, self.persistent = data, start, persistent
        self.end = min(len(data), start + MOST_BYTES)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.left = MOST_OBJECTS
        self.words: dict[bytes, str] = {}
        self.kinds: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= self.end - self.at:
            raise Refused(f"its pickle asks for {count:,} bytes where {self.end - self.at:,} are")
        found = self.data[self.at : self.at + count]
        self.at += count
        return found

    def number(self, size: int, *, signed: bool = False) -> int:
        """The next integer, of so many bytes."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def text(self, size: int) -> str:
        """The next string, of so many bytes. Names of attributes come again with each object."""
        data = self.take(size)
        found = self.words.get(data)
        if found is None:
            found = data.decode("utf-8", "surrogatepass")
            if size <= WORD:
                if len(self.words) == MOST_WORDS:
                    self.words.clear()
                self.words[data] = found
        return found

    def fields(self, state: Any) -> Any:
        """What an object is given as its attributes, in half the memory where they are few."""
        if not isinstance(state, dict) or len(state) > MOST_FIELDS:
            return state
        names = tuple(state)
        if len(self.kinds) < MOST_KINDS:
            names = self.kinds.setdefault(names, names)
        return Fields((self.kinds.get(names, names), *state.values()))

    def line(self) -> bytes:
        """What is left of a line."""
        end = self.data.find(b"\n", self.at, min(self.end, self.at + MOST_LINE))
        if end < 0:
            raise Refused("its pickle holds a line that does not end")
        found = self.data[self.at : end]
        self.at = end + 1
        return found

    def count(self, many: int = 1) -> None:
        """Note that so many objects are made."""
        self.left -= many
        if self.left < 0:
            raise Refused(f"its pickle makes over {MOST_OBJECTS:,} objects")

    def push(self, value: Any) -> None:
        """Put on the stack what was made."""
        self.count()
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """All above the latest mark, which goes."""
        found = self.stack
        self.stack = self.below.pop()
        return found

    def reduce(self, what: Any, args: Any) -> Any:
        """What a name makes of arguments."""
        if not isinstance(what, Global) or not isinstance(args, tuple):
            raise Refused(f"its pickle calls a {type(what).__name__}; not read")
        if what.name in CONTAINERS:
            return self._container(what.name, args)
        if any(isinstance(arg, str | bytes | list) for arg in args):
            self.count(sum(len(arg) for arg in args if isinstance(arg, str | bytes | list)))
        return make(what, args)

    def _container(self, name: str, args: tuple[Any, ...]) -> Any:
        """A list, dict or set of what one argument holds."""
        args = args[1:] if name.endswith("defaultdict") else args
        content = args[0] if args else ()
        if isinstance(content, str):
            content = content.encode("latin-1")
        elif len(args) > 1 or not isinstance(content, FILLED):
            raise Refused(f"its pickle makes a {name} of {len(args)} values; not read")
        self.count(len(content))
        kind = CONTAINERS[name]
        if kind is dict:
            pairs: Any = content.items() if isinstance(content, dict) else content
            return {key_of(key): value for key, value in pairs}
        return kind(map(key_of, content)) if kind in (set, frozenset) else kind(content)


def key_of(value: Any) -> Any:
    """A value that may be a key: hashing it takes no time to speak of."""
    parts = value if isinstance(value, tuple) and len(value) <= MOST_KEY else (value,)
    if not all(isinstance(part, ATOMS) for part in parts):
        raise Refused(f"its pickle has a {type(value).__name__} for a key; not read")
    return value


def name_of(module: Any, name: Any) -> Global:
    """A name that is allowed; Refused, saying it, for any other."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise Refused("its pickle asks for something without a name; not read")
    found = global_of(module, name)
    if found is None:
        asked = f"{module}.{name}"[:100]
        raise Refused(f"asks for {asked}: a weights file needs no such thing; not read")
    return found
