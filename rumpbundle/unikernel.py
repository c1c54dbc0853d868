"""What a kernel file is: a value that is made from a file once and is never half valid."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from rumpbundle.content import Content, InputFile
from rumpbundle.errors import KernelError


class Protocol(StrEnum):
    """A way to start a kernel that an image of ours can use; the name is GRUB's command."""

    MULTIBOOT = "multiboot"
    MULTIBOOT2 = "multiboot2"
    LINUX = "linux"
    LINUX16 = "linux16"
    EFI = "efi"


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class Family(StrEnum):
    """Who wrote the kernel, as far as the file tells; it decides how configuration reaches the guest."""

    RUMPRUN = "rumprun"
    SOLO5 = "solo5"
    UNIKRAFT = "unikraft"
    LINUX = "linux"
    XEN = "xen"
    PLAIN = "plain"


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
    """Linked disk and network drivers by canonical name (virtio-blk, virtio-scsi, virtio-net, e1000, …)."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Unikernel:
        """Read the kernel at *path*.

        Raises:
            InputError: the file cannot be read.
            KernelError: it is no kernel, or none that boots from a disk image; the hint says what to do.
        """
        file = InputFile(path)
        head = file.read(0, min(file.size, 32768))
        protocols = []
        at = next(
            (i for i in range(0, min(len(head), 8192) - 11, 4) if head[i : i + 4] == b"\x02\xb0\xad\x1b"),
            None,
        )
        if at is not None:
            protocols.append(Protocol.MULTIBOOT)
        if head[0x202:0x206] == b"HdrS":
            protocols.append(Protocol.LINUX)
        if not protocols:
            raise KernelError("is no bootable kernel", where=file.path)
        return cls(
            name=os.path.basename(file.path),
            content=Content.of_file(file),
            family=Family.PLAIN,
            protocols=tuple(protocols),
        )

    def protocol_for(self, firmware: Firmware, wanted: Protocol | None = None) -> Protocol | None:
        """Return the protocol that starts this kernel under *firmware*, or None if none can.

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
            return protocol
        return None
