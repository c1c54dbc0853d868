"""Read ISO 9660: with Rock Ridge's names, else Joliet's, else its own.

Sources: ECMA-119 (4th edition), IEEE P1281 and P1282, the Joliet specification (Microsoft, 1995).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cached_property

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.signatures import has_partitions
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Fact
from rumpbundle.images.filesystem import Entry, FileSystem, Span, Spans
from rumpbundle.images.filesystems.iso9660 import zisofs
from rumpbundle.images.filesystems.iso9660.eltorito import BootEntry, boot_entries
from rumpbundle.images.filesystems.iso9660.susp import Attributes, SystemUse
from rumpbundle.images.medium import Medium
from rumpbundle.images.problem import Problem

SECTOR = 2048
"""Bytes of a logical sector: descriptors stand in them, and no record crosses them (ECMA-119 6.1.2)."""
_BLOCKS = (512, 1024, 2048)
"""Bytes of a logical block, in which extents are counted: a power of two, at most a sector (ECMA-119 6.2.2)."""
_FIRST_DESCRIPTOR = 16
_MAX_DESCRIPTORS = 64
_ASSOCIATED, _DIRECTORY, _MORE = 4, 2, 0x80
"""Flags of a record: another file's companion, a directory, more extents follow."""
_JOLIET = (b"%/@", b"%/C", b"%/E")
"""The escape sequences of its three levels."""
_UDF = (b"BEA01", b"NSR02", b"NSR03")
_SESSION = b"\x01CD001\x01"
"""How the primary descriptor of a later session begins, ..."""
_NEAR = 64 * SECTOR
"""... and how far behind the end of the first it is looked for: sessions begin at blocks of up to 32 sectors."""
_FIRST_ONLY = "the first is shown, and what only a later one names is not"


@dataclass(slots=True)
class _Record:
    name: bytes
    block: int
    length: int
    flags: int
    attributes: Attributes


