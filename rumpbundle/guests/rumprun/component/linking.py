"""A component as an ELF relocatable: its files, the tables of them, and the constructor that hands them over."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from rumpbundle.disk.content import Content, Source
from rumpbundle.disk.flat import write_content
from rumpbundle.disk.layout import round_up
from rumpbundle.guests.rumprun.component.gathering import ALIGN, Component
from rumpbundle.guests.rumprun.component.relocatable import (
    ALLOC,
    EXECUTE,
    FUNCTION,
    INIT_ARRAY,
    OBJECT,
    WRITE,
    PlacedSection,
    Processor,
    Relocation,
    Symbol,
    relocatable,
)
from rumpbundle.host.staging import staged_file

MACHINES = {
    "x86_64": Processor(name="x86_64", number=62, bits=64, rela=True),
    "i386": Processor(name="i386", number=3, bits=32, rela=False),
    "aarch64": Processor(name="aarch64", number=183, bits=64, rela=True),
}
_PLATEFS = "rumprun_platefs"


def write_object(component: Component, machine: str) -> Content:
    """Return the object file for *machine* (a key of ``MACHINES``); file data is read when it is written."""
    target = MACHINES[machine]
    names, name_places = _names(component)
    word = target.word
    record = 4 * word  # three words and an int, padded to words
    files_at = round_up(len(component.directories) * word, ALIGN)
    payload_at = round_up(files_at + len(component.files) * record, ALIGN)
    table = bytearray(payload_at)
    pointer = 1 if target.bits == 32 or machine == "x86_64" else 257  # R_386_32, R_X86_64_64, R_AARCH64_ABS64
    directories = len(component.directories)
    relocations = [Relocation(at * word, pointer, ".rodata", name_places[at]) for at in range(directories)]
    payload: list[Source] = []
    places: dict[int, int] = {}
    position = payload_at
    for index, (_, content) in enumerate(component.files):
        at = files_at + index * record
        place = places.get(id(content))
        if place is None:
            place = places[id(content)] = position
            gap = round_up(content.size, ALIGN) - content.size
            payload += (*content.sources, *Content.of_bytes(bytes(gap)).sources)
            position += content.size + gap
        relocations.append(Relocation(at, pointer, ".rodata", name_places[len(component.directories) + index]))
        relocations.append(Relocation(at + word, pointer, ".data", place))
        table[at + 2 * word : at + 3 * word] = content.size.to_bytes(word, "little")
    code, calls = _constructor(machine, len(component.directories), files_at, len(component.files))
    sections = (
        PlacedSection(name=".text", flags=ALLOC | EXECUTE, align=ALIGN, data=code, relocations=calls),
        PlacedSection(
            name=".init_array",
            type=INIT_ARRAY,
            flags=ALLOC | WRITE,
            align=word,
            data=bytes(word),
            relocations=(Relocation(0, pointer, ".text"),),
            entry_size=word,
        ),
        PlacedSection(name=".rodata", flags=ALLOC, data=names),
        # Writable: the guest opens these files for writing, and writes where the data lies.
        PlacedSection(
            name=".data",
            flags=ALLOC | WRITE,
            align=ALIGN,
            data=bytes(table),
            payload=Content(tuple(payload)),
            relocations=tuple(relocations),
        ),
        PlacedSection(name=".note.GNU-stack"),
    )
    symbols = (
        Symbol(name="rumpbundle_component", section=".text", size=len(code), kind=FUNCTION),
        Symbol(name="rumpbundle_directories", section=".data", size=len(component.directories) * word, kind=OBJECT),
        Symbol(
            name="rumpbundle_files", section=".data", value=files_at, size=len(component.files) * record, kind=OBJECT
        ),
        Symbol(name=_PLATEFS),
    )
    return relocatable(target, sections, symbols)


def _names(component: Component) -> tuple[bytes, list[int]]:
    """Return the paths of all directories and files, each with a NUL, and where each begins."""
    names = bytearray()
    places: list[int] = []
    for path in (*component.directories, *(path for path, _ in component.files)):
        places.append(len(names))
        names += os.fsencode(path) + b"\0"
    return bytes(names), places


def save(component: Component, machine: str, output: Path, *, force: bool = False, sync: bool = True) -> None:
    """Write the object file for *machine* to *output*: whole, or not at all.

    Raises:
        RumpbundleError: see :func:`rumpbundle.host.staging.staged_file`; an input changed; the disk is full.
    """
    with staged_file(output, force=force, sync=sync) as staged:
        write_content(write_object(component, machine), staged.fd)


def _constructor(machine: str, directories: int, files_at: int, files: int) -> tuple[bytes, tuple[Relocation, ...]]:
    """Return the code that calls ``rumprun_platefs(.data, directories, .data + files_at, files)``."""
    match machine:
        case "x86_64":
            code = (
                b"\x48\x8d\x3d\0\0\0\0"  # lea rdi, [rip + .data]
                + struct.pack("<BI", 0xBE, directories)  # mov esi, directories
                + b"\x48\x8d\x15\0\0\0\0"  # lea rdx, [rip + .data + files_at]
                + struct.pack("<BI", 0xB9, files)  # mov ecx, files
                + b"\xe9\0\0\0\0"  # jmp rumprun_platefs
            )
            return code, (
                Relocation(3, 2, ".data", -4),  # R_X86_64_PC32, relative to the instruction's end
                Relocation(15, 2, ".data", files_at - 4),
                Relocation(25, 4, _PLATEFS, -4),  # R_X86_64_PLT32
            )
        case "i386":
            code = (
                b"\x83\xec\x0c"  # sub esp, 12: with the four arguments the stack is aligned to 16 at the call
                + struct.pack("<BI", 0x68, files)  # push files
                + b"\x68\0\0\0\0"  # push .data + files_at
                + struct.pack("<BI", 0x68, directories)  # push directories
                + b"\x68\0\0\0\0"  # push .data
                + b"\xe8\0\0\0\0"  # call rumprun_platefs
                + b"\x83\xc4\x1c\xc3"  # add esp, 28; ret
            )
            return code, (
                Relocation(9, 1, ".data", files_at),  # R_386_32
                Relocation(19, 1, ".data"),
                Relocation(24, 2, _PLATEFS, -4),  # R_386_PC32
            )
        case _:
            code = struct.pack(
                "<9I",
                0x90000000,  # adrp x0, .data
                0x91000000,  # add x0, x0, :lo12:.data
                0xD2800001 | (directories & 0xFFFF) << 5,  # movz x1, directories
                0xF2A00001 | (directories >> 16) << 5,  # movk x1, directories >> 16, lsl 16
                0x90000002,  # adrp x2, .data + files_at
                0x91000042,  # add x2, x2, :lo12:.data + files_at
                0xD2800003 | (files & 0xFFFF) << 5,  # movz x3, files
                0xF2A00003 | (files >> 16) << 5,  # movk x3, files >> 16, lsl 16
                0x14000000,  # b rumprun_platefs
            )
            return code, (
                Relocation(0, 275, ".data"),  # R_AARCH64_ADR_PREL_PG_HI21
                Relocation(4, 277, ".data"),  # R_AARCH64_ADD_ABS_LO12_NC
                Relocation(16, 275, ".data", files_at),
                Relocation(20, 277, ".data", files_at),
                Relocation(32, 282, _PLATEFS),  # R_AARCH64_JUMP26
            )
