"""QEMU's machine protocol, as much of it as tells how a guest ended.

References: qemu-qmp-ref(7), SHUTDOWN and GUEST_PANICKED; hmp-commands-info, ``info registers``.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket

from rumpbundle.launcher.backend import Ending, Reason

LONGEST = 1 << 20
"""Bytes of a message we are ready to hold; the largest we ask for, the registers of many CPUs, has a few 10 KiB."""
_INTERRUPTS = 1 << 9
"""The IF bit of EFLAGS (Intel SDM vol. 1, 3.4.3)."""
_CPU = re.compile(r"^[ER]IP=.*?[ER]FL=([0-9a-f]+).*?HLT=([01])", re.MULTILINE | re.DOTALL)

_REASONS = {
    "guest-shutdown": Ending(Reason.POWERED_OFF),
    "guest-reset": Ending(Reason.RESET, None, "a triple fault, or a reboot"),
    "guest-panic": Ending(Reason.PANICKED, None, "pvpanic"),
}


class Control:
    """Our end of a QMP connection. Nothing here blocks."""

    def __init__(self) -> None:
        self._socket, self.theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._received = b""
        self._asked = False
        self._sleeping = 0
        self.ending: Ending | None = None
        """What QEMU told about the guest's end."""
        self.answers = False
        """Whether QEMU has answered anything, which it does once the machine is made."""
        self._send("qmp_capabilities")

    def close(self) -> None:
        self._socket.close()
        self.theirs.close()

    def asleep(self) -> bool:
        """Ask whether every CPU is halted with interrupts off, for good; true if that was so twice in a row."""
        self.listen()
        if not self._asked:
            self._asked = True
            self._send("human-monitor-command", {"command-line": "info registers -a"})
        return self._sleeping >= 2

    def listen(self) -> None:
        """Take in what QEMU said."""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while data := self._socket.recv(65536):
                self._received += data
        *lines, self._received = self._received.split(b"\n")
        if len(self._received) > LONGEST:
            self._received = b""
        for line in lines:
            with contextlib.suppress(ValueError):
                self._take(json.loads(line))

    def _take(self, message: object) -> None:
        match message:
            case {"event": "GUEST_PANICKED"}:
                self.ending = _REASONS["guest-panic"]
            case {"event": "SHUTDOWN", "data": {"reason": str(reason)}}:
                self.ending = self.ending or _REASONS.get(reason)
            case {"return": answer} if not isinstance(answer, str):
                self.answers = True
            case {"return": str(registers)}:
                self._asked = False
                cpus = _CPU.findall(registers)
                asleep = bool(cpus) and all(halt == "1" and not int(flags, 16) & _INTERRUPTS for flags, halt in cpus)
                self._sleeping = self._sleeping + 1 if asleep else 0

    def _send(self, command: str, arguments: dict[str, str] | None = None) -> None:
        message = {"execute": command} | ({"arguments": arguments} if arguments else {})
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            self._socket.send(json.dumps(message).encode() + b"\n")
