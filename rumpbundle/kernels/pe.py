"""PE32+ images, which EFI applications are (Microsoft "PE Format"; UEFI Specification 2.1.1)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import relocations
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
RELINK = (
    "link it with relocations (a .reloc section, as lld-link, MSVC and GNU-EFI make it), or with another image base"
)
_NONE = "has no relocations"
_UNTOUCHED = "link it again, and leave the .reloc section as the linker made it"
_MAX_TEXT = 4096
"""Bytes of a command line that are looked at; Linux on x86 takes half of that."""
_PAGE = 4096
_SIGNATURES, _RELOCATIONS = 4, 5
"""Their numbers among the directories; of the former the address is an offset in the file."""
_STRIPPED = 1
"""The Characteristics bit that says there are no relocations: it counts, whatever directories and sections say."""
_LOW = range(0x10_0000)
"""Where EDK2 does not try to load what it can move."""
_HOLE = range(0xA0000, 0x100000)
"""Video memory and ROMs of a PC."""
_DEVICES = range(0xC000_0000, 1 << 32)
"""Where a PC has its devices below 4 GiB, and no memory."""
_PHYSICAL = 1 << 52
"""Bytes that x86-64 can address."""
_OVMF = range(0x80_0000, 0x150_0000)
"""Where OVMF has data of its own (docs/facts/guests.md#efi-applications)."""


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
    advice: str = ""
    """What to do about that, where it can be said."""
    cmdline: str = ""
    """What a unified kernel image tells the Linux in it, unless it is told something itself (systemd-stub(7))."""
    fixed: str = ""
    """Why it must be loaded at its image base, as a phrase after its name; empty if it may be loaded anywhere."""
    load: range | None = None
    """The physical addresses it must be loaded to, then."""

    @property
    def in_the_way(self) -> str:
        """Why the firmware most machines have does not load it where it must be loaded; empty if it does."""
        if self.load is None or self.load.start >= _OVMF.stop or self.load.stop <= _OVMF.start:
            return ""
        return (
            f"it {self.fixed}, so UEFI must load it at {self.load.start:#x}-{self.load[-1]:#x}, and OVMF has "
            f"data of its own between {_OVMF.start:#x} and {_OVMF[-1]:#x}"
        )

    @property
    def is_damaged(self) -> bool:
        """Whether firmware can load it at its base only because its relocations are broken, not for want of any."""
        return bool(self.fixed) and self.fixed != _NONE

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
    _, machine, count, _, _, _, optional_size, characteristics = header
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
    flaw = advice = fixed = ""
    load = None
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
        movable = not characteristics & _STRIPPED
        if not flaw and not movable:
            fixed, advice = _NONE, RELINK
        elif not flaw:
            flaw, fixed = _relocations(view, at + 24, sections)
            advice = _UNTOUCHED if flaw or fixed else ""
        if fixed:
            load, flaw = _at_base(view, at + 24, fixed, _LOW if movable else range(0))
    return Pe(
        bits=64 if magic[0] == 0x20B else 32,
        machine=name,
        subsystem=subsystem[0],
        sections=tuple(each.name for each in sections),
        flaw=flaw,
        advice=advice,
        cmdline=_text(view, sections, ".cmdline"),
        fixed=fixed,
        load=load,
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


def _text(view: View, sections: list[_Section], name: str) -> str:
    """Return the text in the section called *name*; empty if there is none."""
    found = next((each for each in sections if each.name == name and each.start), None)
    data = b"" if found is None else view.read(found.start, min(found.length, _MAX_TEXT))
    return " ".join(data.partition(b"\0")[0].decode("utf-8", "replace").split())


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
    signed, length = (directories > _SIGNATURES and view.unpack("<II", optional + 112 + 8 * _SIGNATURES)) or (0, 0)
    if length and signed + length > view.size:
        return f"is truncated: its signature reaches to byte {signed + length}, the file has {view.size}"
    if any(each.address + each.size > image for each in sections):
        return f"has PE sections that reach beyond its image of {image} bytes, which firmware refuses"
    if not any(each.address <= entry < each.address + each.size for each in sections):
        return f"has its entry point at {entry:#x}, in none of its sections"
    return ""


def _relocations(view: View, optional: int, sections: list[_Section]) -> tuple[str, str]:
    """Return why EDK2 loads the image nowhere, and why only at its base, by its relocations; both may be empty."""
    fields = view.unpack("<56xII44xI", optional)
    directory = view.unpack("<II", optional + 112 + 8 * _RELOCATIONS)
    if fields is None or directory is None or fields[2] <= _RELOCATIONS:
        return "", ""
    image, headers, _ = fields
    address, size = directory
    if flaw := relocations.out_of_place(address, size, image):
        return flaw, ""
    table = _loaded(view, headers, sections, address, min(size, relocations.LIMIT) + 8 if size else 0)
    stop = relocations.broken(table, size, image)
    return "", f"has relocations that firmware cannot carry out ({stop})" if stop else ""


def _loaded(view: View, headers: int, sections: list[_Section], address: int, size: int) -> bytes:
    """Return *size* bytes at *address* of the loaded image, zeros where nothing of the file is."""
    found = bytearray(size)
    for begin, start, length in ((0, 0, headers), *((each.address, each.start, each.length) for each in sections)):
        low, high = max(begin, address), min(begin + length, address + size)
        if low < high:
            data = view.read(start + low - begin, high - low)
            found[low - address : low - address + len(data)] = data
    return bytes(found)


def _at_base(view: View, optional: int, fixed: str, untried: range) -> tuple[range | None, str]:
    """Return where an image that is *fixed* at its base must be loaded, and why that cannot be; else an empty text.

    MdeModulePkg/Core/Dxe/Image/Image.c, CoreLoadPeImage: pages are asked for at exactly that address, but for one
    *untried*.
    """
    fields = view.unpack("<24xQI20xI", optional)
    assert fields is not None, "read before"
    base, alignment, size = fields
    # It takes as much more for an alignment above a page's.
    load = range(base, base + -(-size // _PAGE) * _PAGE + (alignment if alignment > _PAGE else 0))
    must = f"{fixed}, so firmware must load it at its image base {base:#x}"
    if not base or base % max(alignment, _PAGE):
        return None, f"{must}, which is {f'no multiple of {max(alignment, _PAGE)}' if base else 'refused'}"
    if base in untried:
        return None, f"{must}, which it does not try below {untried.stop:#x}"
    if load.stop > _PHYSICAL or any(load.start < gap.stop and gap.start < load.stop for gap in (_HOLE, _DEVICES)):
        return None, f"{must} (to {load[-1]:#x}), where a PC has no memory"
    return load, ""
