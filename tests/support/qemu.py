"""A QEMU to boot images under: no KVM, no network, no defaults, and never longer than its timeout."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from support.tools import require

BUSES: dict[str, tuple[str, ...]] = {
    "cd": ("-device", "ide-cd,drive=boot,bootindex=0"),
    "ide": ("-device", "ide-hd,drive=boot,bootindex=0"),
    "ahci": ("-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=boot,bootindex=0"),
    "virtio": ("-device", "virtio-blk-pci,drive=boot,bootindex=0"),
    "lsilogic": ("-device", "lsi53c895a", "-device", "scsi-hd,drive=boot,bootindex=0"),
    "lsisas": ("-device", "mptsas1068", "-device", "scsi-hd,drive=boot,bootindex=0"),
    "pvscsi": ("-device", "pvscsi", "-device", "scsi-hd,drive=boot,bootindex=0"),
    "scsi": ("-device", "virtio-scsi-pci", "-device", "scsi-hd,drive=boot,bootindex=0"),
    "nvme": ("-device", "nvme,serial=boot,drive=boot,bootindex=0"),
    "usb": ("-device", "qemu-xhci", "-device", "usb-storage,drive=boot,bootindex=0"),
}
"""How the image is attached."""

FIRMWARES = ("bios", "uefi")

OVMF = (
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
)


@dataclass(frozen=True)
class Result:
    """How a run went. *status* is QEMU's exit status, None if we ended it; *screen* the VGA text, if asked for."""

    serial: bytes
    status: int | None
    seconds: float
    screen: str = ""

    @property
    def text(self) -> str:
        return self.serial.decode("utf-8", "replace").replace("\r", "")


def boot(
    image: str | os.PathLike[str] | None,
    *,
    firmware: str = "bios",
    bus: str = "virtio",
    fmt: str = "raw",
    memory: str = "256M",
    timeout: float = 60,
    until: str | None = None,
    until_screen: str | None = None,
    exit_device: bool = True,
    serial: bool = True,
    extra: Sequence[str] = (),
) -> Result:
    """Boot *image* and return what the guest said and how it ended.

    The image is never written to. The run ends when the guest leaves through isa-debug-exit, when the regular
    expression *until* matches the console or *until_screen* the VGA text screen (which gives the guest a VGA
    adapter), or fails the test after *timeout* seconds.
    """
    require("qemu-system-x86_64")
    with tempfile.TemporaryDirectory(prefix="rumpbundle-qemu.") as scratch:
        argv = ["qemu-system-x86_64", "-accel", "tcg", "-m", memory, "-nodefaults", "-no-user-config"]
        argv += ["-display", "none", "-nic", "none", "-no-reboot", "-serial", "stdio" if serial else "none"]
        if exit_device:
            argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        argv += _firmware(firmware, Path(scratch))
        if image is not None:
            media = ",media=cdrom" if bus == "cd" else ""
            escaped = os.fspath(image).replace(",", ",,")
            argv += ["-drive", f"if=none,id=boot,format={fmt},snapshot=on{media},file={escaped}", *BUSES[bus]]
        qmp = Path(scratch) / "qmp"
        if until_screen is not None:
            argv += ["-vga", "std", "-qmp", f"unix:{qmp},server=on,wait=off"]
        argv += extra
        with _running(argv) as process:
            return _watch(process, timeout, until, until_screen, qmp)


def _firmware(firmware: str, scratch: Path) -> list[str]:
    if firmware == "bios":
        return []
    for code, variables in OVMF:
        if os.path.exists(code):
            # A fresh copy for each run: OVMF remembers boot entries there (docs/facts/guests.md#firmware).
            copy = shutil.copyfile(variables, scratch / "vars.fd")
            return [
                *("-drive", f"if=pflash,format=raw,readonly=on,file={code}"),
                *("-drive", f"if=pflash,format=raw,file={copy}"),
            ]
    return missing("OVMF")


def missing(package: str) -> NoReturn:
    """Fail where every package must be there, as in CI, and skip the test elsewhere."""
    message = f"{package} is not installed (make test installs it)"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def _running(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _watch(
    process: subprocess.Popen[bytes], timeout: float, until: str | None, until_screen: str | None, qmp: Path
) -> Result:
    assert process.stdout is not None
    assert process.stderr is not None
    start = time.monotonic()
    serial = bytearray()
    wanted = None if until is None else re.compile(until.encode())
    screen = ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = start + timeout - time.monotonic()
            if left <= 0:
                console = serial.decode("utf-8", "replace")
                pytest.fail(f"no end after {timeout} s; console:\n{console}\nscreen:\n{screen}")
            if selector.select(min(left, 0.2)):
                chunk = os.read(process.stdout.fileno(), 65536)
                serial += chunk
                if not chunk:
                    status = process.wait(timeout=10)
                    errors = process.stderr.read().decode("utf-8", "replace")
                    if status < 0 or (status == 1 and errors):
                        pytest.fail(f"QEMU gave {status}: {errors}")
                    return Result(bytes(serial), status, time.monotonic() - start, screen)
                if wanted is not None and wanted.search(serial):
                    return Result(bytes(serial), None, time.monotonic() - start, screen)
            if until_screen is not None and qmp.exists():
                screen = vga_text(qmp)
                if re.search(until_screen, screen):
                    return Result(bytes(serial), None, time.monotonic() - start, screen)


def vga_text(qmp: Path) -> str:
    """Return the 80 × 25 VGA text screen of the machine whose QMP socket is *qmp*, right-trimmed lines."""
    dump = qmp.with_name("vga.bin")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(os.fspath(qmp))
        with connection.makefile("rw") as channel:
            _qmp(channel, None)
            _qmp(channel, {"execute": "qmp_capabilities"})
            arguments = {"val": 0xB8000, "size": 80 * 25 * 2, "filename": os.fspath(dump)}
            _qmp(channel, {"execute": "pmemsave", "arguments": arguments})
    cells = dump.read_bytes()[::2].decode("cp437").replace("\0", " ")
    return "\n".join(cells[row : row + 80].rstrip() for row in range(0, 80 * 25, 80)).rstrip()


def _qmp(channel, command: dict | None) -> None:
    """Send *command* and read up to its answer; None reads the greeting."""
    if command is not None:
        channel.write(json.dumps(command) + "\n")
        channel.flush()
    while True:
        answer = json.loads(channel.readline())
        assert "error" not in answer, answer
        if "return" in answer or "QMP" in answer:
            return
