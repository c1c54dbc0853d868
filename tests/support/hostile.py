"""Small images that claim a lot: every way we know to make a listing long."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

Pieces = dict[int, bytes]
"""What stands at which byte; all else is a hole."""

EXT2_FILE, EXT2_DIRECTORY = 0o100644, 0o040755


def write(path: Path, pieces: Pieces, size: int) -> Path:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)
    return path


def ext2(block: int, inodes: dict[int, tuple[int, int, list[int]]], blocks: dict[int, bytes]) -> Pieces:
    """Return an ext2 with 32-bit block numbers; *inodes* are mode, size and 15 pointers, by number.

    Block 2 holds the descriptors, blocks from 3 the inodes; *blocks* may start at 16.
    """
    first = 1 if block == 1024 else 0
    log = (block // 1024).bit_length() - 1
    head = struct.pack("<II12xII4xI4xI12xH", 128, 0xFFFFFFFE, first, log, 1 << 15, 128, 0xEF53).ljust(76, b"\0")
    head += struct.pack("<I8xH6xIII", 1, 128, 0, 2, 0)
    pieces: Pieces = {1024: head.ljust(200, b"\0"), (first + 1) * block: struct.pack("<8xI", 3).ljust(32, b"\0")}
    for number, (mode, size, pointers) in inodes.items():
        body = struct.pack("<HxxI18xH12x15I8xI", mode, size & 0xFFFFFFFF, 1, *pointers, size >> 32)
        pieces[3 * block + (number - 1) * 128] = body
    return pieces | {number * block: data for number, data in blocks.items()}


def names(block: int, entries: Iterator[tuple[int, bytes]]) -> bytes:
    """Return directory blocks of ``(inode, name)``."""
    out = bytearray()
    last = 0
    for inode, name in entries:
        record = struct.pack("<IHBB", inode, 8 + (len(name) + 3 & ~3), len(name), 0) + name
        record += bytes(-len(record) % 4)
        if len(out) % block + len(record) > block:
            struct.pack_into("<H", out, last + 4, min(len(out) + -len(out) % block - last, 0xFFFF))
            out += bytes(-len(out) % block)
        last = len(out)
        out += record
    struct.pack_into("<H", out, last + 4, min(len(out) + -len(out) % block - last, 0xFFFF))
    return bytes(out + bytes(-len(out) % block))


def pointers(first: int, count: int) -> bytes:
    return struct.pack(f"<{count}I", *range(first, first + count))


def _root(block: int, *files: int) -> tuple[int, int, list[int]]:
    return EXT2_DIRECTORY, block, [16, *[0] * 14]


def shared_maps(block: int) -> tuple[Pieces, int]:
    """A file whose three levels of pointers are all the same block."""
    per = block // 4
    inodes = {2: _root(block), 12: (EXT2_FILE, 12 * block + (per + per**2) * block + (1 << 30), [0] * 12 + [17] * 3)}
    blocks = {16: names(block, iter([(12, b"file")])), 17: pointers(18, 1) * per, 18: pointers(18, 1) * per}
    return ext2(block, inodes, blocks), 32 * block


def maps_in_holes(block: int) -> tuple[Pieces, int]:
    """A file whose map has a million blocks, nearly all in holes of a sparse image."""
    per = block // 4
    middle = min(per, 1024)
    inodes = {2: _root(block), 12: (EXT2_FILE, min(per**3, 1 << 31) * block, [0] * 14 + [17])}
    blocks = {16: names(block, iter([(12, b"file")])), 17: pointers(20, middle)}
    for index in range(middle):
        blocks[20 + index] = pointers(20 + middle + index * per, per)
    return ext2(block, inodes, blocks), (40 + middle + middle * per) * block


def scattered(block: int) -> tuple[Pieces, int]:
    """A file of which no two blocks are neighbours."""
    per = block // 4
    count = min(per, 512)
    inodes = {2: _root(block), 12: (EXT2_FILE, (12 + per + per * count) * block, [0] * 13 + [17, 0])}
    blocks = {16: names(block, iter([(12, b"file")])), 17: pointers(20, count)}
    for index in range(count):
        blocks[20 + index] = struct.pack(f"<{per}I", *range(1000 + index, 1000 + index + 3 * per, 3))
    return ext2(block, inodes, blocks), (5000 + 4 * per) * block


def many_entries(block: int) -> tuple[Pieces, int]:
    """A directory of a million names of two files; one of these is in many pieces."""
    per = block // 4
    data = names(block, ((12 + n % 2, b"%07x" % n) for n in range(600_000)))
    count = len(data) // block
    tables = -(-max(count - 12, 0) // per)
    top = pointers(20, tables)
    inodes = {
        2: (EXT2_DIRECTORY, len(data), [*range(4000, 4012), 20 if tables == 1 else 0, 17 if tables > 1 else 0, 0]),
        12: (EXT2_FILE, 14 * block, [*range(100, 124, 2), 0, 0, 0]),
        13: (EXT2_FILE, 12 * block, [*range(101, 125, 2), 0, 0, 0]),
    }
    if tables > 1:
        inodes[2][2][12] = 19
        top = pointers(20, tables - 1)
    blocks = {17: top, 19: pointers(4012, per), 4000: data}
    for index in range(tables):
        blocks[20 + index] = pointers(4012 + (index + (tables > 1)) * per, per)
    return ext2(block, inodes, blocks), 4000 * block + len(data) + block


def shared_directories(block: int) -> tuple[Pieces, int]:
    """A root of 4 MiB that is one block again and again."""
    per = block // 4
    inodes = {2: (EXT2_DIRECTORY, 4 << 20, [16] * 12 + [17, 18, 0]), 12: (EXT2_FILE, 0, [0] * 15)}
    blocks = {
        16: names(block, ((12, b"%03x" % n) for n in range(block // 12 - 1))),
        17: struct.pack("<I", 16) * per,
        18: struct.pack("<I", 17) * per,
    }
    return ext2(block, inodes, blocks), 32 * block


def long_paths(block: int) -> tuple[Pieces, int]:
    """Directories with names of 255 bytes, a hundred deep, and thousands of such names at the bottom."""
    inodes = {}
    blocks = {}
    name = b"\xf0\x9f\x90\x98" * 63 + b"%03d"
    numbers = [2, *range(11, 110)]
    for depth, number in enumerate(numbers):
        inodes[number] = (EXT2_DIRECTORY, block, [20 + depth, *[0] * 14])
        if depth + 1 < len(numbers):
            blocks[20 + depth] = names(block, iter([(numbers[depth + 1], name % 0)]))
    per = block // 4
    data = names(block, ((120, name % (n % 1000)) for n in range(12 * block // 264 + per * block // 264 // 2)))
    count = len(data) // block
    inodes[numbers[-1]] = (EXT2_DIRECTORY, len(data), [*range(1000, 1012), 200, 0, 0])
    inodes[120] = (EXT2_FILE, 0, [0] * 15)
    blocks |= {200: pointers(1012, per), 1000: data}
    return ext2(block, inodes, blocks), (1010 + count) * block


EXT2: dict[str, Callable[[int], tuple[Pieces, int]]] = {
    "shared maps": shared_maps,
    "maps in holes": maps_in_holes,
    "scattered": scattered,
    "many entries": many_entries,
    "shared directories": shared_directories,
    "long paths": long_paths,
}


def fat(bits: int, chain: Callable[[int], int], files: int, clusters: int = 0) -> tuple[Pieces, int]:
    """Return a FAT of *bits* with *files* files at cluster 3; *chain* says what follows each of 64 clusters."""
    clusters = clusters or {12: 4000, 16: 60000, 32: 1 << 27}[bits]
    table_sectors = -(-(clusters + 2) * bits // 8 // 512) + 1
    roots = 0 if bits == 32 else 512
    reserved = 32
    sectors = reserved + table_sectors + roots // 16 + clusters
    head = bytearray(512)
    struct.pack_into("<HBHBHHBH", head, 11, 512, 1, reserved, 1, roots, 0, 0xF8, 0 if bits == 32 else table_sectors)
    struct.pack_into("<I", head, 32, sectors)
    if bits == 32:
        struct.pack_into("<IHHI", head, 36, table_sectors, 0, 0, 2)
    head[82 if bits == 32 else 54 :][:0] = b""
    at = 82 if bits == 32 else 54
    head[at : at + 8] = b"FAT%d   " % bits
    head[510:] = b"\x55\xaa"
    number = 0
    for cluster in range(64):
        value = chain(cluster) if cluster > 2 else (1 << bits) - 1
        number |= (value & (1 << bits) - 1) << cluster * bits
    table = number.to_bytes(64 * bits // 8, "little")
    data = (reserved + table_sectors + roots // 16) * 512
    root = b"".join(
        b"FILE%04d   " % n + b"\x20" + bytes(14) + struct.pack("<HI", 3, 0xFFFFFFFF) for n in range(min(files, 16))
    )
    return {0: bytes(head), reserved * 512: table, data - roots * 32: root.ljust(512, b"\0")}, sectors * 512


FAT = {
    "to itself": lambda cluster: cluster,
    "two in a ring": lambda cluster: 7 - cluster if cluster < 5 else 0,
    "a long tail and a ring": lambda cluster: cluster + 1 if cluster < 40 else 20,
    "backwards": lambda cluster: cluster - 1 if cluster > 4 else 60,
}


def fat_long_chain() -> tuple[Pieces, int]:
    """Sixteen files of 4 GiB in a table of 32 MiB, all in the same clusters."""
    pieces, size = fat(32, lambda cluster: cluster + 1, 16)
    table = 32 * 512
    return pieces | {table: struct.pack("<8388608I", *range(1, 8388609))}, size


def iso(records: bytes, extra: Pieces, size: int = 1 << 22) -> tuple[Pieces, int]:
    """Return an ISO 9660 with Rock Ridge whose root, from block 32, holds *records* after its own two."""
    dot = iso_record(b"\0", 32, 0, 2, b"SP\x07\x01\xbe\xef\0")
    dot = dot[:10] + struct.pack("<I", len(records) + 4096) + dot[14:]
    head = (dot + iso_record(b"\1", 32, 0, 2)).ljust(2048, b"\0")
    length = len(head) + len(records)
    root = iso_record(b"\0", 32, length, 2)
    primary = b"\1CD001\1\0".ljust(80, b" ") + struct.pack("<I", 2048).ljust(48, b"\0")
    primary = primary.ljust(128, b"\0") + b"\0\x08\x08\0" + bytes(24) + root
    pieces = {
        16 * 2048: primary.ljust(2048, b"\0"),
        17 * 2048: b"\xffCD001\1".ljust(2048, b"\0"),
        32 * 2048: head + records,
    }
    return pieces | extra, max(size, 33 * 2048 + length + 2048)


def iso_record(name: bytes, block: int, length: int, flags: int = 0, use: bytes = b"") -> bytes:
    body = struct.pack("<I4xI4x7xBBB4x", block, length, flags, 0, 0) + bytes([len(name)]) + name
    body += b"" if len(name) % 2 else b"\0"
    body += use
    body += bytes(len(body) % 2)
    return bytes([len(body) + 2, 0]) + body


def _packed(records: Iterator[bytes]) -> bytes:
    out = bytearray()
    for record in records:
        if len(out) % 2048 + len(record) > 2048:
            out += bytes(-len(out) % 2048)
        out += record
    return bytes(out + bytes(-len(out) % 2048))


def continuation(block: int, offset: int, length: int) -> bytes:
    return b"CE\x1c\x01" + struct.pack("<I4xI4xI4x", block, offset, length)


def iso_continuations(count: int) -> tuple[Pieces, int]:
    """Records that each continue *count* times through blocks full of the smallest entries."""
    records = _packed(iso_record(b"%07d" % n, 0, 0, 0, continuation(20, 0, 2048)) for n in range(200_000))
    filler = b"XX\x04\x01" * ((2048 - 28) // 4)
    extra = {(20 + n) * 2048: filler + continuation(20 + (n + 1) % count, 0, 2048) for n in range(count)}
    return iso(records, extra)


def iso_names(count: int) -> tuple[Pieces, int]:
    """Records whose names go on through blocks of continuations."""
    records = _packed(iso_record(b"%07d" % n, 0, 0, 0, continuation(20, 0, 2048)) for n in range(200_000))
    filler = (b"NM\xff\x01\x01" + b"n" * 250) * 7
    extra = {(20 + n) * 2048: filler + continuation(20 + (n + 1) % count, 0, 2048) for n in range(count)}
    return iso(records, extra)


def iso_many() -> tuple[Pieces, int]:
    """As many records as a directory has room for."""
    return iso(_packed(iso_record(b"%X" % n, 40, 2048) for n in range(380_000)), {})


def iso_pieces() -> tuple[Pieces, int]:
    """A file of as many extents as a directory has room for."""
    return iso(_packed(iso_record(b"A", 40 + n % 9, 2048, 0x80) for n in range(380_000)), {})


ISO = {
    "two continuations in a ring": lambda: iso_continuations(2),
    "a continuation of itself": lambda: iso_continuations(1),
    "ten continuations": lambda: iso_continuations(10),
    "endless names": lambda: iso_names(3),
    "many records": iso_many,
    "many extents": iso_pieces,
}
