"""Asked to stop: USR2 (Slurm's warning before a limit or preemption), TERM, INT and HUP.

By default the first such signal raises `Stopped` where the program is: what is written is whole or
absent, so nothing is lost. Later ones are only noted, so that saving is not cut short. Code that
must reach a safe point first, such as the training loop, defers it and asks `stop_reason()`.
"""

import contextlib
import signal
from collections.abc import Iterator

from megatron_jobs.errors import Stopped

SIGNALS = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_state = {"reason": "", "deferred": ""}


def install_stop_signals(*, deferred: bool = False) -> None:
    """From now on these signals ask this process, and those it forks, to stop.

    Args:
        deferred: only note them until `heed_stop`: while a process starts.
    """
    if deferred:
        _state["deferred"] = "yes"
    for number in wanted_signals():
        signal.signal(number, _on_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a batch script holds USR2 back till now


def wanted_signals() -> list[signal.Signals]:
    """Those that were not told to be ignored when this process began, as by nohup."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def heed_stop() -> None:
    """End the deferral of `install_stop_signals`; raises Stopped if a signal has come already."""
    _state["deferred"] = ""
    if _state["reason"]:
        raise Stopped(f"by {_state['reason']}")


def note_stop(number: int) -> bool:
    """Note a signal, here and for processes forked from now on; whether it was the first."""
    first = not _state["reason"]
    _state["reason"] = _state["reason"] or signal.Signals(number).name
    return first


def _on_signal(number: int, _frame: object) -> None:
    first = note_stop(number)
    if first and not _state["deferred"]:
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
