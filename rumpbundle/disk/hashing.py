"""Hash what a bundle's manifest names while it is written, so that nothing is read a second time from the inputs.

A thread follows the copy and hashes the bytes that are written, or as they stand in the output: what the manifest
says is true of the image even if an input changes meanwhile. Where there are no threads the same work is done after
the copy.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rumpbundle.disk.content import CHUNK, Content, Zeros
from rumpbundle.disk.layout import Named
from rumpbundle.errors import HostError, Interrupted

_TICK = 0.1
"""Seconds to wait at once: a signal that comes just before a wait without end would not end that."""
_WAITING = 8
"""Parts at most that were handed over and wait to be hashed: a few MiB."""
_ONE_AT_A_TIME = threading.Lock()
"""Several formats of one bundle hash the same contents: whoever comes second finds them hashed."""

Locate = Callable[[int], tuple[int | None, int]]
"""Where a byte of the disk stands in the output (None: nowhere, it is zero), and how many follow it there."""


@contextmanager
def _beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do ``work(stop)`` in a thread while the block runs, and wait for its end; a block that fails stops it."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not _ONE_AT_A_TIME.acquire(timeout=_TICK):
                if stop.is_set():
                    return
            try:
                work(stop)
            finally:
                _ONE_AT_A_TIME.release()
        except BaseException as error:  # told by whoever waits for the thread
            failed.append(error)

    # A bare thread: concurrent.futures imports logging, which a small bundle need not wait for.
    thread = threading.Thread(target=run, daemon=True)
    try:
        with suppress(RuntimeError):  # there are none here, or no more of them
            thread.start()
        yield
        if thread.ident is None:
            run()
        while thread.is_alive():
            thread.join(_TICK)
    finally:
        # Here, and not in an __exit__: also when a signal comes while the thread starts.
        stop.set()
        with suppress(RuntimeError):
            thread.join()
    if failed:
        raise failed[0]


@contextmanager
def trailing(named: Sequence[Named], fd: int, locate: Locate) -> Iterator[Trail]:
    """Hash the contents of *named* while the block copies them into the file *fd*, in the order of the disk.

    The block tells the trail what is coming and what has arrived. *locate* says where the disk's bytes stand in the
    file.
    """
    trail = Trail([each for each in named if not each.content.hashed], fd, locate)
    if not trail.hashes:
        yield trail
        return
    # Read twice, the output would be taken for what is used often, and push the inputs out of memory.
    with suppress(AttributeError, OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NOREUSE)
    with _beside(trail.work):
        yield trail
        trail.arrived(1 << 63)


class Trail:
    """Hashes contents in the order of the disk: what is handed over from memory, the rest as it stands in *fd*."""

    def __init__(self, named: Sequence[Named], fd: int, locate: Locate) -> None:
        self._named = named
        self._fd = fd
        self._locate = locate
        self._arrived = 0
        self._coming: deque[tuple[int, bytes | memoryview]] = deque()
        self._used: bytes | memoryview | None = None
        """What was handed over and is being hashed."""
        self._working = False
        self._news = threading.Condition()

    @property
    def hashes(self) -> bool:
        """Whether there is something to hash."""
        return bool(self._named)

    def coming(self, position: int, data: bytes | memoryview) -> None:
        """Tell that the file is complete up to *position*, and that *data* will be written there next.

        It is hashed while it is written; or, if many wait already, read back later. A view's bytes have to stay as
        they are until :meth:`give_back`.
        """
        with self._news:
            self._arrived = position
            if self._working and len(self._coming) < _WAITING:
                self._coming.append((position, data))
                self._news.notify_all()

    def give_back(self, data: memoryview) -> None:
        """Return when *data*, all of which has been written, is no longer looked at; what waited is read back."""
        with self._news:
            for each in [each for each in self._coming if each[1] is data]:
                self._coming.remove(each)
            while self._used is data:
                self._news.wait(_TICK)

    def arrived(self, position: int) -> None:
        """Tell that the file is complete up to *position*."""
        with self._news:
            self._arrived = position
            self._news.notify_all()

    def work(self, stop: threading.Event) -> None:
        self._working = True
        try:
            for each in self._named:
                if not each.content.hashed:
                    self._hash(each.content, each.offset, stop)
        finally:
            with self._news:
                self._working = False
                self._coming.clear()
                self._used = None
                self._news.notify_all()

    def _hash(self, content: Content, offset: int, stop: threading.Event) -> None:
        hasher = content.hasher()
        for source in content.sources:
            end = offset + source.length
            while offset < end:
                position, run = (None, end - offset) if isinstance(source, Zeros) else self._locate(offset)
                count = min(run, end - offset)
                if position is None:
                    hasher.add_zeros(count)
                else:
                    data = self._next(position, min(count, CHUNK), stop)
                    hasher.add(data)
                    count = len(data)
                offset += count
                if stop.is_set():
                    raise Interrupted
        content.remember(hasher.hexdigest())

    def _next(self, position: int, most: int, stop: threading.Event) -> bytes | memoryview:
        """Return what stands at *position*, *most* bytes or less, as soon as it is known; it holds until the next."""
        with self._news:
            self._used = None
            self._news.notify_all()
            while True:
                while self._coming and self._coming[0][0] + len(self._coming[0][1]) <= position:
                    self._coming.popleft()
                if self._coming:
                    start, data = self._coming[0]
                    if start <= position:
                        self._used = data
                        return data[position - start : position - start + most]
                    most = min(most, start - position)
                if self._arrived >= position + most:
                    break
                if stop.is_set():
                    raise Interrupted
                self._news.wait(_TICK)
        data = os.pread(self._fd, most, position)
        if not data:
            raise HostError("somebody else changed the output while it was written")
        return data


__all__ = ["Trail", "trailing"]
