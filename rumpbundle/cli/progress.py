"""How events look: notes and commands as lines, long work as a bar on a terminal, a line elsewhere, or JSON."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rumpbundle.cli.streams import json_text, tell
from rumpbundle.errors import one_line
from rumpbundle.events import Advanced, Event, Finished, Note, Ran, Started, Warned
from rumpbundle.host.shell import joined
from rumpbundle.units import shown_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LONG = 64 << 20
"""Work of fewer bytes is over before a bar could be read."""
_PATIENCE = 1.0
"""Seconds after which work of unknown length is shown."""


class Terminal:
    """A ``report`` callable that writes to standard error; use it as a context manager."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False, progress: str = "auto") -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._shown = progress
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._waiting: threading.Timer | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, arguments: dict[str, Any]) -> Self:
        """Take what ``report_options`` added out of *arguments*."""
        return cls(**{name: arguments.pop(name) for name in ("quiet", "verbose", "progress")})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._still()
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._shown == "json":
                self._tell_json(event)
            elif not self._quiet:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        match event:
            case Note(text):
                self._line(f"note: {text}")
            case Warned(text):
                self._line(f"warning: {text}")
            case Ran(argv) if self._verbose:
                self._line(f"+ {joined(argv)}")
            case Started(label, 0) if self._shown == "auto" and sys.stderr.isatty():
                self._waiting = threading.Timer(_PATIENCE, self._pulse, [label])
                self._waiting.daemon = True
                with contextlib.suppress(RuntimeError):  # no thread can be started, and none is needed
                    self._waiting.start()
            case Finished(label) if self._waiting is not None and label not in self._tasks:
                self._still()
            case Started(label, total) if total >= LONG and self._shown == "auto":
                self._start(label, total)
            case Advanced(label, count) if label in self._tasks and self._bars is not None:
                self._bars.advance(self._tasks[label], count)
            case Finished(label) if label in self._tasks and self._bars is not None:
                self._bars.update(self._tasks.pop(label), visible=False)
            case _:
                pass

    def _line(self, text: str) -> None:
        if self._bars is None:
            tell(text)
        else:
            from rich.text import Text

            self._bars.console.print(Text(one_line(text)), soft_wrap=True)

    def _start(self, label: str, total: int) -> None:
        if not sys.stderr.isatty():
            self._line(f"{label}: {shown_size(total)}")
            return
        self._bar(label, total)

    def _pulse(self, label: str) -> None:
        """Show that work of unknown length goes on."""
        with self._lock:
            if self._waiting is not None:
                self._bar(label, None)

    def _still(self) -> None:
        """Show it no more."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _bar(self, label: str, total: int | None) -> None:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
                expand=True,
            )
            self._bars.start()
        self._tasks[label] = self._bars.add_task(one_line(label), total=total)

    def _tell_json(self, event: Event) -> None:
        """Tell *event* as one JSON object a line; of long work a line for each percent."""
        match event:
            case Note(text):
                self._object(event="note", text=text)
            case Warned(text):
                self._object(event="warning", text=text)
            case Ran(argv):
                self._object(event="command", argv=argv)
            case Started(label, total):
                self._done[label], self._totals[label] = 0, total
                self._object(event="started", work=label, total=total)
            case Advanced(label, count) if self._totals.get(label):
                before, total = self._done[label], self._totals[label]
                self._done[label] = after = before + count
                if after * 100 // total > before * 100 // total:
                    self._object(event="advanced", work=label, done=after, total=total)
            case Finished(label):
                self._object(event="finished", work=label)
            case _:
                pass

    @staticmethod
    def _object(**value: Any) -> None:
        tell(json_text(value))
