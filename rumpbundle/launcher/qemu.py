"""QEMU: the machine a guest can drive, as a command that can be pasted, and that command running.

Everything is said, nothing is left to QEMU's defaults but the machine type's own devices: no VGA adapter unless the
guest wants one, no network boot ROM, no boot menu, and no second try at booting: it would hang where it should fail.
Hardware comes from :mod:`rumpbundle.knowledge`. References: qemu(1) of QEMU 7.2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from rumpbundle import knowledge
from rumpbundle.bootloader.smbios import IDENTITIES, Key
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import MIB, SECTOR
from rumpbundle.errors import MissingToolError, UsageError
from rumpbundle.events import Ran, Report, Warned
from rumpbundle.host import programs
from rumpbundle.kernels.unikernel import Family, Firmware
from rumpbundle.launcher.backend import Backend, Drive, Ending, Forward, LaunchPlan, LaunchRequest, Reason
from rumpbundle.launcher.bioslog import BiosLog
from rumpbundle.launcher.notes import notes
from rumpbundle.launcher.qmp import Control

PROGRAM = "qemu-system-x86_64"

OVMF = (
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    ("/opt/homebrew/share/qemu/edk2-x86_64-code.fd", "/opt/homebrew/share/qemu/edk2-i386-vars.fd"),
    ("/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"),
)
"""Where Debian, Arch, Fedora and Homebrew keep UEFI's code and an empty variable store."""

DEBUG_EXIT = (0xF4, 0x501)
"""The ports of isa-debug-exit that a guest may write its status to: the one by custom, and QEMU's own default, which
Solo5 has (bindings/virtio/platform.c), and Nanos (docs/facts/guests.md#nanos), whose images nothing else names."""
CUSTOMARY_SUCCESS = 0x10
"""Written to isa-debug-exit by guests that want to tell their success from QEMU's status 1."""
SOLO5_EXIT = 41
"""What Solo5 writes whatever its status is; that is on its console."""

_LAYERED = ("qcow2", "vmdk")
"""Drivers that open a further file, if the image names one and nobody says that there is none."""

HERMIT_EXIT = {1: 0, 0: 1}
"""The status behind what Hermit writes, by the crate qemu-exit, where its console does not tell it."""
SLOTS = 27
"""What is left of the 32 on the bus beside its bridges, a display, the boot disk and pvpanic."""

ASLEEP_AFTER = 0.5
"""Seconds of silence after which we look whether the CPUs sleep for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine for :func:`command`, every choice made."""

    type: str
    accel: str
    memory: int
    """Bytes."""
    display: str
    uefi: tuple[str, str] | None = None
    """UEFI's code and its empty variable store; None for the BIOS."""
    settings: tuple[str, ...] = ()
    """Values of ``-global``."""
    disk: Drive
    attach: tuple[str, ...]
    """``-device`` values for it; ``{drive}`` stands for its id."""
    further: tuple[Drive, ...] = ()
    card: str | None = None
    """The network card's ``-device`` value, ``{netdev}`` for the network; None for no network."""
    cards: int = 1
    """How many of them."""
    order: tuple[str, ...] = ()
    """The order on the PCI bus: ``block`` for each further disk, ``net`` for the card; what it leaves out is last."""
    publish: tuple[Forward, ...] = ()
    gdb: int | None = None
    identity: str = ""
    """What firmware says of it, as a KEY."""
    args: tuple[str, ...] = ()


def quoted(value: str) -> str:
    """Return *value* for use inside a QEMU option, where a comma ends it unless doubled."""
    return value.replace(",", ",,")


