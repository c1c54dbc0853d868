"""VirtualBox: the VBoxManage commands for a person on such a host. Nobody has run them yet.

Reference: VirtualBox User Manual 7.0, chapter 8.
"""

from __future__ import annotations

from rumpbundle import knowledge
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import UsageError
from rumpbundle.events import Report
from rumpbundle.host import programs
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.launcher.backend import Backend, LaunchPlan, LaunchRequest, Running

_CONTROLLERS = {"sata": "sata", "ide": "ide", "nvme": "pcie", "scsi": "virtio-scsi", "usb": "usb"}
"""``storagectl --add`` by our name of the bus."""
_BUSES = {"ahci": "sata", "ide": "ide", "nvme": "nvme"}
_CARDS = {"virtio-net": "virtio", "e1000": "82540EM"}
_FORMATS = {"vdi", "vmdk", "vpc"}


class _VirtualBox:
    name = "vbox"

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        disk = request.disk
        if disk is None or disk.offset or disk.format not in (*_FORMATS, "raw"):
            raise UsageError("VirtualBox takes raw, VDI, VMDK and VHD disks here", where="--boot vbox")
        if request.gdb is not None:
            raise UsageError("VirtualBox has no gdb server", where="--gdb", hint="--boot qemu has one")
        guest = knowledge.guest(str(request.family), request.target)
        hints = guest.launch
        memory = request.memory or guest.memory_for(str(request.firmware or Firmware.BIOS), request.footprint) * MIB
        bus = request.bus or next((_BUSES[name] for name in hints.buses if name in _BUSES), "sata")
        if bus not in _CONTROLLERS:
            raise UsageError(f"VirtualBox has no bus {bus}", where="--bus", hint=f"known: {', '.join(_CONTROLLERS)}")
        card = next((_CARDS[name] for name in hints.nics if name in _CARDS), "82540EM")
        name = request.name
        lines = []
        attach, detach = [], []
        for number, each in enumerate((disk, *request.further)):
            place = ["VBoxManage", "storageattach", name, "--storagectl", "disk", "--port", str(number)]
            place += ["--device", "0"]
            if each.format == "raw":
                medium = f"{name}{number or ''}.vdi"
                lines.append(["VBoxManage", "convertfromraw", each.path, medium, "--format", "VDI"])
                attach.append([*place, "--type", "hdd", "--medium", medium])
            else:
                # What a guest writes to an immutable medium is forgotten.
                kept = [] if each.persist else ["--mtype", "immutable"]
                attach.append([*place, "--type", "hdd", *kept, "--medium", each.path])
            detach.append([*place, "--medium", "none"])
        machine = ["VBoxManage", "modifyvm", name, "--memory", str(-(-memory // MIB))]
        machine += ["--firmware", "efi" if request.firmware is Firmware.UEFI else "bios", "--ioapic", "on"]
        machine += ["--boot1", "disk", "--boot2", "none", "--boot3", "none", "--boot4", "none"]
        machine += ["--nic1", "nat", "--nictype1", card]
        for number, port in enumerate(request.publish):
            machine += ["--natpf1", f"rule{number},{port.protocol},127.0.0.1,{port.host},,{port.guest}"]
        machine += ["--uart1", "0x3f8", "4", "--uartmode1", "file", f"/tmp/{name}.console"]
        lines += [
            ["VBoxManage", "createvm", "--name", name, "--ostype", "Other_64", "--register"],
            [*machine, *request.args],
            ["VBoxManage", "storagectl", name, "--name", "disk", "--add", _CONTROLLERS[bus], "--bootable", "on"],
            *attach,
            ["VBoxManage", "startvm", name, "--type", "headless"],
            ["tail", "-F", f"/tmp/{name}.console"],
            ["VBoxManage", "controlvm", name, "poweroff"],
            # Without this, unregistering would delete the disks as well.
            *detach,
            ["VBoxManage", "unregistervm", name, "--delete"],
        ]
        return LaunchPlan(commands=tuple(map(programs.shown, lines)), tested=False)

    def start(self, plan: LaunchPlan, report: Report) -> Running:
        raise UsageError("only tells its commands", where="--boot vbox", hint="give --dry-run and paste them")


BACKEND: Backend = _VirtualBox()
