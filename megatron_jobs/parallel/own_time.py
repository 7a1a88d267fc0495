"""How long a rank itself works in a step: without waiting for other ranks to hand over or to agree.

Counted are reading the batch and the passes forward and backward of each micro batch. Not counted
are the hand-over between pipeline stages, summing gradients at the end, agreeing and the optimizer.
Inside a pass tensor- and context-parallel ranks wait for each other (with `mesh.overlap` a first
pass also for weights), so all of such a group look as slow as its slowest: it shows which group,
mostly a node, is slow. Of a pipeline stage with more or fewer layers than the mean it is told as if
it had as many; the embedding and the output layer still make a difference.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from megatron_jobs.parallel.device import mark_time, seconds_between

PASSES = ("forward-compute", "backward-compute")
"""megatron-core's names (0.19) of what the schedule does for one micro batch."""


class OwnTime:
    """Stands in the config of a model where megatron-core would have its Timers.

    Args:
        share: this stage's layers over the mean of all stages'.
    """

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self.spans: list[tuple[Any, Any]] = []
        self.own = _Watch(self.spans)
        self.other = _Idle()

    def __call__(self, name: str, log_level: int = 0) -> "_Watch | _Idle":
        """What the schedule starts and stops around the work called `name`."""
        return self.own if name in PASSES else self.other

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Inside is work of this rank's own."""
        self.own.start()
        yield
        self.own.stop()

    def clear(self) -> None:
        """Begin a new step."""
        self.spans.clear()

    def seconds(self) -> float:
        """Own work since `clear` over `share`; the device must be done with it."""
        return sum(seconds_between(begin, end) for begin, end in self.spans) / self.share


class _Watch:
    """Started and stopped in turn; one piece of work never lies inside another."""

    def __init__(self, spans: list[tuple[Any, Any]]) -> None:
        self.spans = spans
        self.begun: Any = None

    def start(self, barrier: bool = False) -> None:
        self.begun = mark_time()

    def stop(self, barrier: bool = False) -> None:
        self.spans.append((self.begun, mark_time()))


class _Idle:
    """Measures nothing, and never makes ranks wait for each other."""

    def start(self, barrier: bool = False) -> None:
        pass

    def stop(self, barrier: bool = False) -> None:
        pass
