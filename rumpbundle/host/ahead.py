"""Compute what is wanted next in a thread, while the caller works with what came before."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

from rumpbundle.host.parallel import has_threads

Item = TypeVar("Item")
Result = TypeVar("Result")

_TICK = 0.1
"""Seconds to wait at once: a signal that comes in the moment before a wait without end would not end that."""


def ahead_map(function: Callable[[Item], Result], items: Iterable[Item], most: int) -> Generator[Result]:
    """Yield ``function(item)`` for each of *items*, in their order, at most *most* of them computed too early.

    Where no thread can be started, each is computed when it is wanted. Whoever may not come to the end closes the
    generator: then the thread has ended.
    """
    work = _Ahead(function, items, most)
    thread = threading.Thread(target=work.run, daemon=True)
    try:
        try:
            started = has_threads()
            if started:
                thread.start()
        except RuntimeError:  # there are no more of them
            started = False
        if not started:
            yield from map(function, items)
            return
        yield from work.results()
    finally:
        work.stop()
        with suppress(RuntimeError):
            thread.join()


class _Ahead(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item], Result], items: Iterable[Item], most: int) -> None:
        self._function = function
        self._items = items
        self._most = most
        self._ready: deque[Result] = deque()
        self._failed: BaseException | None = None
        self._ended = False
        self._stopped = False
        self._news = threading.Condition()

    def run(self) -> None:
        try:
            for item in self._items:
                with self._news:
                    while len(self._ready) >= self._most and not self._stopped:
                        self._news.wait()
                    if self._stopped:
                        return
                result = self._function(item)
                with self._news:
                    self._ready.append(result)
                    self._news.notify()
        except BaseException as error:  # told by whoever wants the results
            self._failed = error
        finally:
            with self._news:
                self._ended = True
                self._news.notify()

    def results(self) -> Generator[Result]:
        while True:
            with self._news:
                while not self._ready and not self._ended:
                    self._news.wait(_TICK)
                if not self._ready:
                    break
                result = self._ready.popleft()
                self._news.notify()
            yield result
            del result
        if self._failed is not None:
            raise self._failed

    def stop(self) -> None:
        with self._news:
            self._stopped = True
            self._news.notify()


__all__ = ["ahead_map"]
