"""Disks and containers as text that people can review: where everything is, and every byte that is structure."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import struct
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, LayoutReader
from support import streamvmdk

SHOWN = 96
"""Lines of one dump; what is more is a digest."""


def dump(data: bytes, offset: int) -> Iterator[str]:
    """Yield *data* as lines of sixteen bytes; ``*`` stands for lines like the one before."""
    lines = 0
    before = b""
    squeezed = False
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        if row == before and at + 16 < len(data):
            if not squeezed:
                yield "*"
            squeezed = True
            continue
        if lines == SHOWN:
            yield f"... {len(data) - at} bytes with sha256 {hashlib.sha256(data[at:]).hexdigest()}"
            return
        lines += 1
        squeezed, before = False, row
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{offset + at:010x}  {row.hex(' '):<47}  |{text}|"


def of_disk(disk: DiskLayout) -> Iterator[str]:
    """Yield what is to be said about a disk."""
    yield f"disk of {disk.size} bytes, table {disk.table}, digest {disk.identity.digest}"
    yield "\npartitions (first and last sector, type, id, name):"
    with LayoutReader(disk) as reader:
        for number, partition in enumerate(disk.partitions):
            identifier = uuid.UUID(bytes_le=reader.read(2 * SECTOR + 128 * number + 16, 16))
            ends = f"{partition.first_lba:>8} {partition.last_lba:>8}"
            yield f"{ends}  {partition.type_guid} {identifier} {partition.name}"
        yield "\nextents (offset, bytes, sha256, what):"
        for extent in disk.extents:
            data = reader.read(extent.offset, extent.length)
            yield f"{extent.offset:>8} {extent.length:>8}  {hashlib.sha256(data).hexdigest()[:32]} {extent.label}"
        for extent in disk.extents:
            if "/" not in extent.label or extent.label.endswith("/"):
                yield f"\n{extent.label}:"
                yield from dump(reader.read(extent.offset, extent.length), extent.offset)
            elif extent.label.endswith((".json", "grub.cfg")) and not extent.label.startswith("room of"):
                yield f"\n{extent.label}:"
                yield re.sub(
                    r"#+\n(#{63}\n)+$",
                    "(comment lines to the end)",
                    reader.read(extent.offset, extent.length).decode(),
                ).rstrip("\n")


class Sectors:
    """Knows the sectors of a disk when it meets them in a container."""

    def __init__(self, disk: DiskLayout) -> None:
        self._sectors: dict[int, bytes] = {}
        with LayoutReader(disk) as reader:
            for start, end in disk.ranges(SECTOR):
                for at in range(start, end, SECTOR):
                    if any(data := reader.read(at, SECTOR)):
                        self._sectors[at // SECTOR] = data
        self._numbers = {data: number for number, data in reversed(self._sectors.items())}

    def read(self, first: int, count: int) -> bytes:
        """Return *count* sectors of the disk."""
        return b"".join(self._sectors.get(number, bytes(SECTOR)) for number in range(first, first + count))

    def number(self, data: bytes, expected: int) -> int | None:
        """Return which sector of the disk *data* is; of equal ones, *expected*."""
        return expected if self._sectors.get(expected) == data else self._numbers.get(data)

    def of_file(self, file: IO[bytes], size: int) -> Iterator[str]:
        """Yield what a container of the disk holds: zeros unsaid, the disk's sectors by number, the rest in full."""
        yield f"{size} bytes"
        for (kind, distance), group in itertools.groupby(self._classified(file), key=lambda sector: sector[0]):
            run = [(at, data) for _, at, data in group]
            begin = run[0][0]
            if kind == "own":
                yield from dump(b"".join(data for _, data in run), begin)
            elif kind == "disk" and (last := max((at for at, data in run if data), default=None)) is not None:
                first, last = (at // SECTOR + distance for at in (begin, last))
                yield f"{begin:010x}  sectors {first} to {last} of the disk"

    def _classified(self, file: IO[bytes]) -> Iterator[tuple[tuple[str, int], int, bytes]]:
        """Yield each sector's kind (and, for the disk's, how far from here it stands there), offset and bytes."""
        expected = position = 0
        zeros = bytes(MIB)
        while chunk := file.read(MIB):
            step = len(chunk) if chunk == zeros[: len(chunk)] else SECTOR
            for at in range(0, len(chunk), step):
                data = chunk[at : at + SECTOR]
                offset = position + at
                distance = expected - offset // SECTOR
                if any(data) and (number := self.number(data, expected)) is None:
                    yield ("own", 0), offset, data
                    continue
                if any(data):
                    distance += number - expected
                    yield ("disk", distance), offset, data
                    expected = number + 1
                else:
                    # Zeros amid the disk's sectors are the disk's too, where it has zeros.
                    here = ("zero", 0) if expected in self._sectors else ("disk", distance)
                    yield here, offset, b""
                    expected += step // SECTOR
            position += len(chunk)


TEXT = (".json", ".ovf", ".mf", ".cfg", ".txt", ".sh", ".md")


def of_outputs(directory: Path, sectors: Sectors) -> Iterator[str]:
    """Yield what is to be said about all files in *directory*, which a format wrote.

    Nothing of it depends on a compressor: of compressed data that is what it decompresses to, and where other files
    tell its size or digest, there stands whose it is.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    compressed = {path.name: path.read_bytes() for path in paths if path.suffix == ".vmdk"}
    masks = _Masks({name: data for name, data in compressed.items() if streamvmdk.is_stream(data)})
    for path in paths:
        yield f"== {path.relative_to(directory)}"
        if path.name.endswith(".tar.gz"):
            with path.open("rb") as file:
                yield from dump(file.read(10), 0)
            with tarfile.open(path, "r|gz") as archive:
                for member in archive:
                    yield _of_member(member)
                    yield from sectors.of_file(archive.extractfile(member), member.size)
        elif path.suffix == ".ova":
            with tarfile.open(path) as archive:
                members = {member: archive.extractfile(member).read() for member in archive}
            inner = _Masks({member.name: data for member, data in members.items()})
            for member, data in members.items():
                yield _of_member(member)
                yield from _of_file(member.name, io.BytesIO(data), member.size, sectors, inner)
        else:
            with path.open("rb") as file:
                yield from _of_file(path.name, file, path.stat().st_size, sectors, masks)


def _of_member(member: tarfile.TarInfo) -> str:
    owner = f"{member.uid}:{member.gid} {member.uname}:{member.gname}"
    return f"\n{member.name}: mode {member.mode:o}, {owner}, time {member.mtime}, data at {member.offset_data}"


def _of_file(name: str, file: IO[bytes], size: int, sectors: Sectors, masks: _Masks) -> Iterator[str]:
    if name.endswith(TEXT):
        yield masks.applied(file.read().decode().rstrip("\n"))
        return
    start = file.read(SECTOR)
    file.seek(0)
    if streamvmdk.is_stream(start):
        yield from of_stream(file.read(), sectors)
    else:
        yield from sectors.of_file(file, size)


class _Masks:
    """Puts ``<bytes of NAME>`` and ``<sha256 of NAME>`` where a text tells these of a file."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._words = {str(len(data)): f"<bytes of {name}>" for name, data in files.items()}
        self._words |= {hashlib.sha256(data).hexdigest(): f"<sha256 of {name}>" for name, data in files.items()}

    def applied(self, text: str) -> str:
        return re.sub(r"\b[0-9a-f]+\b", lambda match: self._words.get(match[0], match[0]), text)


def of_stream(data: bytes, sectors: Sectors) -> Iterator[str]:
    """Yield what a stream-optimised VMDK of the disk holds; a grain's name is its first sector on the disk."""
    yield from dump(streamvmdk.head(data), 0)
    grains: dict[int, int] = {}
    tables: dict[int, int] = {}
    for piece in streamvmdk.pieces(data):
        if piece.kind == "grain":
            grains[piece.sector] = piece.lba
            assert piece.data == sectors.read(piece.lba, streamvmdk.GRAIN)
            yield f"grain {piece.lba}: as on the disk, sha256 {hashlib.sha256(piece.data).hexdigest()}"
        elif piece.kind == "table":
            tables[piece.sector] = len(tables)
            yield f"table {tables[piece.sector]}: {_entries(piece, grains, 'grain')}"
        elif piece.kind == "directory":
            directory = piece.sector
            yield f"directory: {_entries(piece, tables, 'table')}"
        elif piece.kind == "footer":
            assert struct.unpack_from("<Q", piece.data, 0x38) == (directory,)
            yield "footer, its gd_offset the directory's, left out here:"
            yield from dump(piece.data[:0x38] + bytes(8) + piece.data[0x40:], 0)
        else:
            yield piece.kind


def _entries(piece: streamvmdk.Piece, names: Mapping[int, int], what: str) -> str:
    """Return the entries of a table that are not 0: their index, and what of *names* stands where they point."""
    return ", ".join(f"[{index}] {what} {names[sector]}" for index, sector in enumerate(piece.numbers) if sector)
