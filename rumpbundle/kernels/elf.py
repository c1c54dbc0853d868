"""ELF: the object files Unix and most kernels are (Tool Interface Standard, "ELF" 1.2; ELF-64 draft 2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.view import View

MAGIC = b"\x7fELF"

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
PT_NULL, PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE = 0, 1, 2, 3, 4
DT_NEEDED, DT_SONAME = 1, 14
SHT_RELA, SHT_NOTE, SHT_NOBITS, SHT_REL = 4, 7, 8, 9

MACHINES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    43: "sparc64",
    62: "x86-64",
    183: "aarch64",
    243: "riscv",
    258: "loongarch",
}
"""``e_machine`` by the names people use."""

MAX_HEADERS = 512
"""Program headers looked at; kernels have 2 to 20. More are taken for damage."""
MAX_DYNAMIC = 1 << 14
"""Bytes of the dynamic section looked at."""
_SECTION_HEADER = {32: 40, 64: 64}
"""Bytes of a section header, by the class of the file."""
MAX_NAMES = 1 << 16
"""Bytes of section names looked at."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A program header: *filesz* bytes at *offset* of the file become *memsz* bytes at *paddr*."""

    at: int
    """Offset of the program header itself in the file."""
    type: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    type: int
    addr: int
    offset: int
    size: int
    at: int = 0
    """Offset of the section header itself in the file."""
    align: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """An ELF file as far as booting it goes."""

    bits: int
    machine: str
    type: int
    entry: int
    headers_end: int
    """Where the table of program headers ends in the file."""
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    sections_announced: int
    """How many section headers the file says it has (``e_shnum``); 0 if it says not where, or of no size."""
    sections_whole: bool
    """Whether the file holds all the section headers it announces."""
    is_library: bool
    """Whether programs load it: it says what name they link it by, or needs libraries and no dynamic linker."""
    flaw: str
    """What is broken about it, empty if nothing."""

    @property
    def loads(self) -> tuple[Segment, ...]:
        return tuple(s for s in self.segments if s.type == PT_LOAD)

    @property
    def loaded(self) -> tuple[range, ...]:
        """The physical addresses of each piece that is loaded."""
        return tuple(range(s.paddr, s.paddr + s.memsz) for s in self.loads if s.memsz)

    @property
    def load(self) -> range | None:
        """The physical addresses it occupies when loaded, from the lowest to the highest."""
        loaded = self.loaded
        if not loaded:
            return None
        return range(min(each.start for each in loaded), max(each.stop for each in loaded))

    @property
    def physical_entry(self) -> int | None:
        """The entry point as a physical address: how a loader without paging calls it. None if no segment has it.

        The first program header that covers it counts, whatever its type, as for GRUB.
        """
        for s in self.segments:
            if s.vaddr <= self.entry < s.vaddr + s.memsz:
                return self.entry - s.vaddr + s.paddr
        return None

    @property
    def overlaps(self) -> bool:
        """Whether two PT_LOADs that load something share an address."""
        ordered = sorted((each.start, each.stop) for each in self.loaded)
        return any(end > start for (_, end), (start, _) in pairwise(ordered))

    @property
    def empty_in_the_way(self) -> tuple[Segment, ...]:
        """The PT_LOADs that load nothing, to an address another one covers or that no loader reaches."""
        return tuple(
            s
            for s in self.loads
            if not s.memsz and (s.paddr >= 1 << 32 or any(o.paddr <= s.paddr < o.paddr + o.memsz for o in self.loads))
        )

    def notes(self, view: View) -> Iterator[tuple[int, int]]:
        """Yield offset and size of everything that holds notes; a section that is a segment too, once."""
        ranges = [(s.offset, s.size) for s in self.sections if s.type == SHT_NOTE]
        ranges += [(s.offset, s.filesz) for s in self.segments if s.type == PT_NOTE]
        seen: set[tuple[int, int]] = set()
        for found in ranges:
            if found not in seen and found[0] < view.size:
                seen.add(found)
                yield found


