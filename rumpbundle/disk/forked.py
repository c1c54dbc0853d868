"""Read many small files with a second process: to open, read, look at and close one costs more than its bytes do.

Threads would wait for each other's lock of the interpreter four times a file. Beside threads all is read here: what
one of them holds in the moment of a fork is held for ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, Self

from rumpbundle.disk.content import FileSlice

_MANY = 4096
"""Files from which on a second process is worth its start, and the memory the two no longer share."""
_LARGEST = 16 << 10
"""Bytes of a file: with more, to pass them on costs what reading them saves."""
_BUFFER = 64 << 10
"""Bytes passed on at once: what a pipe holds."""
_ROUND, _THEIRS = 64, 40
"""Of so many small files the second process reads so many: the first one has to write, too."""


class SmallFiles:
    """Reads slices of small files, in the order in which they come."""

    def __init__(self, coming: Iterator[FileSlice]) -> None:
        """From some number on, a second process reads its part of *coming*, of which it then has a copy."""
        self._coming = coming
        self._number = 0
        self._child = 0
        self._pipe: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, source: FileSlice) -> bytes:
        """Return the bytes of *source*, the next of those that come; raises as :meth:`InputFile.read`."""
        if source.length > _LARGEST:
            return source.file.read(source.start, source.length)
        if self._next_is_theirs() and self._pipe is not None:
            data = self._pipe.read(source.length)
            if len(data) == source.length:
                return data
            self._end()
        data = source.file.read(source.start, source.length)
        if self._number == _MANY:
            self._fork()
        return data

    def _next_is_theirs(self) -> bool:
        self._number += 1
        return self._number % _ROUND < _THEIRS

    def _fork(self) -> None:
        if not hasattr(os, "fork") or sys.platform != "linux" or threading.active_count() > 1:
            return
        with contextlib.suppress(OSError):  # no descriptors or no processes are left: all is read here
            ours, theirs = os.pipe()
            self._pipe = open(ours, "rb", _BUFFER)  # noqa: SIM115 - closed by _end()
            try:
                self._start(ours, theirs)
            finally:
                os.close(theirs)

    def _start(self, ours: int, theirs: int) -> None:
        # No signal may have the child clean up what is its parent's. It ends when nobody reads on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._child = os.fork()
            if not self._child:
                try:
                    os.close(ours)
                    self._serve(theirs)
                finally:
                    os._exit(0)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _serve(self, pipe: int) -> None:
        """Write what is to be read into *pipe*, until one cannot be: the first process will say why."""
        waiting = bytearray()
        try:
            for source in self._coming:
                if source.length <= _LARGEST and self._next_is_theirs():
                    waiting += source.file.read(source.start, source.length)
                    if len(waiting) >= _BUFFER:
                        _pass_on(pipe, waiting)
        finally:
            _pass_on(pipe, waiting)

    def _end(self) -> None:
        """End the second process; from now on everything is read here."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
            if self._child:
                with contextlib.suppress(OSError):  # whoever ignores SIGCHLD has it ended for him
                    os.waitpid(self._child, 0)


def _pass_on(pipe: int, data: bytearray) -> None:
    while data:
        del data[: os.write(pipe, data)]


__all__ = ["SmallFiles"]
