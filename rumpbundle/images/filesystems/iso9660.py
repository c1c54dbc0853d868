"""Read ISO 9660 with Rock Ridge, and its El Torito boot catalog.

Sources: ECMA-119 (4th edition), IEEE P1281 and P1282, El Torito 1.0; UEFI 2.10 §13.3.2 for platform 0xEF.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cached_property

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.filesystem import MAX_DEPTH, Entry, FileSystem, Span
from rumpbundle.images.medium import Medium

BLOCK = 2048
_FIRST_DESCRIPTOR = 16
_MAX_DESCRIPTORS = 64
_DIRECTORY_FLAG, _MORE_FLAG = 2, 0x80
_MAX_CONTINUATIONS = 16
_MAX_BOOT_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class BootEntry:
    """An El Torito entry: what firmware starts. *offset* and *size* in bytes; a size of 0 reaches to the end."""

    platform: str
    bootable: bool
    emulation: int
    offset: int
    size: int


@dataclass(slots=True)
class _Record:
    name: bytes
    block: int
    length: int
    flags: int
    mode: int
    target: bytes


class Iso9660(FileSystem):
    """A volume whose first byte is the medium's."""

    kind = "iso9660"

    def __init__(self, medium: Medium) -> None:
        self._primary = b""
        self._boot_record = b""
        for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MAX_DESCRIPTORS):
            descriptor = medium.read(number * BLOCK, BLOCK)
            if descriptor[1:6] != b"CD001" or descriptor[0] == 255:
                break
            if descriptor[0] == 1 and not self._primary:
                self._primary = descriptor
            if descriptor[0] == 0 and descriptor[7:30] == b"EL TORITO SPECIFICATION":
                self._boot_record = descriptor
        if not self._primary:
            raise ImageError("ISO 9660: there is no primary volume descriptor")
        blocks, block_size = struct.unpack_from("<I", self._primary, 80)[0], self._primary[128:130]
        if block_size != BLOCK.to_bytes(2, "little"):
            raise ImageError(f"ISO 9660: blocks of {int.from_bytes(block_size, 'little')} bytes")
        label = self._primary[40:72].decode("latin-1").rstrip(" \0")
        super().__init__(medium, blocks * BLOCK, label)
        root = self._primary[156:190]
        self._root = (int.from_bytes(root[2:6], "little"), int.from_bytes(root[10:14], "little"))
        self._skip = 0
        """Bytes before the system use entries of each record, as the SP entry says; -1 without Rock Ridge."""

    @property
    def structures(self) -> tuple[Span, ...]:
        size, little, big = (struct.unpack_from(code, self._primary, at)[0] for code, at in _TABLES)
        tables = tuple(Span(block * BLOCK, size) for block in (little, big) if block)
        return (Span(_FIRST_DESCRIPTOR * BLOCK, 4 * BLOCK), *tables)

    @cached_property
    def boot_entries(self) -> tuple[BootEntry, ...]:
        """The El Torito catalog, empty if there is none.

        Raises:
            ImageError: it is damaged.
        """
        if not self._boot_record:
            return ()
        at = int.from_bytes(self._boot_record[71:75], "little") * BLOCK
        catalog = self.medium.read(at, BLOCK)
        if catalog[0] != 1 or catalog[30:32] != b"\x55\xaa" or sum(struct.unpack("<16H", catalog[:32])) & 0xFFFF:
            raise ImageError(f"El Torito: the boot catalog at {at} is damaged")
        entries = [self._boot_entry(catalog[32:64], catalog[1])]
        position = 64
        while position + 32 <= BLOCK and catalog[position] in (0x90, 0x91) and len(entries) < _MAX_BOOT_ENTRIES:
            platform, count = catalog[position + 1], int.from_bytes(catalog[position + 2 : position + 4], "little")
            last = catalog[position] == 0x91
            position += 32
            for _ in range(min(count, (BLOCK - position) // 32)):
                entries.append(self._boot_entry(catalog[position : position + 32], platform))
                position += 32
            if last:
                break
        return tuple(entries)

    def _boot_entry(self, entry: bytes, platform: int) -> BootEntry:
        sectors, block = struct.unpack_from("<HI", entry, 6)
        name = {0: "bios", 1: "powerpc", 2: "mac", 0xEF: "uefi"}.get(platform, f"platform {platform}")
        return BootEntry(name, entry[0] == 0x88, entry[1], block * BLOCK, sectors * 512)

    def _entries(self) -> Iterator[Entry]:
        seen: set[int] = set()
        stack = [("", *self._root, 0)]
        while stack:
            path, block, length, depth = stack.pop()
            if block in seen:
                raise ImageError(f"ISO 9660: directory {path or '/'} is in two places, or in itself")
            if depth > MAX_DEPTH:
                raise ImageError(f"ISO 9660: directories are nested deeper than {MAX_DEPTH}")
            seen.add(block)
            self._enter((Span(block * BLOCK, length),), path)
            below = []
            for entry, record in self._directory(path, block, length, is_root=not path):
                yield entry
                if entry.kind == "directory":
                    below.append((entry.path, record.block, record.length, depth + 1))
            stack += reversed(below)

    def _directory(self, path: str, block: int, length: int, *, is_root: bool) -> Iterator[tuple[Entry, _Record]]:
        pending: list[Span] = []
        for record in self._records(block, length, is_root=is_root):
            name = record.name.decode("utf-8", "surrogateescape")
            where = f"{path}/{name}"
            if record.flags & _DIRECTORY_FLAG:
                yield Entry(path=where, kind="directory", mode=record.mode & 0o7777), record
                continue
            if record.length:
                pending.append(Span(record.block * BLOCK, record.length))
            if record.flags & _MORE_FLAG:
                continue
            kind = {0o120000: "symlink", 0o100000: "file", 0: "file"}.get(record.mode & 0o170000, "special")
            size = sum(span.length for span in pending)
            yield (
                Entry(
                    path=where,
                    kind=kind,  # type: ignore[arg-type]
                    size=size if kind == "file" else 0,
                    mode=record.mode & 0o7777,
                    target=record.target.decode("utf-8", "surrogateescape"),
                    spans=tuple(pending),
                ),
                record,
            )
            pending = []

    def _records(self, block: int, length: int, *, is_root: bool) -> Iterator[_Record]:
        """Yield the records of a directory, without ``.`` and ``..``."""
        data = self.medium.read(block * BLOCK, length)
        at = 0
        while at < length:
            size = data[at]
            if not size:
                at = (at // BLOCK + 1) * BLOCK
                continue
            record = data[at : at + size]
            if size < 34 or len(record) < size or 33 + record[32] > size:
                raise ImageError(f"ISO 9660: the directory record at {block * BLOCK + at} is damaged")
            identifier = record[33 : 33 + record[32]]
            use = record[33 + record[32] + (1 - record[32] % 2) :]
            at += size
            if identifier in (b"\0", b"\1"):
                if is_root and identifier == b"\0":
                    self._skip = use[6] if use[:2] == b"SP" and len(use) >= 7 else -1
                continue
            name, mode, target = self._rock_ridge(use) if self._skip >= 0 else (b"", 0, b"")
            plain = identifier.split(b";")[0]
            name = name or plain.removesuffix(b".")
            if b"/" in name or b"\0" in name or name in (b"", b".", b".."):
                raise ImageError(f"ISO 9660: a file is called {name[:50]!r}")
            extent, size = struct.unpack_from("<I4xI", record, 2)
            yield _Record(name, extent, size, record[25], mode, target)

    def _rock_ridge(self, use: bytes) -> tuple[bytes, int, bytes]:
        """Return name, mode and link target as the system use entries *use* and their continuations have them."""
        name, mode, target = b"", 0, _Target()
        area = use[self._skip :]
        for _ in range(_MAX_CONTINUATIONS):
            following = None
            while len(area) >= 4 and area[2] >= 4:
                entry, area = area[: area[2]], area[area[2] :]
                match entry[:2]:
                    case b"NM" if len(entry) > 4 and not entry[4] & 6:
                        name += entry[5:]
                    case b"PX" if len(entry) >= 8:
                        mode = int.from_bytes(entry[4:8], "little")
                    case b"SL":
                        target.add(entry[5:])
                    case b"CE" if len(entry) >= 28:
                        following = struct.unpack_from("<I4xI4xI", entry, 4)
                    case b"ST":
                        break
            if following is None:
                return name, mode, target.text
            block, offset, length = following
            area = self.medium.read(block * BLOCK + offset, min(length, BLOCK))
        raise ImageError("ISO 9660: system use entries continue without end")


_TABLES = (("<I", 132), ("<I", 140), (">I", 148))


class _Target:
    """Puts a link's target together from its components (RRIP §4.1.3.1)."""

    def __init__(self) -> None:
        self.text = b""
        self._joined = True

    def add(self, components: bytes) -> None:
        while len(components) >= 2:
            flags, length = components[0], components[1]
            part, components = components[2 : 2 + length], components[2 + length :]
            if flags & 8:
                self.text, self._joined = b"/", True
                continue
            part = b"." if flags & 2 else b".." if flags & 4 else part
            self.text += part if self._joined else b"/" + part
            self._joined = bool(flags & 1)
