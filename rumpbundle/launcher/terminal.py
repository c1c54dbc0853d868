"""The user's terminal as the guest's console: every key goes to the guest but a way out."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
from collections.abc import Callable, Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.host import programs

_INTERRUPT = b"\x03"
_ESCAPE = b"\x01"


@dataclass
class Keys:
    """Splits what is typed into what the guest gets and what is meant for us.

    Ctrl-C, and Ctrl-A x as in QEMU, are the way out. Ctrl-A Ctrl-C and Ctrl-A Ctrl-A send these keys themselves.
    """

    escaped: bool = False

    def take(self, data: bytes) -> tuple[bytes, str]:
        """Return the bytes for the guest, and ``"interrupt"``, ``"quit"`` or ``""``."""
        typed = bytearray()
        for key in (bytes([value]) for value in data):
            if self.escaped:
                self.escaped = False
                if key in b"xX":
                    return bytes(typed), "quit"
                typed += key if key in (_INTERRUPT, _ESCAPE) else _ESCAPE + key
            elif key == _ESCAPE:
                self.escaped = True
            elif key == _INTERRUPT:
                return bytes(typed), "interrupt"
            else:
                typed += key
        return bytes(typed), ""


def ours(fd: int) -> bool:
    """Whether *fd* is a terminal whose keys are meant for this process (not one in the background)."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


@contextlib.contextmanager
def raw(fd: int) -> Iterator[None]:
    """Pass keys on as they are typed, without echo; restored when the block is left, or we are killed."""
    try:
        before, mode, name = termios.tcgetattr(fd), termios.tcgetattr(fd), os.ttyname(fd)
    except (termios.error, OSError):  # it has gone, of which a signal tells
        yield
        return
    mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.IXON)
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
    with programs.if_killed(["stty", "sane"], stdin=name):
        try:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(fd, termios.TCSANOW, mode)
            yield
        finally:
            with contextlib.suppress(termios.error):  # it has gone
                termios.tcsetattr(fd, termios.TCSANOW, before)


@contextlib.contextmanager
def typed(fd: int, send: Callable[[bytes], None], leave: Callable[[str], None]) -> Iterator[None]:
    """Send what is typed on *fd* (a terminal, or whatever is piped in) while the block runs.

    *leave* is called with ``"quit"`` or ``"interrupt"`` when the user wants out.
    """
    keys = Keys() if ours(fd) else None

    def read() -> None:
        while data := _read(fd):
            meant = ""
            if keys is not None:
                data, meant = keys.take(data)
            send(data)
            if meant:
                leave(meant)
                return

    reader = threading.Thread(target=read, name="rumpbundle keyboard", daemon=True)
    with raw(fd) if keys is not None else contextlib.nullcontext():
        if keys is not None or not os.isatty(fd):
            reader.start()
        yield


def _read(fd: int) -> bytes:
    while True:
        try:
            return os.read(fd, 4096)
        except BlockingIOError:  # as whoever shares it with us may have set it
            select.select([fd], [], [])
        except OSError:
            return b""
