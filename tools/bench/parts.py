"""Parts of a measurement, of which one that fails does not stop the others."""

import sys
import traceback
from types import TracebackType


class Parts:
    """`with parts("name"):` says what went wrong within, goes on after it, and remembers it."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def __call__(self, name: str) -> "Part":
        return Part(self, name)

    def end(self) -> None:
        """Leave with the names of those that failed, if any did."""
        sys.exit(f"failed: {', '.join(self.failed)}" if self.failed else 0)


class Part:
    """One of them. What ends the process, as a signal, does."""

    def __init__(self, whole: Parts, name: str) -> None:
        self.whole, self.name = whole, name

    def __enter__(self) -> "Part":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        traceback.print_exception(error, limit=-3, file=sys.stdout)
        print(f"-- {self.name}: failed", flush=True)
        self.whole.failed.append(self.name)
        return True
