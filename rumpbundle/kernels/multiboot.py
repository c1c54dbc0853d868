"""Multiboot 1 and 2 headers, and what GRUB makes of them.

Multiboot Specification 0.6.96 section 3.1 and 2.0 section 3.1. Where GRUB (2.06 as 2.12) is stricter or laxer than
the specification, GRUB counts: it is the loader in our images.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.elf import ET_DYN, ET_EXEC, SHT_REL, SHT_RELA, Elf
from rumpbundle.kernels.view import View

BEYOND = 1 << 20
"""How far we look for a header that GRUB will not see, to be able to say so."""

UNKNOWN_FLAGS = 0xFFF8
"""Required features of Multiboot 1 that do not exist; GRUB refuses a kernel that asks for one."""
KLUDGE = 1 << 16
MAX_TAGS = 64

ARCHITECTURES = {0: "i386", 4: "mips"}


@dataclass(frozen=True, slots=True)
class _Kind:
    """Where GRUB looks for a header: its first *size* bytes, words that sum up to 0, within *search* bytes."""

    name: str
    magic: int
    size: int
    align: int
    search: int


_ONE = _Kind("Multiboot", 0x1BADB002, 12, 4, 8192)
_TWO = _Kind("Multiboot 2", 0xE85250D6, 16, 8, 32768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A Multiboot header."""

    version: int
    offset: int
    flags: int = 0
    """Multiboot 1: its flags."""
    tags: tuple[int, ...] = ()
    """Multiboot 2: the types of its tags, in order."""
    machine: str = "i386"
    load: range | None = None
    """The physical addresses the header itself says it loads to (a.out kludge, address tag)."""
    entry: int | None = None
    """The entry point the header itself gives."""
    flaw: str = ""
    """Why GRUB will not boot it by this header, empty if it will."""

    @property
    def detail(self) -> str:
        """One phrase for people."""
        kludge = ", loads by its addresses" if self.load is not None else ""
        if self.version == 1:
            return f"at {self.offset:#x}, flags {self.flags:#x}{kludge}"
        return f"at {self.offset:#x}, {self.machine}, tags {' '.join(map(str, self.tags)) or 'none'}{kludge}"


def read1(view: View, elf: Elf | None) -> Header | None:
    """Return the Multiboot 1 header GRUB would take, else the best near miss with its flaw, else None."""
    head = view.read(0, BEYOND)
    near: Header | None = None
    for at, (_, flags, _), flaw in _candidates(head, _ONE):
        if not flaw:
            return _multiboot1(view, elf, head, at, flags)
        near = near or Header(version=1, offset=at, flags=flags, flaw=flaw)
    return near


def read2(view: View, elf: Elf | None) -> Header | None:
    """Return the Multiboot 2 header GRUB would take, else the best near miss with its flaw, else None."""
    head = view.read(0, BEYOND)
    near: Header | None = None
    for at, (_, architecture, length, _), misplaced in _candidates(head, _TWO):
        machine = ARCHITECTURES.get(architecture, f"architecture {architecture}")
        flaw = misplaced or ("" if machine == "i386" else f"its Multiboot 2 header is for {machine}")
        if not flaw:
            return _multiboot2(view, elf, head, at, length)
        near = near or Header(version=2, offset=at, machine=machine, flaw=flaw)
    return near


def _candidates(head: bytes, kind: _Kind) -> Iterator[tuple[int, tuple[int, ...], str]]:
    """Yield offset, words and misplacement of all that might be a header; what has a bad checksum comes last."""
    magic = kind.magic.to_bytes(4, "little")
    unsound = None
    at = head.find(magic)
    while 0 <= at <= len(head) - kind.size:
        words = struct.unpack_from(f"<{kind.size // 4}I", head, at)
        seen = at + kind.size <= kind.search
        if sum(words) & 0xFFFFFFFF:
            if seen and unsound is None:
                unsound = at, words, f"its {kind.name} header at {at:#x} has a bad checksum"
        elif at % kind.align:
            yield at, words, f"its {kind.name} header at {at:#x} is not aligned to {kind.align} bytes"
        elif not seen:
            where = f"GRUB looks only in the first {kind.search >> 10} KiB"
            yield at, words, f"its {kind.name} header is at {at:#x}, {where}"
        else:
            yield at, words, ""
        at = head.find(magic, at + 1)
    if unsound is not None:
        yield unsound


def _multiboot1(view: View, elf: Elf | None, head: bytes, at: int, flags: int) -> Header:
    flaw = f"its Multiboot flags {flags:#x} require a feature GRUB does not have" if flags & UNKNOWN_FLAGS else ""
    if view.size < 32:
        flaw = flaw or "is truncated: GRUB wants at least 32 bytes"
    if not flags & KLUDGE:
        return Header(
            version=1, offset=at, flags=flags, flaw=flaw or _elf_flaw(elf, _ONE.search) or _overlap_flaw(elf)
        )
    if len(head) < at + 32:
        return Header(version=1, offset=at, flags=flags, flaw="is truncated in its Multiboot header")
    addresses = struct.unpack_from("<IIIII", head, at + 12)
    load, kludge_flaw = _by_addresses(view, at, *addresses[:4])
    entry = addresses[4]
    if not kludge_flaw and load is not None and entry not in load:
        kludge_flaw = f"its Multiboot header enters at {entry:#x}, outside of what it loads"
    return Header(version=1, offset=at, flags=flags, load=load, entry=entry, flaw=flaw or kludge_flaw)


