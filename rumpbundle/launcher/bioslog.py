"""What SeaBIOS, QEMU's BIOS, says on its debug port: above all whether it has started anything.

On the console of a guest that says nothing, one that reset and a firmware that found nothing to boot look alike.
References: SeaBIOS src/boot.c (call_boot_entry, do_boot) and src/hw/serialio.c; qemu(1), isa-debugcon. OVMF is silent
there in the builds that distributions ship; it speaks on the console.
"""

from __future__ import annotations

import contextlib
import socket

_MOST = 64 << 10
"""Bytes listened to; SeaBIOS says some 5 KB before it starts something."""
_STARTED, _NOTHING = b"\nBooting from 0000:7c00", b"\nNo bootable device."


class BiosLog:
    """Our end of the debug port. Nothing here blocks."""

    def __init__(self) -> None:
        self._socket, self.theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._said = b""

    @property
    def arguments(self) -> tuple[str, ...]:
        """QEMU's arguments for it; it inherits ``theirs``."""
        return (
            *("-chardev", f"socket,id=bioslog,fd={self.theirs.fileno()}"),
            *("-device", "isa-debugcon,iobase=0x402,chardev=bioslog"),
        )

    @property
    def started(self) -> bool | None:
        """Whether the BIOS started something; None if it does not say (another firmware, or it is not that far)."""
        if _STARTED in self._said:
            return True
        return False if _NOTHING in self._said else None

    def listen(self) -> None:
        """Take in what it said; when that is known, or much, no more: QEMU then drops what is written there."""
        with contextlib.suppress(BlockingIOError, OSError):
            while self.started is None and len(self._said) < _MOST and (data := self._socket.recv(4096)):
                self._said += data
            if self.started is not None or len(self._said) >= _MOST:
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give its descriptors back."""
        self._socket.close()
        self.theirs.close()