class Iso9660(FileSystem):
    """A volume whose first byte is the medium's."""

    kind = "iso9660"

    def __init__(self, medium: Medium) -> None:
        self.primary = b""
        self._joliet = b""
        self.boot_record = b""
        for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MAX_DESCRIPTORS):
            descriptor = medium.read(number * SECTOR, SECTOR)
            if descriptor[1:6] != b"CD001" or descriptor[0] == 255:
                break
            if descriptor[0] == 1 and not self.primary:
                self.primary = descriptor
            if descriptor[0] == 2 and descriptor[88:91] in _JOLIET:
                self._joliet = descriptor
            if descriptor[0] == 0 and descriptor[7:30] == b"EL TORITO SPECIFICATION":
                self.boot_record = descriptor
        if not self.primary:
            raise ImageError("ISO 9660: there is no primary volume descriptor")
        blocks, self.block = struct.unpack_from("<I44xH", self.primary, 80)
        if self.block not in _BLOCKS:
            raise ImageError(f"ISO 9660: blocks of {self.block} bytes, where there are 512, 1024 or 2048")
        label = self.primary[40:72].decode("latin-1").rstrip(" \0")
        super().__init__(medium, blocks * self.block, label)
        self._use = SystemUse(medium, self.block)
        self._length: dict[int, int] = {}
        """Bytes of the directories found so far, by block."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        return {} if self._names == "Rock Ridge" else {"names": self._names}

    @property
    def permissions(self) -> bool:
        return self._names == "Rock Ridge"

    @cached_property
    def _names(self) -> str:
        """Whose names we show."""
        try:
            block, length = _extent(self.primary[156:190])
            root = self.medium.read(block * self.block, min(max(length, 0), SECTOR))
        except ImageError:
            root = b""
        if root and self._use.announced(_system_use(root[: root[0]])):
            return "Rock Ridge"
        return "Joliet" if self._joliet else "ISO 9660"

    @property
    def remarks(self) -> tuple[str, ...]:
        return (*self._beside, *self._later)

    @cached_property
    def _later(self) -> tuple[str, ...]:
        """What to say of an appended session; on a disk with partitions other things stand behind a volume."""
        if has_partitions(self.medium.read(0, min(512, self.medium.size))):
            return ()
        start = -(-self.size // SECTOR) * SECTOR + _FIRST_DESCRIPTOR * SECTOR
        near = min(_NEAR, self.medium.size - start)
        behind = self.medium.read(start, near) if near > 0 else b""
        for at in range(0, len(behind), SECTOR):
            if behind.startswith(_SESSION, at):
                return (f"another session begins at byte {start + at - _FIRST_DESCRIPTOR * SECTOR}: {_FIRST_ONLY}",)
        return ()

    @cached_property
    def _beside(self) -> tuple[str, ...]:
        for number in range(_FIRST_DESCRIPTOR + 1, _FIRST_DESCRIPTOR + _MAX_DESCRIPTORS):
            if (number + 1) * SECTOR > self.medium.size:
                break
            identifier = self.medium.read(number * SECTOR + 1, 5)
            if identifier in _UDF:
                return ("a UDF file system shares its blocks: what only UDF names is not shown",)
            if identifier not in (b"CD001", b"TEA01"):
                break
        return ()

    @property
    def structures(self) -> Spans:
        size, little, big = (struct.unpack_from(code, self.primary, at)[0] for code, at in _TABLES)
        tables = tuple(Span(block * self.block, size) for block in (little, big) if block)
        return (Span(_FIRST_DESCRIPTOR * SECTOR, 4 * SECTOR), *tables)

    @cached_property
    def boot_entries(self) -> tuple[BootEntry, ...]:
        """The El Torito catalog, empty if there is none.

        Raises:
            ImageError: it is damaged.
        """
        return boot_entries(self.medium, self.boot_record) if self.boot_record else ()

    def _root(self) -> int:
        self._use.start(self.budget)
        descriptor = self._joliet if self._names == "Joliet" else self.primary
        block, length = _extent(descriptor[156:190])
        self._length = {block: length}
        return block

    def _directory(self, path: str, number: int) -> Iterator[tuple[Entry, int | None]]:
        length = self._length[number]
        self._check_directory(path, length)
        self._enter((Span(number * self.block, length),), path)
        pending: list[Span] = []
        for record in self._records(number, length):
            attributes = record.attributes
            if attributes.moved_here:
                continue  # it shows in the place it came from
            where = f"{path}/{record.name.decode('utf-8', 'surrogateescape')}"
            if record.flags & _DIRECTORY or attributes.moved_to:
                block = attributes.moved_to or record.block
                self._length[block] = self._length_of(block) if attributes.moved_to else record.length
                yield Entry(path=where, kind="directory", mode=attributes.mode & 0o7777), block
                continue
            if record.length:
                self.budget.span()
                pending.append(Span(record.block * self.block, record.length))
            if not record.flags & _MORE:
                yield self._file(where, attributes, tuple(pending)), None
                pending = []

    def _file(self, where: str, attributes: Attributes, spans: Spans) -> Entry:
        kind = {0o120000: "symlink", 0o100000: "file", 0: "file"}.get(attributes.mode & 0o170000, "special")
        size = sum(span.length for span in spans)
        if kind == "file" and attributes.packed:
            size = attributes.unpacked_size
        return Entry(
            path=where,
            kind=kind,  # type: ignore[arg-type]
            size=size if kind == "file" else 0,
            mode=attributes.mode & 0o7777,
            target=attributes.target.decode("utf-8", "surrogateescape"),
            place=spans,
            packed=bool(attributes.packed),
            unreadable=""
            if attributes.packed in (b"", b"pz")
            else "is compressed with zisofs2, which cannot be read",
        )

    def _length_of(self, block: int) -> int:
        """Return the bytes of the directory at *block*, as its own first record says."""
        return _extent(self.medium.read(block * self.block, 34))[1]

    def _records(self, block: int, length: int) -> Iterator[_Record]:
        """Yield the records of a directory, without ``.`` and ``..``."""
        data = self.medium.read(block * self.block, length)
        rock_ridge, joliet = self._names == "Rock Ridge", self._names == "Joliet"
        at = 0
        while at < length:
            size = data[at]
            if not size:
                at = (at // SECTOR + 1) * SECTOR
                continue
            record = data[at : at + size]
            if size < 34 or len(record) < size or 33 + record[32] > size:
                raise ImageError(f"ISO 9660: the directory record at {block * self.block + at} is damaged")
            at += size
            flags, identifier = record[25], record[33 : 33 + record[32]]
            if identifier in (b"\0", b"\1") or flags & _ASSOCIATED:
                continue
            attributes = self._use.attributes(_system_use(record)) if rock_ridge else Attributes()
            name = attributes.name or _plain(identifier, joliet)
            if b"/" in name or b"\0" in name or name in (b"", b".", b".."):
                raise ImageError(f"ISO 9660: a file is called {name[:50]!r}")
            if record[26] or record[27]:
                raise ImageError(f"ISO 9660: {name.decode('utf-8', 'replace')} is interleaved, which cannot be read")
            extent, size = _extent(record)
            yield _Record(name, extent + record[1], size, flags, attributes)

    def problems(self) -> Iterator[Problem]:
        from rumpbundle.images.filesystems.iso9660.check import problems, unpacked_in_part

        yield from super().problems()
        if self.budget.unpacked < 0:
            yield unpacked_in_part()
        yield from problems(self)

    def _look_at(self, entry: Entry) -> None:
        super()._look_at(entry)
        if not entry.packed or entry.unreadable:
            return
        # Each block has a checksum of what is in it, which nobody sees who does not unpack it.
        for chunk in self.chunks(entry) if self.budget.unpacked >= 0 else ():
            self.budget.unpacked -= len(chunk)
            if self.budget.unpacked < 0:
                return

    def _unpacked(self, entry: Entry) -> Iterator[bytes]:
        return zisofs.unpacked(self.medium, entry)


_TABLES = (("<I", 132), ("<I", 140), (">I", 148))


def _extent(record: bytes) -> tuple[int, int]:
    """Return block and length in bytes of what *record* describes."""
    block, length = struct.unpack_from("<I4xI", record, 2)
    return block, length


def _system_use(record: bytes) -> bytes:
    """Return what stands in *record* behind the name."""
    return record[33 + record[32] + (1 - record[32] % 2) :] if len(record) > 33 else b""


def _plain(identifier: bytes, joliet: bool) -> bytes:
    """Return the name that ISO 9660 or Joliet itself has: without the version, and the dot of no extension."""
    name = identifier.decode("utf-16-be", "replace").encode("utf-8") if joliet else identifier
    stem, _, version = name.rpartition(b";")
    name = stem if stem and version.isdigit() else name
    return name if joliet else name.removesuffix(b".")


__all__ = ["BootEntry", "Iso9660"]
