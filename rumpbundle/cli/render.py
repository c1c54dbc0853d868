"""How events look on a terminal: notes and commands as lines, long work as a progress bar."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rumpbundle.cli.streams import tell
from rumpbundle.events import Advanced, Event, Finished, Note, Ran, Started, Warned
from rumpbundle.units import shown_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LONG = 64 << 20
"""Work of fewer bytes is over before a bar could be read."""


class Terminal:
    """A ``report`` callable that writes to standard error; use it as a context manager."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        if self._quiet:
            return
        with self._lock:
            match event:
                case Note(text):
                    self._line(f"note: {text}")
                case Warned(text):
                    self._line(f"warning: {text}")
                case Ran(argv) if self._verbose:
                    from rumpbundle.host.programs import shown

                    self._line(f"+ {shown(argv)}")
                case Started(label, total) if total >= LONG:
                    self._start(label, total)
                case Advanced(label, count) if label in self._tasks and self._progress is not None:
                    self._progress.advance(self._tasks[label], count)
                case Finished(label) if label in self._tasks and self._progress is not None:
                    self._progress.update(self._tasks[label], completed=1 << 62)
                case _:
                    pass

    def _line(self, text: str) -> None:
        tell(text)

    def _start(self, label: str, total: int) -> None:
        if not sys.stderr.isatty():
            self._line(f"{label}: {shown_size(total)}")
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._progress.start()
        self._tasks[label] = self._progress.add_task(label, total=total)
