"""The signals that ask us to stop, and how they wait while something must not be torn."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if hasattr(signal, name)
)


class Hold:
    """Signals that wait."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.done = False
        """Whether the work is complete: then who wanted to stop a program of ours has come too late."""


_holds: list[Hold] = []


def stop(signum: int, frame: FrameType | None) -> None:
    """Handle a signal as Python handles Ctrl-C."""
    raise KeyboardInterrupt


def handle() -> None:
    """Let every signal that asks a program to stop end this one cleanly; ignored ones stay ignored (``nohup``)."""
    for each in STOPPING:
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, stop)


def ignore() -> None:
    """Take no notice of these signals any more: what is done is done."""
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)
    # One that came inside of an eval, which makes named tuples, Python remembers up to its end, and dies of it then
    # whatever became of it meanwhile (run_eval_code_obj of CPython's pythonrun.c), unless there is another eval.
    eval("None")


@contextlib.contextmanager
def held() -> Iterator[Hold]:
    """Let these signals wait until the block is done.

    They are not blocked: other threads would get them then, and children inherit it. Python runs its handlers in the
    main thread alone, so other threads have nothing to hold.
    """
    hold = Hold()
    if threading.current_thread() is not threading.main_thread():
        yield hold
        return
    before: dict[int, Any] = {}
    _holds.append(hold)
    try:
        for each in STOPPING:
            handler = signal.getsignal(each)
            if handler not in (None, signal.SIG_IGN):
                before[each] = handler
                signal.signal(each, lambda number, _: hold.arrived.append(number))
        yield hold
    finally:
        _holds.remove(hold)
        try:
            _restore(before)
        finally:
            _restore(before)  # one that came in between has cut the first off
        for number in hold.arrived:
            if not (hold.done and before[number] is stop):
                signal.raise_signal(number)


def _restore(handlers: Mapping[int, Callable[[int, FrameType | None], Any]]) -> None:
    for each, handler in handlers.items():
        signal.signal(each, handler)


def check() -> None:
    """Stop here if a signal waits that asks for it: for long waits inside of a block that holds them."""
    if any(hold.arrived for hold in _holds) and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt
