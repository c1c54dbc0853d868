"""Who made a kernel, for which target, and which drivers are linked into it."""

from __future__ import annotations

import re

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import traces
from rumpbundle.kernels.anatomy import Anatomy
from rumpbundle.kernels.kinds import Family
from rumpbundle.kernels.notes import Device

_LINUX_RELEASE = re.compile(r"\d+\.\d+.* #\d+")
"""How every Linux kernel signs itself; what only borrows its boot protocol (memtest86+, iPXE) does not."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a kernel comes from, as far as the file tells."""

    family: Family
    target: str
    drivers: frozenset[str]
    marks: frozenset[bytes]
    """The telling texts found in it."""

    @classmethod
    def of(cls, anatomy: Anatomy) -> Origin:
        marks = _marks(anatomy)
        family = _family(anatomy, marks)
        drivers = _drivers(anatomy, family)
        return cls(family, _target(anatomy, family, drivers), drivers, marks)


def undriven(anatomy: Anatomy) -> tuple[Device, ...]:
    """Return the devices a Solo5 unikernel's manifest asks for though its own virtio binding cannot drive them."""
    first = {device.kind: device for device in reversed(anatomy.devices)}
    further = tuple(device for device in anatomy.devices if device is not first[device.kind])
    if anatomy.solo5 != "virtio" or not further:
        return ()
    return further if traces.search(anatomy.view, anatomy.elf, [traces.SOLO5_SINGLE]) else ()


def _marks(anatomy: Anatomy) -> frozenset[bytes]:
    if anatomy.solo5 or anatomy.setup is not None or _is_uki(anatomy):
        # Notes, setup header or sections tell; a compressed kernel inside says nothing.
        return frozenset()
    return traces.search(anatomy.view, anatomy.elf, traces.MARKS)


def _family(anatomy: Anatomy, marks: frozenset[bytes]) -> Family:
    if anatomy.solo5:
        return Family.SOLO5
    if traces.RUMPRUN in marks or traces.RUMPRUN_HW in marks:
        return Family.RUMPRUN
    if anatomy.has_unikraft_sections or traces.UNIKRAFT in marks:
        return Family.UNIKRAFT
    if anatomy.is_vmlinux:
        return Family.LINUX
    if anatomy.setup is not None and _LINUX_RELEASE.match(anatomy.setup.release):
        return Family.LINUX
    if _is_uki(anatomy):
        return Family.LINUX
    return Family.XEN if traces.XEN in marks else Family.PLAIN


def _is_uki(anatomy: Anatomy) -> bool:
    return anatomy.pe is not None and anatomy.pe.is_uki


def _drivers(anatomy: Anatomy, family: Family) -> frozenset[str]:
    if family is Family.SOLO5:
        return frozenset(("virtio-blk", "virtio-net")) if anatomy.solo5 == "virtio" else frozenset()
    known = {Family.RUMPRUN: traces.RUMPRUN_DRIVERS, Family.UNIKRAFT: traces.UNIKRAFT_DRIVERS}.get(family)
    if known is None:
        return frozenset()
    drivers = frozenset(known[needle] for needle in traces.search(anatomy.view, anatomy.elf, known))
    # Every rumprun kernel on Xen has the block front end: it is part of the platform, not a linked component.
    return drivers | {"xen-blk"} if family is Family.RUMPRUN and anatomy.is_xen_pv else drivers


def _target(anatomy: Anatomy, family: Family, drivers: frozenset[str]) -> str:
    """Return the build target; of rumprun, the bake configuration that has these drivers (rumprun-bake.conf)."""
    if family is Family.SOLO5:
        return anatomy.solo5
    if family is not Family.RUMPRUN:
        return ""
    if anatomy.is_xen_pv:
        return "xen_pci" if "e1000" in drivers else "xen_pv"
    if drivers & {"e1000", "usb"}:
        return "hw_generic"
    if "virtio-scsi" in drivers:
        return "hw_virtio_scsi"
    return "hw_virtio" if drivers else "hw"
