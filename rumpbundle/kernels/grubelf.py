"""What GRUB's ELF loader takes, refuses, and takes once it is mended in the copy.

grub-core/loader/multiboot_elfxx.c of GRUB 2.06 and 2.12, which both Multiboot protocols use. What a program header
covers counts whatever its type when GRUB looks for the entry point; a section that has no address and some size is
read from the file, whatever its type.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rumpbundle.kernels.elf import ET_DYN, ET_EXEC, PT_NOTE, PT_NULL, SHT_NOBITS, Elf, Section, Segment
from rumpbundle.kernels.flaws import Flaw, Repair
from rumpbundle.kernels.view import View

HIGHEST = 0xC000_0000
"""Where the memory of a PC ends below 4 GiB at the latest: devices have their addresses behind it."""
_HALF = 0xC000_0000
"""Where 32-bit kernels are linked that keep the lower addresses for programs."""
_ROMS = range(0xC_0000, 0x10_0000)
_VIDEO = range(0xA_0000, 0xC_0000)
_TEXT_SCREEN = range(0xB_8000, 0xC_0000)
_WIDEST_ALIGNMENT = 1 << 20
_ALIGNMENT = 16
"""Suits all that a symbol table holds."""


def flaw(elf: Elf | None, view: View, search: int) -> Flaw | None:
    """Return why GRUB refuses *elf*, None if it takes it; it looks for headers in the first *search* bytes."""
    if elf is None:
        return Flaw(
            "has a Multiboot header without load addresses, but is no ELF file",
            "give its header load addresses (flag 16, or the address tag), or bundle the ELF file it was made from",
        )
    if elf.flaw:
        return Flaw(elf.flaw)
    if elf.machine != {32: "i386", 64: "x86-64"}[elf.bits]:
        return Flaw(f"is a kernel for {elf.machine} in a {elf.bits}-bit ELF file")
    if elf.type not in (ET_EXEC, ET_DYN):
        return Flaw("has a Multiboot header, but is no executable ELF file")
    if elf.headers_end > search:
        return Flaw(
            f"its ELF program headers end at {elf.headers_end:#x}, GRUB looks only in the first {search >> 10} KiB"
        )
    if elf.load is None:
        return Flaw("has no segments to load")
    return _entry_flaw(elf) or _cut_section(elf, view)


def load_flaw(loads: Iterable[range]) -> Flaw | None:
    """Return why no memory is where a piece of a kernel is to be loaded, None if there can be."""
    load = min((each for each in loads if each.stop > HIGHEST), key=_start, default=None)
    if load is None:
        return None
    if load.start < HIGHEST >> 1:
        return Flaw(
            f"takes {load.start:#x} to {load.stop:#x}, more memory than a PC has below 4 GiB (GRUB: out of memory)",
            "take at run time what it has in .bss",
        )
    advice = (
        "link it for its high addresses, but load it low: in the linker script, .text : AT(ADDR(.text) - "
        f"{_offset(load):#x}), and so for each section"
    )
    if load.stop > 1 << 32:
        return Flaw(f"loads up to {load.stop:#x}, above the 4 GiB a Multiboot loader reaches", advice)
    return Flaw(f"loads to {load.start:#x}, where a PC has no memory (GRUB: out of memory)", advice)


def hole_flaw(loads: Iterable[range]) -> Flaw | None:
    """Return why nothing keeps what is read from the file to one of *loads*, None if memory is there.

    GRUB copies it there all the same.
    """
    for load in loads:
        for hole, what in ((_ROMS, "ROMs"), (_VIDEO, "video memory")):
            low, high = max(load.start, hole.start), min(load.stop, hole.stop)
            # A picture for the text screen is at home there.
            if low < high and not (_TEXT_SCREEN.start <= load.start and load.stop <= _TEXT_SCREEN.stop):
                where = f"loads to {low:#x}" if low == load.start else f"loads to {load.start:#x} and over {low:#x}"
                advice = "link it for 1 MiB and above (. = 1M; in the linker script)"
                return Flaw(f"{where}, where a PC has {what}", advice)
    return None


def _start(load: range) -> int:
    return load.start


def _offset(load: range) -> int:
    """Return by how much what is to be loaded at *load* was linked too high, as far as one can guess."""
    for base in (0xFFFF_FFFF_8000_0000, 0xFFFF_8000_0000_0000, _HALF):
        if load.start >= base:
            return base
    return load.start - 0x10_0000


def place_flaw(elf: Elf | None, view: View) -> Flaw | None:
    """Return what is wrong where GRUB gives every segment a block of memory of its own: unless it may relocate."""
    if elf is None:
        return None
    if elf.overlaps:
        return Flaw(
            "has segments that overlap in memory, which GRUB refuses", "let each section begin where the last ends"
        )
    return load_flaw(elf.loaded) or hole_flaw(
        range(s.paddr, s.paddr + s.filesz) for s in elf.loads if _loses(s, elf, view)
    )


def lost(view: View, load: range, offset: int) -> bytes:
    """Return what of *load*, which is in the file at *offset*, goes to where there is no memory."""
    low, high = max(load.start, _VIDEO.start), min(load.stop, _ROMS.stop)
    return view.read(low - load.start + offset, high - low)


def _loses(segment: Segment, elf: Elf, view: View) -> bool:
    """Whether a kernel might miss what of *segment* goes to where there is no memory.

    It does not miss the ELF file's own headers, and its notes, which a linker told ``-Ttext=0x100000`` and no more
    puts right below that; nor zeros.
    """
    start = segment.offset + max(_VIDEO.start - segment.paddr, 0)
    missed = bytearray(lost(view, range(segment.paddr, segment.paddr + segment.filesz), segment.offset))
    notes = (range(s.offset, s.offset + s.filesz) for s in elf.segments if s.type == PT_NOTE)
    for known in (range(elf.headers_end), *notes):
        first, end = max(known.start - start, 0), min(known.stop - start, len(missed))
        if first < end:
            missed[first:end] = bytes(end - first)
    return any(missed)


def _entry_flaw(elf: Elf) -> Flaw | None:
    found = elf.physical_entry
    if found is not None:
        if any(s.paddr <= found < s.paddr + s.memsz for s in elf.loads):
            return None
        return Flaw(f"its entry point {elf.entry:#x} is in a program header that is not loaded")
    for s in elf.loads:
        if s.paddr <= elf.entry < s.paddr + s.memsz:
            linked = elf.entry - s.paddr + s.vaddr
            return Flaw(
                f"its entry point {elf.entry:#x} is in none of its segments: it is where the entry is in memory, and "
                f"GRUB wants the address it is linked to, {linked:#x}",
                f"let ENTRY name the symbol at {linked:#x}; QEMU's -kernel starts the file as it is",
            )
    return Flaw(
        f"its entry point {elf.entry:#x} is in none of its segments",
        "name the first instruction with ENTRY in the linker script",
    )


def _unloaded(elf: Elf) -> Iterator[Section]:
    """Yield the sections GRUB reads besides the segments, for the kernel's symbols."""
    return (section for section in elf.sections if not section.addr and section.size)


