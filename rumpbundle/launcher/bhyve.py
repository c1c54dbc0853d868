"""bhyve (FreeBSD): the commands for a person on such a host. Nobody has run them yet.

References: bhyve(8) and bhyvectl(8) of FreeBSD 14; the slirp backend of virtio-net is in 15.
"""

from __future__ import annotations

from rumpbundle import knowledge
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import UsageError
from rumpbundle.events import Report
from rumpbundle.host import programs
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.launcher.backend import Backend, Drive, LaunchPlan, LaunchRequest, Running

ROMS = {Firmware.UEFI: "BHYVE_UEFI.fd", Firmware.BIOS: "BHYVE_UEFI_CSM.fd"}
"""What the package edk2-bhyve installs; the second holds a BIOS."""
_ROM_DIRECTORY = "/usr/local/share/uefi-firmware"

_DISKS = {"virtio": "virtio-blk", "sata": "ahci-hd", "cd": "ahci-cd", "nvme": "nvme"}


class _Bhyve:
    name = "bhyve"

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        if request.disk is None or request.disk.format != "raw" or request.disk.offset:
            raise UsageError("bhyve takes raw disks", where="--boot bhyve", hint="rumpbundle raw APP")
        bus = request.bus or ("sata" if "virtio-blk" not in _buses(request) else "virtio")
        if bus not in _DISKS:
            raise UsageError(f"bhyve has no bus {bus}", where="--bus", hint=f"known: {', '.join(_DISKS)}")
        firmware = request.firmware or Firmware.BIOS
        guest = knowledge.guest(str(request.family), request.target)
        memory = request.memory or guest.memory_for(str(request.firmware or Firmware.BIOS), request.footprint) * MIB
        argv = ["bhyve", "-A", "-H", "-P", "-m", f"{-(-memory // MIB)}M", "-s", "0,hostbridge", "-s", "31,lpc"]
        argv += ["-l", "com1,stdio", "-l", f"bootrom,{_ROM_DIRECTORY}/{ROMS[firmware]}"]
        argv += ["-s", f"2,{_DISKS[bus]},{_backing(request.disk, bus)}"]
        if request.publish:
            forwards = [f"hostfwd={each.protocol}:127.0.0.1:{each.host}-:{each.guest}" for each in request.publish]
            argv += ["-s", ",".join(["3,virtio-net,slirp", *forwards])]
        for slot, disk in enumerate(request.further, 4):
            argv += ["-s", f"{slot},virtio-blk,{_backing(disk, 'virtio')}"]
        if request.gdb is not None:
            argv += ["-G", f"w127.0.0.1:{request.gdb}"]
        commands = (
            programs.shown([*argv, *request.args, request.name]),
            programs.shown(["bhyvectl", f"--vm={request.name}", "--destroy"]),
        )
        return LaunchPlan(commands=commands, tested=False)

    def start(self, plan: LaunchPlan, report: Report) -> Running:
        raise UsageError("only tells its commands", where="--boot bhyve", hint="give --dry-run and paste them")


def _backing(disk: Drive, bus: str) -> str:
    """Return the file of *disk*, read-only if it shall stay as it is: bhyve cannot forget what a guest writes."""
    if "," in disk.path:
        raise UsageError("bhyve takes no file with a comma in its name", where=disk.path, hint="rename it")
    return disk.path if disk.persist or bus == "cd" else f"{disk.path},ro"


def _buses(request: LaunchRequest) -> tuple[str, ...]:
    return knowledge.guest(str(request.family), request.target).launch.buses


BACKEND: Backend = _Bhyve()
