"""Bochs: a PC and a BIOS that are neither QEMU's nor SeaBIOS (Debian: bochs, bochsbios, vgabios, bochs-term)."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.tools import require

_ROMS = Path("/usr/share/bochs")


def boot(image: Path, scratch: Path, *, until: bytes, bus: str = "disk", timeout: float = 60) -> bytes:
    """Boot *image* in *scratch* until COM1 has said *until*, and return all it said; fail after *timeout* seconds."""
    require("bochs")
    drive = (
        f"ata0-master: type=cdrom, path={image}, status=inserted"
        if bus == "cd"
        else f"ata0-master: type=disk, path={image}, mode=volatile, biosdetect=auto"
    )
    (scratch / "rc").write_text(
        f"""megs: 128
romimage: file={_ROMS}/BIOS-bochs-latest
vgaromimage: file={_ROMS}/VGABIOS-lgpl-latest
{drive}
boot: {"cdrom" if bus == "cd" else "disk"}
com1: enabled=1, mode=file, dev=serial
display_library: term
log: log
panic: action=report
error: action=report
"""
    )
    (scratch / "go").write_text("c\n")  # Debian's build starts in its debugger
    serial = scratch / "serial"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bochs", "-q", "-f", "rc", "-rc", "go"],
        cwd=scratch,
        env={**os.environ, "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    try:
        end = time.monotonic() + timeout
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.1)
            try:
                while os.read(ours, 65536):  # else it waits for its terminal
                    pass
            except OSError:
                pass
            if serial.exists() and until in serial.read_bytes():
                return serial.read_bytes()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours)
    said = serial.read_bytes() if serial.exists() else b""
    return pytest.fail(
        f"Bochs' COM1 did not say {until!r}, but {said!r}; its log:\n{(scratch / 'log').read_text()[-2000:]}"
    )
