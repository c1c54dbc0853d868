"""Who made a kernel, for which target, and which drivers are linked into it."""

from __future__ import annotations

import re

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import strings
from rumpbundle.kernels.kernelfile import KernelFile
from rumpbundle.kernels.kinds import Family
from rumpbundle.kernels.notes import Device

_LINUX_RELEASE = re.compile(r"\d+\.\d+.* #\d+")
"""How every Linux kernel signs itself; what only borrows its boot protocol (memtest86+, iPXE) does not."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Where a kernel comes from, as far as the file tells."""

    family: Family
    target: str
    drivers: frozenset[str]
    marks: frozenset[bytes]
    """The telling texts found in it."""

    @classmethod
    def of(cls, file: KernelFile) -> Traits:
        marks = _marks(file)
        family = _family(file, marks)
        drivers = _drivers(file, family)
        if family is Family.PLAIN and (file.multiboot1 or file.multiboot2) and strings.writes_vga_text(file.view):
            marks |= {strings.VGA_TEXT}
        return cls(family, _target(file, family, drivers), drivers, marks)


def undriven(file: KernelFile) -> tuple[Device, ...]:
    """Return the devices a Solo5 unikernel's manifest asks for though its own virtio binding cannot drive them."""
    first = {device.kind: device for device in reversed(file.devices)}
    further = tuple(device for device in file.devices if device is not first[device.kind])
    if file.solo5 != "virtio" or not further:
        return ()
    return further if strings.search(file.view, file.elf, [strings.SOLO5_SINGLE]) else ()


def _marks(file: KernelFile) -> frozenset[bytes]:
    if file.solo5 or file.setup is not None or _is_uki(file):
        # Notes, setup header or sections tell; a compressed kernel inside says nothing.
        return frozenset()
    return strings.search(file.view, file.elf, strings.MARKS)


def _family(file: KernelFile, marks: frozenset[bytes]) -> Family:
    if file.solo5:
        return Family.SOLO5
    if strings.RUMPRUN in marks or strings.RUMPRUN_HW in marks:
        return Family.RUMPRUN
    if strings.HERMIT in marks or strings.HERMIT_CRATE in marks or "HERMIT" in file.owners:
        return Family.HERMIT
    if file.has_unikraft_sections or strings.UNIKRAFT in marks:
        return Family.UNIKRAFT
    if file.is_vmlinux:
        return Family.LINUX
    if file.setup is not None and _LINUX_RELEASE.match(file.setup.release):
        return Family.LINUX
    if _is_uki(file):
        return Family.LINUX
    return Family.XEN if strings.XEN in marks else Family.PLAIN


def _is_uki(file: KernelFile) -> bool:
    return file.pe is not None and file.pe.is_uki


def _drivers(file: KernelFile, family: Family) -> frozenset[str]:
    if family is Family.SOLO5:
        return frozenset(("virtio-blk", "virtio-net")) if file.solo5 == "virtio" else frozenset()
    known = {Family.RUMPRUN: strings.RUMPRUN_DRIVERS, Family.UNIKRAFT: strings.UNIKRAFT_DRIVERS}.get(family)
    if known is None:
        return frozenset()
    drivers = frozenset(known[needle] for needle in strings.search(file.view, file.elf, known))
    # Every rumprun kernel on Xen has the block front end: it is part of the platform, not a linked component.
    return drivers | {"xen-blk"} if family is Family.RUMPRUN and file.is_xen_pv else drivers


def _target(file: KernelFile, family: Family, drivers: frozenset[str]) -> str:
    """Return the build target; of rumprun, the bake configuration that has these drivers (rumprun-bake.conf)."""
    if family is Family.SOLO5:
        return file.solo5
    if family is not Family.RUMPRUN:
        return ""
    if file.is_xen_pv:
        return "xen_pci" if "e1000" in drivers else "xen_pv"
    if drivers & {"e1000", "usb"}:
        return "hw_generic"
    if "virtio-scsi" in drivers:
        return "hw_virtio_scsi"
    return "hw_virtio" if drivers else "hw"
