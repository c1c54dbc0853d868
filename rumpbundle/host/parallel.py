"""Compute on several cores and keep the order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_TICK = 0.1
"""Seconds to wait at once: a signal that comes in the moment before a wait without end would not end that."""


def ordered_map(function: Callable[[Item], Result], items: Iterable[Item], jobs: int) -> Iterator[Result]:
    """Yield ``function(item)`` for each of *items*, in their order, computed by *jobs* threads.

    At most ``2 * jobs`` results wait at any time. It pays where *function* releases the interpreter's lock, as
    compression and hashing do.
    """
    if jobs <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(jobs) as pool:
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


def gather(futures: Sequence[Future[Result]]) -> tuple[Result, ...]:
    """Return the results of *futures*, in order; raise at once what one of them, or a signal's handler, raises."""
    unfinished = set(futures)
    while unfinished:
        finished, unfinished = wait(unfinished, timeout=_TICK, return_when=FIRST_EXCEPTION)
        for future in finished:
            future.result()
    return tuple(future.result() for future in futures)