def unloaded_size(elf: Elf, view: View) -> int:
    """Return how many bytes these are, of a kernel that is mended if need be."""
    return sum(section.size for section in _unloaded(elf) if section.offset + section.size <= view.size)


def _cut_section(elf: Elf, view: View) -> Flaw | None:
    if not elf.sections_whole:
        return Flaw("is truncated: the file ends before its ELF section headers do")
    for section in _unloaded(elf):
        end = section.offset + section.size
        if section.type != SHT_NOBITS and end > view.size:
            name = section.name or "with no name"
            return Flaw(f"is truncated: its section {name} reaches to byte {end}, the file has {view.size}")
    return None


def repairs(elf: Elf, view: View) -> Iterator[Repair]:
    """Yield what must be mended in a copy of *elf* so that GRUB takes it.

    - A PT_LOAD of memory size 0 inside another, or above 4 GiB, becomes PT_NULL: there is nothing in it to load
      (docs/facts/guests.md#unikraft).
    - A section without address that holds nothing (NOBITS) and is longer than the rest of the file loses its size.
    - One whose alignment GRUB cannot use, as 0, gets another: it searches for such a place for ever.
    """
    for segment in elf.empty_in_the_way:
        yield Repair(
            segment.at,
            PT_NULL.to_bytes(4, "little"),
            f"switched off the empty program header at {segment.at:#x}, at which GRUB stops"
            + (" (overlap detected)" if segment.paddr < 1 << 32 else " (segment crosses 4 GiB border)"),
        )
    width, size_at, align_at = (4, 20, 32) if elf.bits == 32 else (8, 32, 48)
    for section in _unloaded(elf):
        name = f"section {section.name}" if section.name else f"section header at {section.at:#x}"
        if section.offset + section.size > view.size:
            yield Repair(
                section.at + size_at,
                bytes(width),
                f"took the size from {name}, which has no address and no content, but GRUB reads it from the file "
                "(premature end of file)",
            )
        elif _unusable(section.align):
            yield Repair(
                section.at + align_at,
                _ALIGNMENT.to_bytes(width, "little"),
                f"aligned {name} to {_ALIGNMENT} bytes, not to {section.align:#x}, for which GRUB finds no place",
            )


def _unusable(align: int) -> bool:
    low = align & 0xFFFF_FFFF  # GRUB keeps 32 bits
    return not low or low > _WIDEST_ALIGNMENT or bool(low & low - 1)