def command(machine: Machine, *, inherited: bool = False) -> tuple[str, ...]:
    """Return the QEMU command line of *machine*; its console is on standard input and output.

    It opens the disks by their names, or as files that it has *inherited*.
    """
    argv = [PROGRAM, "-nodefaults", "-no-user-config", "-machine", machine.type, "-accel", machine.accel]
    argv += ["-m", _size(machine.memory), "-display", "none", "-vga", machine.display, "-no-reboot"]
    argv += ["-boot", "menu=off,strict=on,reboot-timeout=0", "-serial", "mon:stdio"]
    for setting in machine.settings:
        argv += ["-global", setting]
    if machine.uefi is not None:
        code, variables = machine.uefi
        argv += ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={quoted(code)}"]
        # OVMF remembers boot entries: a store that forgets them gives every run the same start.
        argv += ["-drive", f"if=pflash,unit=1,format=raw,snapshot=on,file={quoted(variables)}"]
    argv += ["-drive", _drive(machine.disk, "disk0", inherited)]
    argv += _devices(*(_attached(device, machine) for device in machine.attach))
    argv += _disks_and_card(machine, inherited)
    argv += _devices(*(f"isa-debug-exit,iobase={port:#x},iosize=4" for port in DEBUG_EXIT), "pvpanic")
    if machine.identity:
        kind, value = Key.parse(machine.identity).identity
        structure = IDENTITIES[kind].structure
        argv += ["-smbios", f"type={structure},{IDENTITIES[kind].qemu}={quoted(value)}"]
    if machine.gdb is not None:
        argv += ["-gdb", f"tcp:127.0.0.1:{machine.gdb}", "-S"]
    return (*argv, *machine.args)


def _attached(device: str, machine: Machine) -> str:
    """Return the value of ``-device`` for a part of the boot disk's bus."""
    size = machine.disk.sector
    # No BIOS boots from a disk of other sectors; UEFI finds the partitions only if they are the table's.
    others = "{drive}" in device and size != SECTOR and machine.uefi is not None
    sectors = f",logical_block_size={size},physical_block_size={size}" if others else ""
    return device.format(drive="disk0") + sectors


def _disks_and_card(machine: Machine, inherited: bool) -> list[str]:
    """Return the arguments for the further disks and the network card, in the machine's order."""
    disks = []
    for number, disk in enumerate(machine.further, 1):
        device = f"virtio-blk-pci,drive=disk{number},disable-legacy=off"
        disks.append(["-drive", _drive(disk, f"disk{number}", inherited), *_devices(device)])
    cards = []
    for number in range(machine.cards if machine.card is not None else 0):
        assert machine.card is not None
        # The published ports lead to the first.
        network = ",".join([f"user,id=net{number}", *map(_forwarded, machine.publish if not number else ())])
        cards.append(["-netdev", network, *_devices(machine.card.format(netdev=f"net{number}") + ",romfile=")])
    left = {"block": disks, "net": cards}
    ordered = [left[kind].pop(0) for kind in machine.order if left[kind]]
    return [word for each in (*ordered, *disks, *cards) for word in each]


def _devices(*values: str) -> list[str]:
    return [word for value in values for word in ("-device", value)]


def _size(size: int) -> str:
    return f"{size // MIB}M" if size % MIB == 0 else f"{size}B"


def _drive(disk: Drive, name: str, inherited: bool) -> str:
    options = ["if=none", f"id={name}", *([] if disk.persist else ["snapshot=on"])]
    node = _node(disk, disk.inherited if inherited else disk.path)
    return ",".join([*options, f"file={quoted(_json(node))}" if "backing" in node else _dotted(node)])


def unpacking(disk: Drive, to: str) -> tuple[str, ...]:
    """Return the command that writes the content of *disk* to the raw file *to*."""
    node = _node(disk, disk.path)
    source = [_json(node)] if "backing" in node else ["--image-opts", _dotted(node)]
    return ("qemu-img", "convert", "-O", "raw", *source, to)


def _node(disk: Drive, path: str) -> dict[str, Any]:
    """Return what QEMU opens as *disk*: the driver for exactly this file, so that nothing in it is followed."""
    node: dict[str, Any] = {"driver": "file", "filename": path}
    if disk.offset or disk.length is not None:
        size = {} if disk.length is None else {"size": disk.length}
        node = {"driver": "raw", "offset": disk.offset, **size, "file": node}
        if disk.format == "raw":
            return node
    backing = {"backing": None} if disk.format in _LAYERED else {}
    return {"driver": disk.format, **backing, "file": node}


