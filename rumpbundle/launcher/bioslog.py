"""What SeaBIOS, QEMU's BIOS, says on its debug port: above all whether it has started anything.

On the console of a guest that says nothing, one that reset and a firmware that found nothing to boot look alike.
References: SeaBIOS src/boot.c (call_boot_entry, do_boot) and src/hw/serialio.c; qemu(1), isa-debugcon. OVMF is silent
there in the builds that distributions ship; it speaks on the console.
"""

from __future__ import annotations

import contextlib
import os

_MOST = 64 << 10
"""Bytes listened to; SeaBIOS says some 5 KB before it starts something."""
_STARTED, _NOTHING = b"\nBooting from 0000:7c00", b"\nNo bootable device."


class BiosLog:
    """Our end of the debug port. Nothing here blocks.

    It is a pipe: QEMU writes byte by byte, of which a socket holds some hundred, and then the machine stands still.
    """

    def __init__(self) -> None:
        self._ours, self.theirs = os.pipe()
        os.set_blocking(self._ours, False)
        self._said = b""

    @property
    def arguments(self) -> tuple[str, ...]:
        """QEMU's arguments for it; it inherits ``theirs``."""
        return (
            *("-add-fd", f"fd={self.theirs},set={self.theirs}"),
            *("-chardev", f"file,id=bioslog,path=/dev/fdset/{self.theirs},append=on"),
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
        if self._ours < 0:
            return
        with contextlib.suppress(BlockingIOError):
            while self.started is None and len(self._said) < _MOST and (data := os.read(self._ours, 4096)):
                self._said += data
            self._close()

    def _close(self) -> None:
        fd, self._ours = self._ours, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """Give its descriptors back."""
        self._close()
        os.close(self.theirs)
