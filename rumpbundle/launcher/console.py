"""A guest's console as text: the last of it is kept, all of it can be searched, and any thread may wait for it.

Memory stays flat however much a guest says: what is older than the last 256 Ki characters is forgotten. A search
sees every character all the same, because it happens as they arrive.
"""

from __future__ import annotations

import codecs
import math
import re
import threading
from collections.abc import Callable, Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.host import environment

KEEP = 256 << 10
"""Characters that are kept at least."""
PAUSE = 0.1
"""Seconds of silence after which an unfinished line counts as said: a prompt is never finished."""
SPAN = 4096
"""Characters a match may have if it is to be found across what arrives in pieces."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]+[0-~]|\x1b[0-Z\\-~]|[\x00\r]")
"""Terminal control sequences (ECMA-48 §5.3-5.4, ECMA-35 §13.2), and what only moves a cursor."""
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]{0,32})?[ -/]{0,4}\Z")


@dataclass(slots=True, eq=False)
class _Watch:
    pattern: re.Pattern[str]
    at: int
    """Where the search goes on, counted from the console's first character."""
    found: Callable[[re.Match[str]], bool]
    """Takes a match; False ends the watch."""
    patient: bool = False
    """Whether a match at the end of an unfinished line is held: what comes next may belong to it."""
    holds: bool = False
    """Whether it holds one."""


class Console:
    """What a guest said, without carriage returns and terminal control sequences.

    As an iterator it gives the lines from the oldest kept, waiting for more until the guest has ended; a reader
    that falls too far behind misses some.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._forgotten = 0
        self._pending = ""
        self._watches: list[_Watch] = []
        self._closed = False
        self._read = 0
        self._expected = 0

    @property
    def text(self) -> str:
        """What is kept of it."""
        with self._changed:
            return self._text

    @property
    def closed(self) -> bool:
        """Whether the guest has said all it will ever say."""
        return self._closed

    def tail(self, lines: int = 20) -> list[str]:
        """Return the last lines that are not empty."""
        with self._changed:
            kept = self._text[-lines * 512 :]
        return [line[-512:] for line in kept.splitlines() if line.strip()][-lines:]

    def feed(self, data: bytes) -> None:
        """Append what the guest said."""
        text = self._pending + self._decoder.decode(data)
        self._pending = ""
        if "\x1b" in text and (unfinished := _UNFINISHED.search(text)):
            self._pending = unfinished[0]
            text = text[: unfinished.start()]
        text = _CONTROL.sub("", text) if "\x1b" in text or "\0" in text else text.replace("\r", "")
        with self._changed:
            start = max(len(self._text) - SPAN, 0)
            self._text += text
            for watch in self._watches.copy():
                self._search(watch, start)
            if len(self._text) > 2 * KEEP:
                cut = len(self._text) - KEEP - SPAN
                cut = self._text.find("\n", cut, cut + SPAN) + 1 or cut
                self._text = self._text[cut:]
                self._forgotten += cut
            self._changed.notify_all()

    def end_line(self) -> None:
        """Look for what is watched in an unfinished last line, too, as if its end had come: it may never come."""
        with self._changed:
            if self._text and not self._text.endswith("\n"):
                for watch in self._watches.copy():
                    if not watch.patient:
                        self._search(watch, max(len(self._text) - SPAN, 0), ended="\n")

    def close(self) -> None:
        """Say that nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _search(self, watch: _Watch, start: int, ended: str = "") -> None:
        position = max(watch.at - self._forgotten, start, 0)
        watch.holds = False
        for match in watch.pattern.finditer(self._text + ended, position):
            if watch.patient and match.end() == len(self._text) and not match[0].endswith("\n"):
                watch.holds = True
                return
            watch.at = self._forgotten + min(match.end(), len(self._text))
            if not watch.found(match):
                self._watches.remove(watch)
                return

    def watch(self, pattern: str, found: Callable[[re.Match[str]], None]) -> None:
        """Call *found* with every match of *pattern* from now on, in the thread that feeds."""

        def again(match: re.Match[str]) -> bool:
            found(match)
            return True

        with self._changed:
            self._watches.append(_Watch(re.compile(pattern, re.MULTILINE), self._end, again))

    def expect(self, pattern: str, timeout: float | None = None) -> re.Match[str] | None:
        """Wait until *pattern* matches what follows the last expected match; None if it never will, or in time.

        ``^`` and ``$`` match at every line. *timeout* is in seconds. A match that arrives in pieces is found if it
        has at most 4096 characters; at the end of an unfinished line it is taken when nothing follows for 0.1 s.
        """
        matches: list[re.Match[str]] = []

        def first(match: re.Match[str]) -> bool:
            matches.append(match)
            self._expected = self._forgotten + match.end()
            return False

        watch = _Watch(re.compile(pattern, re.MULTILINE), self._expected, first, patient=True)
        deadline = math.inf if timeout is None else environment.monotonic() + timeout
        with self._changed:
            self._watches.append(watch)
            self._search(watch, 0)
            spoke = True
            while not matches and not self._closed and (spoke or not watch.holds):
                left = deadline - environment.monotonic()
                if left <= 0:
                    break
                spoke = self._changed.wait(min(left, PAUSE if watch.holds else threading.TIMEOUT_MAX))
            if watch in self._watches:
                watch.patient = False
                self._search(watch, 0)
            if watch in self._watches:
                self._watches.remove(watch)
        return matches[0] if matches else None

    def readline(self) -> str:
        """Return the next line with its newline, waiting for it; the rest at the end, then ``""``."""
        with self._changed:
            while True:
                position = max(self._read - self._forgotten, 0)
                newline = self._text.find("\n", position)
                if newline >= 0 or self._closed:
                    line = self._text[position : newline + 1] if newline >= 0 else self._text[position:]
                    self._read = self._forgotten + position + len(line)
                    return line
                self._changed.wait()

    def __iter__(self) -> Iterator[str]:
        return iter(self.readline, "")

    @property
    def _end(self) -> int:
        return self._forgotten + len(self._text)
