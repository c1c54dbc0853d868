"""Which accelerator truly runs a guest here: asked of a guest, not of a device file.

``/dev/kvm`` may open and then fail to run firmware or SSE (docs/facts/guests.md#accelerators), and a QEMU that
waits for it waits for ever. So a boot sector tries both, once for each start of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import tempfile

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.flat import write_all
from rumpbundle.errors import RumpbundleError
from rumpbundle.host import environment, programs
from rumpbundle.host.staging import staged_file

PATIENCE = 1.5
"""Seconds the probe gets. With a working accelerator it takes a tenth of one."""
KVM = "/dev/kvm"

_PROBE = (
    bytes.fromhex(
        "0f20e0 660d00060000 0f22e0"  # CR4.OSFXSR, CR4.OSXMMEXCPT: SSE on (Intel SDM vol. 3, 9.6.1)
        "0f20c0 6683e0fb 0f22c0"  # CR0.EM off
        "0f57c0"  # xorps xmm0, xmm0
        "b010 e6f4"  # isa-debug-exit: 0x10, so QEMU ends with status 33
        "f4 ebfd"
    ).ljust(510, b"\0")
    + b"\x55\xaa"
)
_PROVEN = 33


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator and, for people, why."""

    name: str
    why: str


def choose(program: str) -> Accelerator:
    """Return the accelerator for the QEMU called *program*.

    Raises:
        MissingToolError: it is not installed.
    """
    candidate, why_not = _candidate()
    if not candidate:
        return Accelerator("tcg", why_not)
    works = _remembered(programs.find(program), candidate)
    if works:
        return Accelerator(candidate, "it runs a guest here")
    return Accelerator("tcg", f"{candidate} is there but cannot run a guest")


def _candidate() -> tuple[str, str]:
    """Return the accelerator this machine seems to offer, or why there is none."""
    machine = os.uname()
    if machine.machine not in ("x86_64", "amd64"):
        return "", f"a PC has to be emulated on {machine.machine}"
    if machine.sysname == "Darwin":
        return "hvf", ""
    if not os.path.exists(KVM):
        return "", f"there is no {KVM}"
    if not os.access(KVM, os.R_OK | os.W_OK):
        return "", f"{KVM} may not be opened; is this user in the group kvm?"
    return "kvm", ""


def _remembered(program: str, candidate: str) -> bool:
    """Return the probe's answer, from the cache if it was given since this machine started, with this QEMU.

    A cache that cannot be written is no error; the next run asks again.
    """
    status = os.stat(program)
    key = [environment.boot_id(), os.uname().release, candidate, program, status.st_size, status.st_mtime_ns]
    path = environment.cache_directory() / "accel.json"
    with contextlib.suppress(OSError, ValueError, RecursionError):
        match json.loads(path.read_bytes()):
            case {"key": known, "works": bool(works)} if known == key:
                return works
    works = _runs(program, candidate)
    with contextlib.suppress(OSError, RumpbundleError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path, force=True, sync=False) as file:
            write_all(file.fd, json.dumps({"key": key, "works": works}).encode(), 0)
    return works


def _runs(program: str, candidate: str) -> bool:
    """Whether the probe comes to its end."""
    with tempfile.TemporaryFile() as disk:
        disk.write(_PROBE)
        disk.flush()
        argv = [program, "-nodefaults", "-no-user-config", "-machine", "pc", "-accel", candidate, "-m", "16M"]
        argv += ["-display", "none", "-vga", "none", "-no-reboot", "-serial", "stdio"]
        argv += ["-drive", f"if=ide,format=raw,file=/dev/fd/{disk.fileno()}"]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        with contextlib.suppress(RumpbundleError), programs.spawn(argv, pass_fds=[disk.fileno()]) as child:
            deadline = environment.monotonic() + PATIENCE
            while (status := child.poll()) is None and environment.monotonic() < deadline:
                select.select([child.output], [], [], 0.05)
                os.set_blocking(child.output, False)
                with contextlib.suppress(BlockingIOError):
                    os.read(child.output, 4096)
            return status == _PROVEN
    return False
