"""What a kernel file is: a value that is made from a file once and is never half valid."""

from __future__ import annotations

import os

from rumpbundle.arguments import file_name, flag
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import KernelError
from rumpbundle.kernels import foreign, packed, protocols, refusal, repair, strings
from rumpbundle.kernels.families import Traits, undriven
from rumpbundle.kernels.kernelfile import KernelFile
from rumpbundle.kernels.kinds import Family, Firmware, Protocol
from rumpbundle.kernels.notes import Device
from rumpbundle.kernels.protocols import Carried, Trouble
from rumpbundle.kernels.view import View

__all__ = ["Carried", "Device", "Family", "Firmware", "Protocol", "Trouble", "Unikernel"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unikernel:
    """A kernel that can be bundled."""

    name: str
    """The file's own name, without directories."""
    content: Content
    """The bytes to bundle: the file as it is, or repaired (then ``repairs`` says how)."""
    family: Family
    protocols: tuple[Protocol, ...]
    """Every protocol the file carries that a disk image can use, best first."""
    repairs: tuple[str, ...] = ()
    target: str = ""
    """What the family calls this build (rumprun: hw_virtio…, Solo5: virtio…); empty where it has no such idea."""
    drivers: frozenset[str] = frozenset()
    """Linked disk and network drivers by canonical name (virtio-blk, virtio-scsi, virtio-net, e1000, …); empty where
    the file does not tell, as with a compressed Linux kernel."""
    executable: str = "flat"
    """``ELF32``, ``ELF64``, ``PE32+``, ``PE32`` or ``flat``."""
    machine: str = "i386"
    """``i386``, ``x86-64``, ``aarch64``, …"""
    compression: str = ""
    """``gzip`` if the bundled bytes are compressed; GRUB unpacks them."""
    load: range | None = None
    """The physical addresses it occupies when loaded, where the file says so."""
    unloaded: int = 0
    """Bytes of sections, of symbols and for debuggers, that a boot loader puts into memory beside it."""
    entry: int | None = None
    """The physical address it is entered at, where the file says so."""
    headers: tuple[Carried, ...] = ()
    """All boot headers and notes, usable or not."""
    cmdline_limit: int | None = None
    """The longest command line the kernel itself says it takes, in bytes."""
    cmdline: str = ""
    """The command line that a unified kernel image brings along; one it is given takes its place."""
    devices: tuple[Device, ...] = ()
    """The devices a Solo5 unikernel's manifest asks for, in its order."""
    undriven: tuple[Device, ...] = ()
    """Those of them that the Solo5 it was linked with cannot drive."""
    pvh_entry: int | None = None
    """Where Xen and QEMU enter it as a PVH kernel, if they can."""
    xen_notes: tuple[tuple[str, int | str], ...] = ()
    """Its Xen notes by name (``guest_os``, ``virt_base``, …); ``entry`` among them makes it a PV kernel."""
    pv_flaw: str = ""
    """Why Xen does not enter it as a PV kernel, though it is one or may hold one; empty if nothing is known."""
    pvh_flaw: str = ""
    """The same of a PVH kernel."""
    troubles: tuple[Trouble, ...] = ()
    screen: str = ""
    """``framebuffer``, (VGA) ``text``, ``console`` (VGA text that it asks for) or ``terminal`` (as it is told), as
    far as the file tells; else empty."""
    vga_text: bool = False
    """Whether it prints into VGA text memory, and nowhere else that its file tells of."""
    warnings: tuple[str, ...] = ()
    """What its owner should know of it though it boots, as phrases after its name."""
    refusal: str = ""
    """Why no disk image can boot it, empty exactly if ``protocols`` is not."""
    advice: str = ""
    """What to do instead."""

    @classmethod
    def read(cls, path: str | os.PathLike[str], *, disk: bool = True) -> Unikernel:
        """Read the kernel at *path*; without *disk* also one that no disk image can boot, as Xen's PV kernels.

        Raises:
            InputError: the file cannot be read.
            KernelError: it is no kernel, or (with *disk*) none that boots from a disk; the hint says what to do.
        """
        file = InputFile(file_name("path", path))
        try:
            kernel = examine(os.path.basename(file.path), View.of_file(file), Content.of_file(file))
        except KernelError as error:
            raise type(error)(error.problem, where=file.path, hint=error.hint) from None
        if flag("disk", disk) and not kernel.protocols:
            raise KernelError(kernel.refusal, where=file.path, hint=kernel.advice or None)
        return kernel

    def protocol_for(self, firmware: Firmware, wanted: Protocol | None = None) -> Protocol | None:
        """Return the protocol that starts this kernel under *firmware*, or None if none can.

        A *wanted* protocol is taken even if it is known for trouble (see :meth:`trouble`).

        Raises:
            KernelError: *wanted* is given and the kernel does not carry it.
        """
        if wanted is not None and wanted not in self.protocols:
            carried = ", ".join(self.protocols)
            raise KernelError(f"does not carry the {wanted} protocol (it carries {carried})", where=self.name)
        for protocol in self.protocols if wanted is None else (wanted,):
            if protocol is Protocol.EFI and firmware is Firmware.BIOS:
                continue
            if protocol is Protocol.LINUX16 and firmware is Firmware.UEFI:
                continue
            if wanted is None and self.trouble(protocol, firmware):
                continue
            return protocol
        return None

    def trouble(self, protocol: Protocol, firmware: Firmware) -> str:
        """Return how this kernel is known to fail by *protocol* under *firmware*; empty if it is not."""
        return next((t.reason for t in self.troubles if t.protocol is protocol and t.firmware is firmware), "")

    def why_not(self, firmware: Firmware) -> str:
        """Return why :meth:`protocol_for` finds nothing for *firmware*, as a phrase for parentheses."""
        known = [t.reason for t in self.troubles if t.firmware is firmware and t.protocol in self.protocols]
        return known[0] if known else f"it carries {', '.join(self.protocols)}"


def examine(name: str, view: View, content: Content) -> Unikernel:
    """Return the kernel *view* is.

    Raises:
        KernelError: it is no kernel of any kind.
    """
    if not packed.is_gzip(view):
        return _judge(name, KernelFile.read(view), content, "")
    try:
        unpacked = View.of_bytes(packed.unpack(view))
    except KernelError as error:
        # Whoever unpacks an initrd or a disk has no kernel yet: what is in it is told, as of one that GRUB reads.
        other = foreign.unpacked(View.of_bytes(packed.head(view)), name) if error.hint else None
        raise (other or error) from None
    try:
        return _judge(name, KernelFile.read(unpacked), content, "gzip")
    except KernelError as error:
        raise foreign.after_gunzip(error) from None


def _judge(name: str, file: KernelFile, content: Content, compression: str) -> Unikernel:
    if file.is_flat:
        # A header's magic inside a disk image or an archive does not make it a kernel; in a program of another kind,
        # one that gives load addresses does.
        other = foreign.describe(file.view, name)
        if other is not None and not (other.hint == foreign.PROGRAM and file.placed):
            raise other
    usable = tuple(protocols.usable(file, compression))
    reason, advice = ("", "") if usable else refusal.of_kernel(file)
    if not usable and not reason:
        raise refusal.of_other(file, name)
    origin = Traits.of(file)
    mended, repairs = repair.mended(file, content, compression)
    load, entry = protocols.loaded(file, usable)
    return Unikernel(
        name=name,
        content=mended,
        family=origin.family,
        protocols=usable,
        repairs=repairs,
        target=origin.target,
        drivers=origin.drivers,
        executable=file.executable,
        machine=file.machine,
        compression="" if repairs else compression,
        load=load,
        unloaded=protocols.unloaded(file, usable),
        entry=entry,
        headers=tuple(protocols.carried(file)),
        cmdline_limit=file.setup.cmdline_size if file.setup is not None else None,
        cmdline=file.pe.cmdline if file.pe is not None and file.pe.is_uki else "",
        devices=file.devices,
        undriven=undriven(file),
        pvh_entry=file.pvh_entry,
        xen_notes=tuple(sorted(file.xen.items())),
        pv_flaw=file.pv_flaw,
        pvh_flaw=file.pvh_flaw,
        troubles=tuple(protocols.troubles(file, origin)),
        screen=protocols.screen(file, origin),
        vga_text=strings.VGA_TEXT in origin.marks,
        warnings=tuple(protocols.warnings(file, origin, usable, load)) if usable else (),
        refusal=reason,
        advice=advice,
    )
