"""A running guest, watched: its console kept and searched, its end noticed and explained, whatever the backend.

One thread of ours owns the guest: it reads the console as fast as the guest speaks (a guest nobody listens to
would stall), looks for what the guest's family says when it ends, and cleans up. Everyone else asks and waits.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from rumpbundle import arguments
from rumpbundle.errors import GuestError, RumpbundleError
from rumpbundle.host import environment
from rumpbundle.kernels.unikernel import Family
from rumpbundle.launcher.backend import Ending, Reason, Running
from rumpbundle.launcher.console import Console
from rumpbundle.launcher.endings import Endings

if TYPE_CHECKING:
    import re

TICK = 0.1
"""Seconds between two looks at a silent guest."""
GRACE = 0.3
"""Seconds of silence after a panic or a halt before the guest is ended: it may have more to say."""
PATIENCE = 2.0
"""Seconds after which it is ended even if it goes on talking."""
_READ = 64 << 10
_ELSEWHERE = (
    "it said nothing on its serial port; -- -device isa-debugcon,iobase=0xe9,chardev=serial0 shows what it writes to "
    "port 0xE9, -- -vga std -display gtk its screen"
)
"""Of a guest that halts in silence: nobody can tell whether it has done anything."""

Sink = Callable[[bytes], object]


class Guest:
    """A guest that runs. As a context manager it ends the guest when the block is left."""

    def __init__(
        self,
        running: Running,
        *,
        family: Family = Family.PLAIN,
        sinks: tuple[Sink, ...] = (),
        cleanup: Callable[[], object] = lambda: None,
    ) -> None:
        """Take over *running*; every byte of its console goes to each of *sinks*, *cleanup* runs when it is gone."""
        self.console = Console()
        """Everything it says: a stream of lines, and :attr:`rumpbundle.launcher.console.Console.text`."""
        self._running = running
        self._sinks = sinks
        self._cleanup = cleanup
        self._endings = Endings(family)
        self._endings.watch(self.console)
        self._ending: Ending | None = None
        self._failure: BaseException | None = None
        self._stop_for = Reason.STOPPED
        self._wake, self._waker = os.pipe()
        self._lock = threading.Lock()
        self._gone = threading.Event()
        self._sending = threading.Lock()
        """Held by whoever types, and while the guest's descriptors are closed: their numbers are soon another's."""
        self._stopped = False
        self._thread = threading.Thread(target=self._own, name="rumpbundle console", daemon=True)
        with environment.threads_needed():
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(Reason.STOPPED)

    @property
    def ending(self) -> Ending | None:
        """How it ended; None while it runs."""
        return self._ending

    def send(self, text: str | bytes) -> None:
        """Type *text* on its console, waiting while the guest does not read; what follows its end is lost."""
        data = text if isinstance(text, bytes) else arguments.text("text", text).encode("utf-8", "surrogateescape")
        while data and not self._gone.is_set():
            with self._sending:
                if self._stopped:
                    return
                count = self._running.send(data)
            data = data[count:]
            if not count:
                self._gone.wait(0.02)

    def expect(self, pattern: str, timeout: float | None = None) -> re.Match[str]:
        """Wait until its console matches *pattern*, at most *timeout* seconds, and return the match.

        The next call goes on after it. ``^`` and ``$`` match at every line.

        Raises:
            GuestError: it did not say it in time, or ended first; ``console`` holds its last lines.
            ToolError: the backend failed.
            UsageError: *pattern* is no regular expression.
        """
        pattern, timeout = arguments.pattern("pattern", pattern), arguments.seconds("timeout", timeout)
        match = self.console.expect(pattern, timeout)
        if match is not None:
            return match
        if self.console.closed:
            self._gone.wait()
            self._raise_failure()
            raise self._error(f"{self._ending} before it said {pattern!r}")
        raise self._error(f"the guest did not say {pattern!r} within {timeout:g} s")

    def wait(self, timeout: float | None = None) -> Ending:
        """Wait for its end, at most *timeout* seconds: then it is ended, and the ending says so.

        Raises:
            ToolError: the backend failed.
        """
        if not self._gone.wait(arguments.seconds("timeout", timeout)):
            return self._end(Reason.TIMED_OUT)
        self._raise_failure()
        assert self._ending is not None
        return self._ending

    def kill(self) -> Ending:
        """End it now; returns how it ended, if it was quicker."""
        return self._end(Reason.STOPPED)

    def interrupt(self) -> Ending:
        """End it because its user wants to."""
        return self._end(Reason.INTERRUPTED)

    def _end(self, reason: Reason) -> Ending:
        with self._lock:
            if not self._gone.is_set():
                self._stop_for = reason
                os.write(self._waker, b"x")
        self._gone.wait()
        return self._ending or Ending(reason)

    def _error(self, problem: str) -> GuestError:
        return GuestError(problem, console=tuple(self.console.tail()))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _own(self) -> None:
        try:
            self._ending = self._watch()
        except RumpbundleError as error:
            self._failure = error
            self._ending = Ending(Reason.STOPPED, None, str(error))
        except BrokenPipeError:
            self._ending = Ending(Reason.STOPPED, None, "nobody reads its console any more")
        except BaseException as error:
            self._failure = error
            self._ending = Ending(Reason.STOPPED, None, repr(error))
        finally:
            try:
                with self._sending:
                    self._stopped = True
                    self._running.stop()
                self._cleanup()
            finally:
                self.console.close()
                with self._lock:
                    self._gone.set()
                    os.close(self._wake)
                    os.close(self._waker)

    def _watch(self) -> Ending:
        """Return how the guest ended."""
        poller = select.poll()
        output = self._running.output
        for fd in (output, self._wake):
            poller.register(fd, select.POLLIN)
        spoke = environment.monotonic()
        announced: float | None = None
        while True:
            ready = {fd for fd, _ in poller.poll(TICK * 1000)}
            now = environment.monotonic()
            if self._wake in ready:
                return Ending(self._stop_for)
            if output in ready:
                data = os.read(output, _READ)
                if not data:
                    break
                spoke = now
                self._hear(data)
            elif ending := self._running.poll(now - spoke):
                self._drain(output)
                return self._explained(ending)
            elif now - spoke >= PATIENCE:
                self.console.end_line()
            if self._endings.ending is not None:
                announced = now if announced is None else announced
                if now - max(spoke, announced) >= GRACE or now - announced >= PATIENCE:
                    return self._endings.ending
        poller.unregister(output)
        while True:
            if ending := self._running.poll(environment.monotonic() - spoke):
                return self._explained(ending)
            if self._wake in {fd for fd, _ in poller.poll(10)}:
                return Ending(self._stop_for)

    def _hear(self, data: bytes) -> None:
        self.console.feed(data)
        for sink in self._sinks:
            sink(data)

    def _drain(self, output: int) -> None:
        os.set_blocking(output, False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(output, _READ):
                self._hear(data)

    def _explained(self, ending: Ending) -> Ending:
        """Return *ending* with what the console told about it, in half a line as well."""
        self.console.end_line()
        if ending.reason is Reason.RESET and not self.console.text.strip():
            match self._running.booted:
                case True:
                    silent = "without a word on its serial port, where Linux speaks only with console=ttyS0"
                    return Ending(Reason.RESET, None, silent)
                case False:
                    return Ending(Reason.NOT_STARTED, None, "its firmware found nothing to boot")
            unknown = "without a word: either its firmware found nothing to boot, or what it started said nothing"
            return Ending(Reason.RESET, None, unknown)
        explained = self._endings.explained(ending)
        if explained == ending and ending.reason is Reason.HALTED and not self.console.text.strip():
            return replace(ending, detail="; ".join(filter(None, (ending.detail, _ELSEWHERE))))
        return explained