def _json(node: Mapping[str, Any]) -> str:
    """Return *node* as a name for QEMU: the only way on a command line to say that there is no backing file."""
    return "json:" + json.dumps(node)


def _dotted(node: Mapping[str, Any], prefix: str = "") -> str:
    """Return *node* as options for QEMU."""
    return ",".join(
        _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else f"{prefix}{key}={quoted(str(value))}"
        for key, value in node.items()
    )


def _forwarded(forward: Forward) -> str:
    return f"hostfwd={forward.protocol}:127.0.0.1:{forward.host}-:{forward.guest}"


def machine_for(request: LaunchRequest, *, uefi: tuple[str, str] | None = None) -> Machine:
    """Choose the machine that *request*'s guest can drive, as far as the user did not.

    Raises:
        UsageError: the choices do not go together.
    """
    if request.disk is None:
        raise UsageError("QEMU boots a disk here, and there is none")
    guest = knowledge.guest(str(request.family), request.target)
    facts = knowledge.qemu()
    firmware = request.firmware or Firmware.BIOS
    bus = facts.buses[_bus(request, guest, facts.buses)]
    types = sorted(facts.machines, key=lambda name: facts.machines[name].firmware.index(str(firmware)))
    roomy = (name for name in types if facts.machines[name].low * MIB >= request.footprint)
    type_ = bus.machine or next(roomy, types[0])
    cards = sum(device.kind == "net" for device in request.devices or ()) or 1
    if (wanted := len(request.further) + cards) > SLOTS:
        raise UsageError(f"a PC has room for {SLOTS} disks and network cards besides its own, not for {wanted}")
    return Machine(
        type=type_,
        accel=request.accel,
        memory=request.memory or guest.memory_for(str(firmware), request.footprint) * MIB,
        display=guest.launch.display or ("std" if request.screen else "none"),
        uefi=uefi if firmware is Firmware.UEFI else None,
        settings=() if guest.launch.s3 or firmware is Firmware.BIOS else (facts.machines[type_].s3_off,),
        disk=request.disk,
        attach=bus.device,
        further=request.further,
        order=tuple(device.kind for device in request.devices or ()),
        card=facts.cards[_card(request, guest, facts.cards)] if _wants_network(request) else None,
        cards=cards,
        publish=request.publish,
        gdb=request.gdb,
        identity=request.identity,
        args=request.args,
    )


def _bus(request: LaunchRequest, guest: knowledge.GuestProfile, buses: Mapping[str, knowledge.Bus]) -> str:
    """Return the canonical name of the bus for the disk: the user's, else the guest's first that it drives."""
    if request.bus is not None:
        found = [name for name, bus in buses.items() if bus.option == request.bus]
        if not found:
            known = ", ".join(bus.option for bus in buses.values())
            raise UsageError(f"no such bus: {request.bus}", where="--bus", hint=f"known: {known}")
        return found[0]
    wanted = [name for name in guest.launch.buses if name in buses]
    return next((name for name in wanted if name in request.drivers), wanted[0])


def _wants_network(request: LaunchRequest) -> bool:
    if request.devices is not None and all(device.kind != "net" for device in request.devices):
        if request.publish:
            raise UsageError("its manifest asks for no network device a port could lead to", where="--publish")
        return False  # Solo5 stops at a device its manifest does not name
    return bool(request.publish) or not any(arg in ("-nic", "-netdev", "-net") for arg in request.args)


def _card(request: LaunchRequest, guest: knowledge.GuestProfile, cards: Mapping[str, str]) -> str:
    wanted = [name for name in guest.launch.nics if name in cards]
    return next((name for name in wanted if name in request.drivers), wanted[0])


def find_uefi() -> tuple[str, str]:
    """Return this machine's UEFI code and variable store.

    Raises:
        MissingToolError: there is none where the common distributions keep it.
    """
    for code, variables in OVMF:
        if os.path.exists(code) and os.path.exists(variables):
            return code, variables
    raise MissingToolError(
        "no UEFI firmware for QEMU is installed (OVMF)", hint="on Debian and Ubuntu: sudo apt install ovmf"
    )


