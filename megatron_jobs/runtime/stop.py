"""Asked to stop: USR2 (Slurm's warning before a limit or preemption), TERM and INT.

By default the signal raises `Stopped` where the program is: what is written is whole or absent, so
nothing is lost. Code that must reach a safe point first, such as the training loop, defers it and
asks `stop_reason()` once a step.
"""

import contextlib
import signal
from collections.abc import Iterator

from megatron_jobs.errors import Stopped

_state = {"reason": "", "deferred": ""}


def install_stop_signals() -> None:
    """From now on USR2, TERM and INT ask this process to stop."""
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)


def _on_signal(number: int, _frame: object) -> None:
    _state["reason"] = signal.Signals(number).name
    if not _state["deferred"]:
        raise Stopped(f"by {_state['reason']}")


@contextlib.contextmanager
def deferred_stop() -> Iterator[None]:
    """Inside, a stop signal is only noted; the code must ask `stop_reason()` itself."""
    before = _state["deferred"]
    _state["deferred"] = "yes"
    try:
        yield
    finally:
        _state["deferred"] = before


def stop_reason() -> str:
    """The name of the signal that asked this process to stop, or nothing."""
    return _state["reason"]
