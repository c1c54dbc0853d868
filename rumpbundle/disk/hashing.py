"""Hash what a bundle's manifest names while it is written, so that nothing is read a second time from the inputs.

A thread follows the copy and hashes the bytes as they stand in the output: what the manifest says is true of the
image even if an input changes meanwhile. Where there are no threads the same work is done after the copy.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from rumpbundle.disk.content import CHUNK, Content, Zeros
from rumpbundle.disk.inputfile import fill
from rumpbundle.disk.layout import Named
from rumpbundle.errors import HostError, Interrupted

_TICK = 0.1
"""Seconds to wait at once: a signal that comes just before a wait without end would not end that."""
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

    The block tells the trail what has arrived. *locate* says where the disk's bytes stand in the file.
    """
    pending = [each for each in named if not each.content.hashed]
    trail = Trail(pending, fd, locate)
    if not pending:
        yield trail
        return
    # Read twice, the output would be taken for what is used often, and push the inputs out of memory.
    with suppress(AttributeError, OSError):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NOREUSE)
    with _beside(trail.work):
        yield trail
        trail.arrived(1 << 63)


class Trail:
    """Hashes contents in the order of the disk, as they stand in *fd*."""

    def __init__(self, named: Sequence[Named], fd: int, locate: Locate) -> None:
        self._named = named
        self._fd = fd
        self._locate = locate
        self._arrived = 0
        self._news = threading.Condition()

    def arrived(self, position: int) -> None:
        """Tell that the file is complete up to *position*."""
        with self._news:
            self._arrived = position
            self._news.notify()

    def work(self, stop: threading.Event) -> None:
        buffer = memoryview(bytearray(CHUNK))  # one, for the system gives new memory page by page
        for each in self._named:
            if not each.content.hashed:
                self._hash(each.content, each.offset, buffer, stop)

    def _hash(self, content: Content, offset: int, buffer: memoryview, stop: threading.Event) -> None:
        hasher = content.hasher()
        for source in content.sources:
            end = offset + source.length
            while offset < end:
                position, run = (None, end - offset) if isinstance(source, Zeros) else self._locate(offset)
                count = min(run, end - offset)
                if position is None:
                    hasher.add_zeros(count)
                else:
                    count = min(count, CHUNK)
                    self._wait_for(position + count, stop)
                    if fill(self._fd, position, buffer[:count]) < count:
                        raise HostError("somebody else changed the output while it was written")
                    hasher.add(buffer[:count])
                offset += count
                if stop.is_set():
                    raise Interrupted
        content.remember(hasher.hexdigest())

    def _wait_for(self, position: int, stop: threading.Event) -> None:
        with self._news:
            while self._arrived < position:
                if stop.is_set():
                    raise Interrupted
                self._news.wait(_TICK)


__all__ = ["Trail", "trailing"]
