"""Which protocols start a kernel, in which order, and where that is known to fail.

All that the file carries and a disk image can use, best first:

1. a PE image: ``linux`` if it has a Linux setup header too, then ``efi``. Multiboot headers inside a PE image count
   last, and only with load addresses, as in kernels built with Microsoft's tools: else GRUB refuses them
   (``invalid arch-dependent ELF magic``);
2. else ``multiboot2`` before ``multiboot`` (Xen's Multiboot 1 entry hangs under UEFI), then ``linux``, or ``linux16``
   where the kernel has no 32-bit entry that works.

The first of them that the firmware knows is taken (``linux16`` needs a BIOS, ``efi`` needs UEFI), except where the
kernel is known to fail that way (``troubles``). ``--protocol`` overrides all of this.
"""

from __future__ import annotations

from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import grubelf, strings
from rumpbundle.kernels.families import Traits
from rumpbundle.kernels.kernelfile import KernelFile
from rumpbundle.kernels.kinds import Family, Firmware, Protocol
from rumpbundle.kernels.multiboot import Header


@dataclass(frozen=True, slots=True)
class Carried:
    """Something in the file that a boot loader could use, whether or not ours can."""

    kind: str
    """``multiboot``, ``multiboot2``, ``linux``, ``efi``, ``pvh``, ``xen`` or ``solo5``."""
    detail: str
    flaw: str = ""
    """Why a disk image cannot use it; empty if it can."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A protocol of this kernel that is known to fail under one firmware (docs/facts/guests.md#other-kernels)."""

    protocol: Protocol
    firmware: Firmware
    reason: str


def usable(file: KernelFile, compression: str) -> Iterator[Protocol]:
    """Yield what a disk image can start the kernel by, best first (see above)."""
    if file.solo5 and file.solo5 != "virtio":
        # Solo5's Xen binding has a Multiboot header and yet says nothing under GRUB: the header alone is no proof.
        return
    if file.pe is None:
        yield from _by_multiboot(file)
    if file.setup is not None and not file.setup.flaw:
        yield Protocol.LINUX16 if file.setup.needs_real_mode else Protocol.LINUX
    if file.pe is not None and not file.pe.flaw and not compression:
        yield Protocol.EFI
    if file.pe is not None:
        yield from _by_multiboot(file)


def _by_multiboot(file: KernelFile) -> Iterator[Protocol]:
    for protocol, header in ((Protocol.MULTIBOOT2, file.multiboot2), (Protocol.MULTIBOOT, file.multiboot1)):
        if header is not None and not header.flaw and (file.pe is None or header.load is not None):
            yield protocol


def _header(file: KernelFile, protocols: tuple[Protocol, ...]) -> Header | None:
    """Return the Multiboot header that the best of *protocols* goes by, if it is one."""
    headers = {Protocol.MULTIBOOT2: file.multiboot2, Protocol.MULTIBOOT: file.multiboot1}
    return headers.get(protocols[0]) if protocols else None


def loaded(file: KernelFile, protocols: tuple[Protocol, ...]) -> tuple[range | None, int | None]:
    """Return the physical addresses the best of *protocols* loads the kernel to, and where it enters it."""
    header = _header(file, protocols)
    load = entry = None
    if file.elf is not None:
        load, entry = file.elf.load, file.elf.physical_entry
    elif file.setup is not None:
        load, entry = file.setup.load, file.setup.code32_start or None
    elif file.pe is not None:
        load = file.pe.load
    if header is not None:
        load = load if header.load is None else header.load
        entry = entry if header.entry is None else header.entry
    if header is not None and load is not None and header.lowest > load.start:
        up = header.lowest - load.start
        return range(load.start + up, load.stop + up), None if entry is None else entry + up
    return load, entry


def unloaded(file: KernelFile, protocols: tuple[Protocol, ...]) -> int:
    """Return how many bytes GRUB reads besides what the best of *protocols* loads of the kernel."""
    header = _header(file, protocols)
    if file.elf is None or header is None or header.load is not None:
        return 0
    return grubelf.unloaded_size(file.elf, file.view)


_MUCH_MEMORY = 1 << 30
"""A kernel that is loaded higher than this was meant to be loaded lower, most likely."""
_LEAST_LOW = 2 << 30
"""Up to here every PC has memory, if it has that much."""
_BELOW_DEVICES = " below its devices, which begin at 2 GiB on many (UEFI on QEMU's q35)"
"""What to say of a kernel that is loaded above that (low in knowledge/platforms.toml)."""
_LOW = {
    False: "in the linker script, .text : AT(ADDR(.text) - OFFSET)",
    True: "lower the min_addr of its Multiboot 2 header (tag 10)",
}
"""How a kernel is loaded low, by whether it is one that is moved."""


