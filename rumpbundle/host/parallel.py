"""Compute on several cores and keep the order, in bounded memory; one after the other where there are no threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from rumpbundle.errors import address_space
from rumpbundle.host.environment import threads_needed

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")

_ROOM = 128 << 20
"""Bytes of addresses for a thread: its stack, and what the C library sets aside for it."""
_TICK = 0.1
"""Seconds to wait at once: a signal that comes in the moment before a wait without end would not end that."""


@cache
def has_threads() -> bool:
    """Return whether this Python can start threads; one in a browser cannot, and one of little memory should not."""
    if address_space() < 2 * _ROOM:
        return False
    thread = threading.Thread(target=int)
    try:
        thread.start()
    except RuntimeError:
        return False
    thread.join()
    return True


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Yield ``function(item)`` for each of *items*, in their order, computed by *jobs* threads.

    At most ``2 * jobs`` results wait at any time. It pays where *function* releases the interpreter's lock, as
    compression and hashing do. There are fewer threads where a limit leaves no room for so many.
    """
    jobs = min(jobs, address_space() // _ROOM)
    if jobs < 2 or not has_threads():
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    with threads_needed(), ThreadPoolExecutor(jobs) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def run_all(
    calls: Sequence[Callable[[], Result]], jobs: int, stop: Callable[[], None] = lambda: None
) -> tuple[Result, ...]:
    """Return what each of *calls* returns, in order, run by *jobs* threads.

    What one of them, or a signal's handler, raises is raised at once, and *stop* called to end the others soon.
    """
    if not has_threads():
        return tuple(call() for call in calls)
    from concurrent.futures import ThreadPoolExecutor

    with threads_needed(), ThreadPoolExecutor(jobs) as pool:
        try:
            return _gather([pool.submit(call) for call in calls])
        except BaseException:
            stop()
            raise


def _gather(futures: Sequence[Future[Result]]) -> tuple[Result, ...]:
    from concurrent.futures import FIRST_EXCEPTION, wait

    unfinished = set(futures)
    while unfinished:
        finished, unfinished = wait(unfinished, timeout=_TICK, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
    return tuple(future.result() for future in futures)
