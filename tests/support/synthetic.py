"""Kernel files built in code, right or wrong in exactly one way. None of them does anything when started."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

LOAD, DYNAMIC, INTERP, NOTE = 1, 2, 3, 4
PROGBITS, STRTAB, SHT_NOTE, RELA, NOBITS = 1, 3, 7, 4, 8
I386, X86_64, AARCH64, RISCV = 3, 62, 183, 243
EXEC, DYN, REL, CORE = 2, 3, 1, 4


@dataclass(frozen=True)
class Segment:
    """A program header and its bytes; *memsz* defaults to their number, *offset* to where they land."""

    data: bytes = b""
    type: int = LOAD
    paddr: int = 0x100000
    vaddr: int | None = None
    memsz: int | None = None
    filesz: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class Section:
    name: str
    data: bytes
    type: int = PROGBITS
    addr: int = 0
    size: int | None = None
    """What its header says, if not what there is."""
    align: int = 16


def elf(
    segments: Sequence[Segment] = (),
    sections: Sequence[Section] | None = (),
    *,
    bits: int = 64,
    machine: int | None = None,
    type: int = EXEC,
    entry: int | None = None,
    order: str = "<",
) -> bytes:
    """Return an ELF file; the first segment's bytes stand right behind the program headers, aligned to 16.

    It has section headers, be it the null section alone, unless *sections* is None.
    """
    header_size, segment_size, section_size = (52, 32, 40) if bits == 32 else (64, 56, 64)
    machine = (I386 if bits == 32 else X86_64) if machine is None else machine
    body = bytearray(header_size + segment_size * len(segments))
    rows = []
    for segment in segments:
        body += bytes(-len(body) % 16)
        filesz = len(segment.data) if segment.filesz is None else segment.filesz
        memsz = filesz if segment.memsz is None else segment.memsz
        vaddr = segment.paddr if segment.vaddr is None else segment.vaddr
        at = len(body) if segment.offset is None else segment.offset
        if bits == 32:
            row = struct.pack(order + "8I", segment.type, at, vaddr, segment.paddr, filesz, memsz, 5, 16)
        else:
            row = struct.pack(order + "IIQQQQQQ", segment.type, 5, at, vaddr, segment.paddr, filesz, memsz, 16)
        rows.append(row)
        body += segment.data
    body[header_size : header_size + segment_size * len(segments)] = b"".join(rows)
    names = b"\0"
    table = [bytes(section_size)] if sections is not None else []
    for section in sections or ():
        body += bytes(-len(body) % 16)
        size = len(section.data) if section.size is None else section.size
        table.append(_section(bits, order, len(names), section.type, section.addr, len(body), size, section.align))
        names += section.name.encode() + b"\0"
        body += section.data
    if sections:
        names += b".shstrtab\0"
        table.append(_section(bits, order, len(names) - 10, STRTAB, 0, len(body), len(names)))
        body += names
    body += bytes(-len(body) % 16)
    first = segments[0] if segments else Segment()
    entry = (first.paddr if first.vaddr is None else first.vaddr) if entry is None else entry
    layout = order + ("HHIIIIIHHHHHH" if bits == 32 else "HHIQQQIHHHHHH")
    body[:header_size] = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9) + struct.pack(
        layout, type, machine, 1, entry, header_size, len(body) if sections is not None else 0, 0, header_size,
        segment_size, len(segments), section_size, len(table), max(len(table) - 1, 0),
    )  # fmt: skip
    return bytes(body) + b"".join(table)


def _section(bits: int, order: str, name: int, type: int, addr: int, offset: int, size: int, align: int = 1) -> bytes:
    layout = "IIIIIIIIII" if bits == 32 else "IIQQQQIIQQ"
    return struct.pack(order + layout, name, type, 0, addr, offset, size, 0, 0, align, 0)


def multiboot1(flags: int = 3, *fields: int, checksum: int | None = None) -> bytes:
    """Return a Multiboot 1 header; *fields* follow the checksum."""
    checksum = -(0x1BADB002 + flags) & 0xFFFFFFFF if checksum is None else checksum
    return struct.pack(f"<III{len(fields)}I", 0x1BADB002, flags, checksum, *fields)


def tag(kind: int, body: bytes = b"", *, flags: int = 0, size: int | None = None) -> bytes:
    """Return a Multiboot 2 header tag, padded to 8 bytes."""
    size = 8 + len(body) if size is None else size
    return struct.pack("<HHI", kind, flags, size) + body + bytes(-len(body) % 8)


def multiboot2(
    *tags: bytes, architecture: int = 0, end: bool = True, checksum: int | None = None, length: int | None = None
) -> bytes:
    """Return a Multiboot 2 header."""
    body = b"".join(tags) + (tag(0) if end else b"")
    length = 16 + len(body) if length is None else length
    checksum = -(0xE85250D6 + architecture + length) & 0xFFFFFFFF if checksum is None else checksum
    return struct.pack("<IIII", 0xE85250D6, architecture, length, checksum) + body


def note(owner: bytes, kind: int, value: bytes) -> bytes:
    """Return one ELF note."""
    name = owner + b"\0"
    return (
        struct.pack("<III", len(name), len(value), kind)
        + name + bytes(-len(name) % 4) + value + bytes(-len(value) % 4)
    )  # fmt: skip


def solo5_notes(target: int, *devices: tuple[str, int]) -> bytes:
    """Return the notes of a Solo5 unikernel as its linker lays them out (padding before the manifest included)."""
    manifest = bytes(4) + struct.pack("<II", 1, len(devices) + 1)
    for name, kind in (("", 1 << 30), *devices):
        manifest += name.encode().ljust(68, b"\0") + struct.pack("<I", kind) + bytes(32)
    return note(b"Solo5", 0x31494241, struct.pack("<IIII", target, 1, 0, 0)) + note(b"Solo5", 0x3154464D, manifest)


def bzimage(
    version: int = 0x020F,
    *,
    code32_start: int = 0x100000,
    loadflags: int = 1,
    payload: int = 4096,
    release: bytes = b"6.1.0 (me@here) #1 SMP",
    init_size: int = 0x200000,
    packed: bool = False,
) -> bytes:
    """Return a file with a Linux setup header, one setup sector and *payload* bytes of kernel.

    A *packed* one begins as one that Xen could unpack.
    """
    image = bytearray(1024 + payload)
    if packed:
        image[1024:1026] = b"\x1f\x8b"
    image[0x1F1] = 1
    struct.pack_into("<I", image, 0x1F4, -(-payload // 16))
    image[0x1FE:0x206] = b"\x55\xaa\xeb\x66HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<H", image, 0x20E, 0x100)
    image[0x211] = loadflags
    struct.pack_into("<I", image, 0x214, code32_start)
    struct.pack_into("<H", image, 0x236, 1)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<Q", image, 0x258, 0x1000000)
    struct.pack_into("<I", image, 0x260, init_size)
    image[0x300 : 0x300 + len(release)] = release
    return bytes(image)


def pe(
    *,
    machine: int = 0x8664,
    subsystem: int = 10,
    magic: int = 0x20B,
    sections: Sequence[str] = (".text",),
    data: bytes = bytes(512),
    setup: bytes = b"",
    directories: int = 0,
) -> bytes:
    """Return a PE image; with *setup*, a whole bzImage, as one file that is both (its sections point into it)."""
    image = bytearray(setup or bytes(0x40))
    image[:2] = b"MZ"
    at = 0x40
    image[0x3C:0x40] = struct.pack("<I", at)
    optional = bytearray(112 + 8 * directories)
    struct.pack_into("<H", optional, 0, magic)
    struct.pack_into("<I", optional, 16, 0x1000)
    struct.pack_into("<II", optional, 32, 0x1000, 0x200)
    struct.pack_into("<II", optional, 56, 0x4000, 0x400)
    struct.pack_into("<H", optional, 68, subsystem)
    struct.pack_into("<I", optional, 108, directories)
    header = b"PE\0\0" + struct.pack("<HHIIIHH", machine, len(sections), 0, 0, 0, len(optional), 0x22E) + optional
    table_end = at + len(header) + 40 * len(sections)
    start = 0x400
    assert table_end <= start if not setup else table_end <= 0x1F1
    for index, name in enumerate(sections):
        header += struct.pack(
            "<8sIIIIIIHHI", name.encode(), len(data), 0x1000 * (index + 1), len(data), start, 0, 0, 0, 0, 0
        )
    if not setup:
        image += bytes(start - len(image)) + data
    image[at : at + len(header)] = header
    return bytes(image)


def relocations(page: int, *entries: int, length: int | None = None) -> bytes:
    """Return a block of base relocations: *entries* are a type and an offset in the *page* each."""
    length = 8 + 2 * len(entries) if length is None else length
    return struct.pack(f"<II{len(entries)}H", page, length, *entries)


def relocated(
    application: bytes, table: bytes, *, base: int = 0, address: int | None = None, size: int | None = None
) -> bytes:
    """Return the PE image *application* with a section .reloc of *table* more, and another image base.

    Its directory says *address* and *size*, if not what there is.
    """
    image = bytearray(application)
    at = int.from_bytes(image[0x3C:0x40], "little")
    count, length = struct.unpack_from("<H", image, at + 6)[0], struct.unpack_from("<H", image, at + 20)[0]
    optional, row = at + 24, at + 24 + length + 40 * count
    assert row + 40 <= int.from_bytes(image[optional + 60 : optional + 64], "little"), "no room for a section"
    place = -(-int.from_bytes(image[optional + 56 : optional + 60], "little") // 4096) * 4096
    data = table + bytes(-len(table) % 512)
    struct.pack_into("<8s4I", image, row, b".reloc", len(table), place, len(data), len(image))
    struct.pack_into("<H", image, at + 6, count + 1)
    struct.pack_into("<Q", image, optional + 24, base)
    struct.pack_into("<I", image, optional + 56, place + 4096)
    address, size = place if address is None else address, len(table) if size is None else size
    struct.pack_into("<II", image, optional + 112 + 8 * 5, address, size)
    return bytes(image) + data


def multiboot_elf(header: bytes | None = None, *, bits: int = 32, sections: Sequence[Section] = ()) -> bytes:
    """Return the least kernel that is right: one segment, which begins with *header*."""
    return elf([Segment((multiboot1() if header is None else header) + bytes(64))], sections, bits=bits)


RUMPRUN_TEXTS = b"rump kernel bare metal bootstrap\n\0_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"


def rumprun(*more: bytes, stripped: bool = False) -> bytes:
    """Return what the file of a rumprun kernel for hw looks like, with *more* texts of linked drivers."""
    texts = RUMPRUN_TEXTS + b"".join(text + b"\0" for text in more)
    return kernel_with_texts(texts, bits=64, stripped=stripped)


def kernel_with_texts(texts: bytes, *, bits: int = 32, stripped: bool = False) -> bytes:
    """Return a Multiboot kernel that holds *texts*; *stripped* of its section headers too."""
    code = Segment(multiboot1().ljust(256, b"\0") + texts)
    section = Section(".rodata", texts, addr=0x100100)
    image = elf([code], [Section(".text", bytes(64), addr=0x100000), section], bits=bits)
    if stripped:
        return elf([code], bits=bits)
    return image