def warnings(file: KernelFile, origin: Traits, protocols: tuple[Protocol, ...], load: range | None) -> Iterator[str]:
    """Yield what its owner should know of a kernel that the best of *protocols* starts, as phrases after its name."""
    application = file.pe if _header(file, protocols) is None else None
    if load is not None and load.stop > _MUCH_MEMORY and application is not None:
        yield (
            f"{application.fixed}, so firmware must load it at {load.start:#x}, and the machine needs more than "
            f"{load.stop >> 30} GiB of memory; {application.advice}"
        )
    elif load is not None and application is not None and application.is_damaged:
        yield (
            f"{application.fixed}, so it starts only where its image base {load.start:#x} is free, as it is under "
            f"OVMF; {application.advice}"
        )
    elif load is not None and load.stop > _MUCH_MEMORY and (file.multiboot1 or file.multiboot2):
        where = _BELOW_DEVICES if load.stop > _LEAST_LOW else ""
        yield (
            f"loads to {load.start:#x}, so the machine needs more than {load.stop >> 30} GiB of memory{where}; if it "
            f"was only meant to run there, load it low: {_LOW[bool(file.multiboot2 and file.multiboot2.lowest)]}"
        )
    if strings.VGA_TEXT in origin.marks:
        yield (
            "writes to VGA text memory (0xb8000), which is not there under UEFI, nor in a machine without a display "
            "adapter: what it prints there nobody sees"
        )


def troubles(file: KernelFile, origin: Traits) -> Iterator[Trouble]:
    """Yield what is known to fail: by the header, and what was seen (docs/facts/guests.md#other-kernels)."""
    for protocol, header in ((Protocol.MULTIBOOT2, file.multiboot2), (Protocol.MULTIBOOT, file.multiboot1)):
        for firmware, reason in header.not_under if header is not None else ():
            yield Trouble(protocol, firmware, reason)

    if file.pe is not None and file.pe.in_the_way:
        yield Trouble(Protocol.EFI, Firmware.UEFI, f"{file.pe.in_the_way}; {file.pe.advice}")

    def under_uefi(reason: str) -> Trouble:
        return Trouble(Protocol.MULTIBOOT, Firmware.UEFI, reason)

    if origin.family is Family.XEN:
        yield under_uefi("Xen hangs silently when multiboot starts it under UEFI; multiboot2 works")
    if strings.GNU_MACH in origin.marks:
        yield under_uefi("GNU Mach resets the machine under UEFI")
    if strings.INVADERS in origin.marks:
        yield under_uefi("GRUB Invaders draws into VGA text memory, which UEFI does not have")


def screen(file: KernelFile, origin: Traits) -> str:
    """Return what the kernel draws on: ``framebuffer``, ``text``, or nothing as far as headers and code tell.

    ``console`` is VGA text as well, but asked for: whether there is a serial port, too, is not known.
    ``terminal`` is one that starts as Linux does and is none: memtest86+, iPXE and memdisk write to the screen, and
    the first to a serial port as well if it is told to.
    """
    if any(header.framebuffer for header in (file.multiboot1, file.multiboot2) if header is not None):
        return "framebuffer"
    if file.setup is not None and origin.family is Family.PLAIN:
        return "terminal"
    if origin.marks & {strings.VGA_TEXT, strings.INVADERS}:
        return "text"
    asked = any(header.text for header in (file.multiboot1, file.multiboot2) if header is not None)
    return "console" if asked else ""


def carried(file: KernelFile) -> Iterator[Carried]:
    for kind, header in (("multiboot2", file.multiboot2), ("multiboot", file.multiboot1)):
        if header is not None:
            flaw = "inside a PE image, where GRUB refuses it" if file.pe and header.load is None else header.flaw
            yield Carried(kind, header.detail, flaw)
    if file.setup is not None:
        yield Carried("linux", file.setup.detail, file.setup.flaw)
    if file.pe is not None:
        yield Carried("efi", file.pe.detail, file.pe.flaw)
    if file.is_xen_pv:
        guest = file.xen.get("guest_os", "unnamed guest")
        yield Carried("xen", f"PV kernel, {guest}", file.pv_flaw or "only Xen's domain builder starts it")
    if file.pvh_entry is not None:
        yield Carried("pvh", f"entry {file.pvh_entry:#x}", file.pvh_flaw or "no boot loader on a disk enters by PVH")
    if file.solo5:
        wants = ", ".join(map(str, file.devices)) or "no devices"
        yield Carried("solo5", f"target {file.solo5}, {wants}")
