"""PE32+ images, which EFI applications are (Microsoft "PE Format"; UEFI Specification 2.1.1)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.view import View

MACHINES = {
    0x014C: "i386",
    0x01C0: "arm",
    0x01C2: "arm",
    0x01C4: "arm",
    0x8664: "x86-64",
    0xAA64: "aarch64",
    0x5032: "riscv32",
    0x5064: "riscv64",
    0x6264: "loongarch64",
}
EFI_APPLICATION, EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER = 10, 11, 12
_PE32_PLUS = 0x20B
MAX_SECTIONS = 96
"""The most the Windows loader takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pe:
    """A PE image."""

    bits: int
    """64 for PE32+, 32 for PE32, 0 if the file ends before it says."""
    machine: str
    subsystem: int
    sections: tuple[str, ...]
    flaw: str = ""
    """Why 64-bit PC firmware does not start it, empty if it does."""

    @property
    def is_efi(self) -> bool:
        return self.subsystem in (EFI_APPLICATION, EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER)

    @property
    def is_uki(self) -> bool:
        """Whether it is a unified kernel image: Linux, initrd and command line in one EFI application."""
        return ".linux" in self.sections

    @property
    def detail(self) -> str:
        """One phrase for people."""
        return f"PE32{'+' if self.bits == 64 else ''} {self.machine}, subsystem {self.subsystem}"


def read(view: View) -> Pe | None:
    """Return the PE image *view* is, or None if it is none."""
    dos = view.read(0, 64)
    if dos[:2] != b"MZ" or len(dos) < 64:
        return None
    at = int.from_bytes(dos[60:64], "little")
    header = view.unpack("<4sHHIIIHH", at)
    if header is None or header[0] != b"PE\0\0":
        return None
    _, machine, count, _, _, _, optional_size, _ = header
    magic = view.unpack("<H", at + 24)
    # It stands at the same place in PE32 and PE32+.
    subsystem = view.unpack("<H", at + 24 + 68)
    name = MACHINES.get(machine, f"machine {machine:#x}")
    if magic is None or subsystem is None or magic[0] not in (0x10B, 0x20B):
        return Pe(
            bits=0,
            machine=name,
            subsystem=0,
            sections=(),
            flaw="is truncated in its PE header",
        )
    table = at + 24 + optional_size
    sections = _sections(view, table, min(count, MAX_SECTIONS))
    end = max((each.end for each in sections), default=0)
    flaw = ""
    if end > view.size or len(sections) < min(count, MAX_SECTIONS):
        end = max(end, view.size + 1)
        flaw = f"is truncated: its PE sections reach to byte {end}, the file has {view.size}"
    elif subsystem[0] in (EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER):
        flaw = "is an EFI driver, which no firmware boots"
    elif subsystem[0] != EFI_APPLICATION:
        flaw = "is a Windows program"
    elif name != "x86-64":
        flaw = f"is an EFI application for {name}"
    else:
        flaw = _refused(view, at + 24, optional_size, table + 40 * count, sections)
    return Pe(
        bits=64 if magic[0] == 0x20B else 32,
        machine=name,
        subsystem=subsystem[0],
        sections=tuple(each.name for each in sections),
        flaw=flaw,
    )


class _Section(NamedTuple):
    name: str
    size: int
    """In memory."""
    address: int
    start: int
    length: int
    """Of its data in the file."""

    @property
    def end(self) -> int:
        return self.start + self.length if self.start and self.length else 0


def _sections(view: View, at: int, count: int) -> list[_Section]:
    """Return the sections whose headers the file holds."""
    found: list[_Section] = []
    for index in range(count):
        row = view.read(at + index * 40, 40)
        if len(row) < 40:
            break
        size, address, length, start = struct.unpack_from("<4I", row, 8)
        name = row[:8].rstrip(b"\0").decode("latin-1")
        found.append(_Section(name, max(size, length), address, start, length))
    return found


def _refused(view: View, optional: int, size: int, headers_end: int, sections: list[_Section]) -> str:
    """Return why EDK2 does not load the x86-64 image whose optional header stands at *optional*; empty if it does.

    MdePkg/Library/BasePeCoffLib/BasePeCoff.c, PeCoffLoaderGetPeHeader; the entry point was seen to be jumped to.
    """
    if view.unpack("<H", optional) != (_PE32_PLUS,):
        return "is an EFI application for x86-64 with a header for 32 bits (PE32, not PE32+)"
    fields = view.unpack("<16xI12xI20xII44xI", optional)
    if fields is None:
        return "is truncated in its PE header"
    entry, alignment, image, headers, directories = fields
    if directories > 16 or size != 112 + 8 * directories:
        return f"has a PE header of {size} bytes that tells of {directories} directories, which firmware refuses"
    if not headers_end <= headers < image or headers > view.size:
        return f"has PE headers of {headers} bytes in an image of {image}, which firmware refuses"
    if not alignment or any(each.length and each.start < headers for each in sections):
        return "has PE sections that lie in its headers, or no alignment for them, which firmware refuses"
    if any(each.address + each.size > image for each in sections):
        return f"has PE sections that reach beyond its image of {image} bytes, which firmware refuses"
    if not any(each.address <= entry < each.address + each.size for each in sections):
        return f"has its entry point at {entry:#x}, in none of its sections"
    return ""