def read(view: View) -> Elf | None:
    """Return the ELF file *view* is, or None if it is none at all."""
    head = view.read(0, 64)
    if head[:4] != MAGIC:
        return None
    bits = {1: 32, 2: 64}.get(head[4] if len(head) > 4 else 0, 0)
    order = {1: "<", 2: ">"}.get(head[5] if len(head) > 5 else 0, "")
    if not bits or not order:
        return _broken("is a damaged ELF file: its class or byte order is none")
    layout = order + ("HHIIIIIHHHHHH" if bits == 32 else "HHIQQQIHHHHHH")
    if len(head) < 16 + struct.calcsize(layout):
        return _broken("is truncated in the ELF header", bits)
    (type_, machine, version, entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx) = (
        struct.unpack_from(layout, head, 16)
    )
    if not shoff or shentsize < _SECTION_HEADER[bits]:
        shnum = 0  # nobody can read what there may be
    segments, flaw = _segments(view, order, bits, phoff, phentsize, phnum)
    if version != 1:
        flaw = f"is a damaged ELF file: its version is {version}, not 1"
    return Elf(
        bits=bits,
        machine=MACHINES.get(machine, f"machine {machine}") + (" (big-endian)" if order == ">" else ""),
        type=type_,
        entry=entry,
        headers_end=phoff + phnum * phentsize,
        segments=segments,
        sections=_sections(view, order, bits, shoff, shentsize, shnum, shstrndx),
        sections_announced=shnum,
        sections_whole=shoff + shnum * shentsize <= view.size if shnum else True,
        is_library=_is_library(view, order, bits, segments),
        flaw=flaw,
    )


def _broken(flaw: str, bits: int = 0) -> Elf:
    return Elf(
        bits=bits,
        machine="",
        type=0,
        entry=0,
        headers_end=0,
        segments=(),
        sections=(),
        sections_announced=0,
        sections_whole=True,
        is_library=False,
        flaw=flaw,
    )


def _segments(
    view: View, order: str, bits: int, offset: int, stride: int, count: int
) -> tuple[tuple[Segment, ...], str]:
    layout = order + ("IIIIIIII" if bits == 32 else "IIQQQQQQ")
    if not count:
        return (), ""
    if count > MAX_HEADERS or stride < struct.calcsize(layout):
        return (), f"is a damaged ELF file: {count} program headers of {stride} bytes"
    table = view.read(offset, count * stride)
    if len(table) < count * stride:
        return (), "is truncated: the file ends before its ELF program headers do"
    segments = []
    for index in range(count):
        fields = struct.unpack_from(layout, table, index * stride)
        if bits == 32:
            type_, start, vaddr, paddr, filesz, memsz = fields[:6]
        else:
            type_, _, start, vaddr, paddr, filesz, memsz = fields[:7]
        segments.append(Segment(offset + index * stride, type_, start, vaddr, paddr, filesz, memsz))
    # One that holds nothing may be anywhere: nobody reads it.
    needed = max((s.offset + s.filesz for s in segments if s.type == PT_LOAD and s.filesz), default=0)
    if needed > view.size:
        return tuple(segments), f"is truncated: its segments reach to byte {needed}, the file has {view.size}"
    if any(s.filesz > s.memsz for s in segments if s.type == PT_LOAD):
        return tuple(segments), "is a damaged ELF file: a segment is larger in the file than in memory"
    return tuple(segments), ""


def _sections(
    view: View, order: str, bits: int, offset: int, stride: int, count: int, names_at: int
) -> tuple[Section, ...]:
    """Read the section headers. They are not needed to boot, so damaged ones are as good as none."""
    layout = order + ("IIIIIIIIII" if bits == 32 else "IIQQQQIIQQ")
    if not count or stride < struct.calcsize(layout):
        return ()
    table = view.read(offset, count * stride)
    if len(table) < count * stride:
        return ()
    rows = [struct.unpack_from(layout, table, index * stride) for index in range(count)]
    names = view.read(rows[names_at][4], min(rows[names_at][5], MAX_NAMES)) if names_at < count else b""
    return tuple(
        Section(
            names[name : name + 64].split(b"\0", 1)[0].decode("latin-1"),
            type_,
            addr,
            start,
            size,
            at=offset + index * stride,
            align=align,
        )
        for index, (name, type_, _, addr, start, size, _, _, align, _) in enumerate(rows)
    )


def interpreter(view: View, elf: Elf) -> str:
    """Return the path of the dynamic linker *elf* names, empty if it names none."""
    named = next((s for s in elf.segments if s.type == PT_INTERP), None)
    return view.read(named.offset, min(named.filesz, 256)).split(b"\0", 1)[0].decode("latin-1") if named else ""


def _is_library(view: View, order: str, bits: int, segments: tuple[Segment, ...]) -> bool:
    layout = order + ("II" if bits == 32 else "QQ")
    table = next((s for s in segments if s.type == PT_DYNAMIC), None)
    if table is None:
        return False
    data = view.read(table.offset, min(table.filesz, MAX_DYNAMIC))
    whole = len(data) - len(data) % struct.calcsize(layout)
    tags = {tag for tag, _ in struct.iter_unpack(layout, data[:whole])}
    return DT_SONAME in tags or (DT_NEEDED in tags and all(s.type != PT_INTERP for s in segments))