def _by_addresses(
    view: View, at: int, header_addr: int, load_addr: int, load_end: int, bss_end: int
) -> tuple[range | None, str]:
    """Return what the address fields ("a.out kludge") load, and what is wrong with them."""
    start = at - (header_addr - load_addr)
    if start < 0 or header_addr < load_addr:
        return None, "its Multiboot header's addresses begin before the file does"
    length = load_end - load_addr if load_end else view.size - start
    if length <= 0 or (bss_end and bss_end < load_addr + length):
        return None, "its Multiboot header's addresses run backwards"
    load = range(load_addr, bss_end or load_addr + length)
    if start + length > view.size:
        # GRUB does not notice and starts half a kernel.
        return load, f"is truncated: its Multiboot header loads up to byte {start + length}, the file has {view.size}"
    return load, ""


def _elf_flaw(elf: Elf | None, search: int) -> str:
    """Return why GRUB's ELF loader refuses *elf* (grub-core/loader/multiboot_elfxx.c), empty if it takes it."""
    if elf is None:
        return "has a Multiboot header without load addresses, but is no ELF file"
    if elf.flaw:
        return elf.flaw
    if elf.machine != {32: "i386", 64: "x86-64"}[elf.bits]:
        return f"is a kernel for {elf.machine} in a {elf.bits}-bit ELF file"
    if elf.type not in (ET_EXEC, ET_DYN):
        return "has a Multiboot header, but is no executable ELF file"
    if elf.headers_end > search:
        return f"its ELF program headers end at {elf.headers_end:#x}, GRUB looks only in the first {search >> 10} KiB"
    if elf.load is None:
        return "has no segments to load"
    if elf.load.stop > 1 << 32:
        return f"loads up to {elf.load.stop:#x}, above the 4 GiB a Multiboot loader reaches"
    if elf.physical_entry is None:
        return f"its entry point {elf.entry:#x} is in none of its segments"
    if not elf.sections_whole:
        return "is truncated: the file ends before its ELF section headers do"
    return ""


def _overlap_flaw(elf: Elf | None) -> str:
    """Return what is wrong where GRUB gives every segment a block of memory of its own: unless it may relocate."""
    return "has segments that overlap in memory, which GRUB refuses" if elf is not None and elf.overlaps else ""


# Types of the header tags of Multiboot 2, and of the information tags a kernel may ask for.
_INFORMATION, _ADDRESS, _ENTRY, _EFI_BS, _ENTRY_EFI64, _RELOCATABLE = 1, 2, 3, 7, 9, 10
_KNOWN_TAGS = frozenset((_INFORMATION, _ADDRESS, _ENTRY, 4, 5, 6, _EFI_BS, _ENTRY_EFI64, _RELOCATABLE))
_KNOWN_INFORMATION = frozenset(range(22))
_WHOLE_FILE = 0xFFFFFFFF
"""As load address: load from the start of the file."""


def _multiboot2(view: View, elf: Elf | None, head: bytes, at: int, length: int) -> Header:
    tags, flaw = _tags(head, at + 16, min(at + length, len(head), _TWO.search))
    kinds = tuple(kind for kind, _, _ in tags)
    load: range | None = None
    entry: int | None = None
    for kind, optional, body in tags:
        if kind == _ADDRESS and len(body) >= 16:
            header_addr, load_addr, load_end, bss_end = struct.unpack_from("<IIII", body)
            if load_addr == _WHOLE_FILE:
                load_addr = header_addr - at
            load, wrong = _by_addresses(view, at, header_addr, load_addr, load_end, bss_end)
            flaw = flaw or wrong
        elif kind == _ENTRY and len(body) >= 4:
            (entry,) = struct.unpack_from("<I", body)
        elif not optional:
            flaw = flaw or _unmet(kind, body)
    if _ADDRESS in kinds:
        if entry is None and not {_EFI_BS, _ENTRY_EFI64} <= set(kinds):
            flaw = flaw or "its Multiboot 2 header gives load addresses but no entry address"
    else:
        flaw = flaw or _elf_flaw(elf, _TWO.search)
        if elf is not None and any(s.type in (SHT_REL, SHT_RELA) for s in elf.sections):
            flaw = flaw or "has relocation sections, which GRUB's multiboot2 refuses"
        if _RELOCATABLE not in kinds:
            flaw = flaw or _overlap_flaw(elf)
    return Header(version=2, offset=at, tags=kinds, load=load, entry=entry, flaw=flaw)


def _tags(head: bytes, at: int, end: int) -> tuple[list[tuple[int, bool, bytes]], str]:
    """Return type, optional flag and body of each tag up to the end tag, and what is wrong with their chain."""
    tags: list[tuple[int, bool, bytes]] = []
    while len(tags) < MAX_TAGS:
        if at + 8 > end:
            return tags, "its Multiboot 2 header has no end tag"
        kind, flags, size = struct.unpack_from("<HHI", head, at)
        if kind == 0:
            return tags, ""
        if size < 8 or at + size > end:
            return tags, f"its Multiboot 2 header has a tag of {size} bytes that leaves it"
        tags.append((kind, bool(flags & 1), head[at + 8 : at + size]))
        at += (size + 7) & ~7
    return tags, f"its Multiboot 2 header has more than {MAX_TAGS} tags"


def _unmet(kind: int, body: bytes) -> str:
    """Return what the required tag *kind* asks for that GRUB does not give, empty if it gives all."""
    if kind not in _KNOWN_TAGS:
        return f"its Multiboot 2 header requires tag {kind}, which GRUB does not know"
    if kind == _INFORMATION:
        for wanted in struct.unpack_from(f"<{len(body) // 4}I", body):
            if wanted not in _KNOWN_INFORMATION:
                return f"its Multiboot 2 header requires information {wanted}, which GRUB does not give"
    return ""