@dataclass(frozen=True, kw_only=True)
class QemuPlan(LaunchPlan):
    """The machine, and whose guest is in it."""

    machine: Machine
    family: Family


class RunningQemu:
    """A QEMU process: its console, and how its guest ended."""

    def __init__(self, plan: QemuPlan, report: Report) -> None:
        self._family = plan.family
        self._report = report
        self._complaint = ""
        self._control = Control()
        self._log = BiosLog()
        control = self._control.theirs.fileno()
        of_bios = plan.machine.uefi is None and not any("debugcon" in word for word in plan.machine.args)
        self._disks = disks = (plan.machine.disk, *plan.machine.further)
        report(Ran(command(plan.machine)))
        try:
            self._child = programs.spawn(
                [
                    *command(plan.machine, inherited=True),
                    *("-chardev", f"socket,id=control,fd={control}", "-mon", "chardev=control,mode=control"),
                    *(self._log.arguments if of_bios else ()),
                ],
                pass_fds=[control, self._log.theirs, *(disk.fd for disk in disks if disk.fd is not None)],
                gently=any(disk.persist for disk in disks),
            )
        except BaseException:
            self._control.close()
            self._log.close()
            raise
        self.output = self._child.output

    @property
    def booted(self) -> bool | None:
        self._log.listen()
        return self._log.started

    def send(self, data: bytes) -> int:
        # Ctrl-A is special to the multiplexer of console and monitor; doubled it reaches the guest.
        before, control_a, _ = data.partition(b"\x01")
        if before or not control_a:
            return self._child.write(before)
        return self._child.write(b"\x01\x01") // 2

    def poll(self, quiet: float) -> Ending | None:
        for line in self._child.complaints():
            for disk in self._disks:
                line = line.replace(f"[{disk.inherited}]", f"[{disk.path}]")
            self._report(Warned(line))
            self._complaint = line
        status = self._child.poll()
        if status is not None:
            self._control.listen()
            told = self._control.ending
            # From QEMU 9 on, isa-debug-exit is announced as a power-off, too; only it gives another status than 0.
            if told is not None and (status == 0 or told.reason is not Reason.POWERED_OFF):
                return told
            return self._exited(status)
        self._log.listen()
        if quiet >= ASLEEP_AFTER and self._control.asleep():
            return Ending(Reason.HALTED, None, "its processors sleep with interrupts off")
        return None

    def _exited(self, status: int) -> Ending:
        """Explain an end by QEMU's exit status: isa-debug-exit leaves with 2 n + 1."""
        if status == 0:
            return Ending(Reason.STOPPED, None, "by QEMU's user")
        # QEMU ends with 1 as well if it cannot make the machine; what it says later are warnings.
        if status < 0 or status % 2 == 0 or (status == 1 and self._complaint and not self._control.answers):
            raise self._child.failure(self._complaint)
        value = status >> 1
        if self._family is Family.SOLO5 and value == SOLO5_EXIT:
            return Ending(Reason.EXITED)
        if self._family is Family.HERMIT:
            return Ending(Reason.EXITED, HERMIT_EXIT.get(value, value))
        return Ending(Reason.EXITED, 0 if value == CUSTOMARY_SUCCESS else value, "isa-debug-exit")

    def stop(self) -> None:
        self._child.end()
        self._control.close()
        self._log.close()


class _Qemu:
    name = "qemu"

    def plan(self, request: LaunchRequest) -> QemuPlan:
        machine = machine_for(request, uefi=find_uefi() if request.firmware is Firmware.UEFI else None)
        return QemuPlan(
            commands=(programs.shown(command(machine)),),
            notes=tuple(notes(request)),
            machine=machine,
            family=request.family,
        )

    def start(self, plan: LaunchPlan, report: Report) -> RunningQemu:
        assert isinstance(plan, QemuPlan)
        return RunningQemu(plan, report)


BACKEND: Backend = _Qemu()
