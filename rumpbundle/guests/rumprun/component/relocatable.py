"""Write an ELF relocatable object: sections, symbols and relocations laid end to end, no compiler needed.

Only what :mod:`rumpbundle.guests.rumprun.component` needs of it, for little-endian x86-64, i386 and AArch64. Sources:
System V ABI (gABI) chapters 4 and its processor supplements; ELF for the Arm 64-bit Architecture.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import field, replace

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content, Literal, Source
from rumpbundle.disk.layout import round_up

PROGBITS, SYMTAB, STRTAB, RELA, REL, INIT_ARRAY = 1, 2, 3, 4, 9, 14
WRITE, ALLOC, EXECUTE = 1, 2, 4
_INFO_LINK = 0x40
_GLOBAL = 1 << 4
FUNCTION, OBJECT, SECTION = 2, 1, 3
_HEADER = "16sHHIPPPIHHHHHH"
_SECTION_HEADER = "IIPPPPIIPP"
_EMPTY = Content(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A processor's dialect of ELF: *rela* says whether addends stand in the relocations or in the place itself."""

    name: str
    number: int
    """``e_machine``."""
    bits: int
    rela: bool

    @property
    def word(self) -> int:
        """Bytes of a pointer."""
        return self.bits // 8

    def pack(self, layout: str, *values: int | bytes) -> bytes:
        """Pack *values* little-endian; ``P`` in *layout* is a field of pointer size (``Elf_Addr`` and its like)."""
        return struct.pack("<" + layout.replace("P", "Q" if self.bits == 64 else "I"), *values)


@dataclass(frozen=True, slots=True)
class Relocation:
    """At *offset* of its section: the address of *symbol* plus *addend*, as the processor's *type* puts it."""

    offset: int
    type: int
    symbol: str
    addend: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSection:
    """A section: *data*, in which the relocations lie, and *payload* behind it."""

    name: str
    type: int = PROGBITS
    flags: int = 0
    align: int = 1
    data: bytes = b""
    payload: Content = _EMPTY
    relocations: tuple[Relocation, ...] = ()
    link: int = 0
    info: int = 0
    entry_size: int = 0

    @property
    def size(self) -> int:
        return len(self.data) + self.payload.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A local symbol at *value* of *section*; without a section, an undefined global one."""

    name: str
    section: str = ""
    value: int = 0
    size: int = 0
    kind: int = 0


@dataclass(slots=True)
class _Strings:
    """A string table; the same string gets the same place."""

    data: bytearray = field(default_factory=lambda: bytearray(1))
    places: dict[str, int] = field(default_factory=lambda: {"": 0})

    def add(self, text: str) -> int:
        if text not in self.places:
            self.places[text] = len(self.data)
            self.data += os.fsencode(text) + b"\0"
        return self.places[text]


def relocatable(target: Processor, sections: tuple[PlacedSection, ...], symbols: tuple[Symbol, ...]) -> Content:
    """Return the object file. A relocation names one of *sections* or of *symbols*; local symbols come first."""
    numbers = {section.name: number for number, section in enumerate(sections, 1)}
    related = [section for section in sections if section.relocations]
    symtab_number = len(sections) + len(related) + 1
    symbol_numbers, symtab, strtab, first_global = _symbols(target, numbers, symbols)
    tables = [
        PlacedSection(
            name=(".rela" if target.rela else ".rel") + section.name,
            type=RELA if target.rela else REL,
            flags=_INFO_LINK,
            align=target.word,
            data=b"".join(_packed(target, relocation, symbol_numbers) for relocation in section.relocations),
            link=symtab_number,
            info=numbers[section.name],
            entry_size=(3 if target.rela else 2) * target.word,
        )
        for section in related
    ]
    tables.append(
        PlacedSection(
            name=".symtab",
            type=SYMTAB,
            align=target.word,
            data=symtab,
            link=symtab_number + 1,
            info=first_global,
            entry_size=24 if target.bits == 64 else 16,
        )
    )
    tables.append(PlacedSection(name=".strtab", type=STRTAB, data=strtab))
    placed = sections if target.rela else tuple(map(_addends_in_place, sections))
    return _laid_out(target, (*placed, *tables))


def _laid_out(target: Processor, sections: tuple[PlacedSection, ...]) -> Content:
    """Return header, sections, section names and section headers, each at its alignment."""
    names = _Strings()
    for name in (*(section.name for section in sections), ".shstrtab"):
        names.add(name)
    sections = (*sections, PlacedSection(name=".shstrtab", type=STRTAB, data=bytes(names.data)))
    header_size, section_header_size = 40 + 3 * target.word, 16 + 6 * target.word
    headers = [bytes(section_header_size)]
    sources: list[Source] = []
    position = header_size
    for s in sections:
        offset = round_up(position, s.align)
        if s.size:
            sources += Content.of_bytes(bytes(offset - position)).sources
            sources += (*Content.of_bytes(s.data).sources, *s.payload.sources)
            position = offset + s.size
        fields = (names.places[s.name], s.type, s.flags, 0, offset, s.size, s.link, s.info, s.align, s.entry_size)
        headers.append(target.pack(_SECTION_HEADER, *fields))
    at = round_up(position, target.word)
    ident = b"\x7fELF" + bytes((target.bits // 32, 1, 1))
    sizes = (header_size, 0, 0, section_header_size, len(headers), len(headers) - 1)
    header = target.pack(_HEADER, ident, 1, target.number, 1, 0, 0, at, 0, *sizes)
    return Content((Literal(header), *sources, Literal(bytes(at - position) + b"".join(headers))))


def _addends_in_place(section: PlacedSection) -> PlacedSection:
    """Put the addends where a REL processor looks for them: into the 32-bit words they belong to."""
    data = bytearray(section.data)
    for relocation in section.relocations:
        struct.pack_into("<i", data, relocation.offset, relocation.addend)
    return replace(section, data=bytes(data))


def _packed(target: Processor, relocation: Relocation, symbols: Mapping[str, int]) -> bytes:
    symbol = symbols[relocation.symbol]
    if target.rela:
        return struct.pack("<QQq", relocation.offset, symbol << 32 | relocation.type, relocation.addend)
    return struct.pack("<II", relocation.offset, symbol << 8 | relocation.type)


def _symbols(
    target: Processor, numbers: Mapping[str, int], symbols: tuple[Symbol, ...]
) -> tuple[dict[str, int], bytes, bytes, int]:
    """Return the number of every symbol by name, the symbol table, its strings, and the first global's number."""
    strings = _Strings()
    table = [_symbol(target, 0, 0, 0, 0, 0)]
    found: dict[str, int] = {}
    for section, number in numbers.items():
        found[section] = len(table)
        table.append(_symbol(target, 0, SECTION, number, 0, 0))
    first_global = len(table)
    for symbol in symbols:
        found[symbol.name] = len(table)
        name = strings.add(symbol.name)
        if symbol.section:
            first_global = len(table) + 1
            table.append(_symbol(target, name, symbol.kind, numbers[symbol.section], symbol.value, symbol.size))
        else:
            table.append(_symbol(target, name, _GLOBAL, 0, 0, 0))
    return found, b"".join(table), bytes(strings.data), first_global


def _symbol(target: Processor, name: int, info: int, section: int, value: int, size: int) -> bytes:
    if target.bits == 64:
        return target.pack("IBBHPP", name, info, 0, section, value, size)
    return target.pack("IPPBBH", name, value, size, info, 0, section)
