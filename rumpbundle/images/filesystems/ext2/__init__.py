"""Read ext2, ext3 and ext4.

Sources: "The Second Extended File System", Dave Poirier; Linux, Documentation/filesystems/ext4.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Fact
from rumpbundle.images.filesystem import Entry, FileSystem, Span, Spans
from rumpbundle.images.filesystems.ext2 import superblock
from rumpbundle.images.filesystems.ext2.inline import inline_spans
from rumpbundle.images.filesystems.ext2.maps import Map
from rumpbundle.images.filesystems.ext2.superblock import SuperBlock
from rumpbundle.images.medium import Medium, Tables
from rumpbundle.images.problem import Problem

_ROOT = 2
_KINDS = {0o100000: "file", 0o040000: "directory", 0o120000: "symlink"}
_COMPRESSED, _ENCRYPTED, _EXTENTS, _INLINE = 0x4, 0x800, 0x80000, 0x10000000
"""Flags of an inode."""
_MAX_TARGET = 4096


class Ext2(FileSystem):
    """A volume whose first byte is the medium's."""

    def __init__(self, medium: Medium) -> None:
        self.superblock = SuperBlock.read(medium.read(superblock.OFFSET, superblock.SIZE))
        self._block = self.superblock.block_size
        self._tables = Tables(medium)
        self._named: set[int] = set()
        """Inodes that have a name already."""
        self._linked: dict[int, Entry] = {}
        """And those that have several."""
        super().__init__(medium, self.superblock.blocks * self._block, self.superblock.label)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self.superblock.kind

    @property
    def facts(self) -> Mapping[str, Fact]:
        return {"uuid": self.superblock.uuid} if self.superblock.uuid else {}

    @property
    def remarks(self) -> tuple[str, ...]:
        return self.superblock.remarks

    @property
    def structures(self) -> Spans:
        sb = self.superblock
        table = -(-sb.inodes_per_group * sb.inode_size // self._block) * self._block
        return tuple(Span(self.inode_table(group), table) for group in range(min(sb.groups, 1024)))

    def inode_table(self, group: int) -> int:
        """Return the byte offset of the inodes of *group*."""
        at = self.superblock.descriptor(group)
        block = self._tables.number(at + 8, 4, "little")
        if self.superblock.descriptor_size >= 64:
            block |= self._tables.number(at + 40, 4, "little") << 32
        return block * self._block

    def place_of_inode(self, number: int) -> int:
        """Return the byte offset of the inode *number*."""
        if not 1 <= number <= self.superblock.inodes:
            raise ImageError(f"{self.kind}: inode {number} does not exist")
        group, index = divmod(number - 1, self.superblock.inodes_per_group)
        return self.inode_table(group) + index * self.superblock.inode_size

    def inode(self, number: int) -> bytes:
        """Return the bytes of the inode *number*."""
        return self._tables.record(self.place_of_inode(number), self.superblock.inode_size)

    def _root(self) -> int:
        if self.superblock.unread:
            raise ImageError(f"{self.kind} with features we cannot read: {self.superblock.unread}")
        self._named.clear()
        self._linked.clear()
        return _ROOT

    def _directory(self, path: str, number: int) -> Iterator[tuple[Entry, int | None]]:
        for name, child in self._names(path, number):
            where = f"{path}/{name}"
            linked = self._linked.get(child)
            if linked is not None:
                yield replace(linked, path=where), None
                continue
            entry = self._entry(where, child)
            if entry.kind != "directory":
                if child in self._named:
                    entry = self._linked[child] = replace(entry, place=_once(entry))
                self._named.add(child)
            yield entry, child if entry.kind == "directory" and not entry.unreadable else None

    def _entry(self, path: str, number: int) -> Entry:
        inode = self.inode(number)
        mode = int.from_bytes(inode[:2], "little")
        kind = _KINDS.get(mode & 0o170000, "special")
        size = self.size_of(inode)
        flags = int.from_bytes(inode[32:36], "little")
        unreadable = "is encrypted" if flags & _ENCRYPTED else "is compressed" if flags & _COMPRESSED else ""
        target = b""
        if kind == "symlink" and not unreadable:
            target = self._target(number, inode, min(size, _MAX_TARGET))
        return Entry(
            path=path,
            kind=kind,  # type: ignore[arg-type]
            size=size if kind == "file" else 0,
            mode=mode & 0o7777,
            target=target.decode("utf-8", "surrogateescape"),
            place=functools.partial(self.spans, number, inode) if kind == "file" else (),
            unreadable=unreadable,
        )

    def _target(self, number: int, inode: bytes, size: int) -> bytes:
        flags = int.from_bytes(inode[32:36], "little")
        if size < 60 and not flags & (_EXTENTS | _INLINE):
            return inode[40 : 40 + size]
        return b"".join(self._pieces(self.spans(number, inode)))[:size]

    def size_of(self, inode: bytes) -> int:
        """Return the bytes that *inode* holds."""
        low, high = int.from_bytes(inode[4:8], "little"), int.from_bytes(inode[108:112], "little")
        return low | high << 32 if int.from_bytes(inode[:2], "little") & 0o170000 in (0o100000, 0o040000) else low

    def spans(self, number: int, inode: bytes) -> Spans:
        """Return where the bytes of *inode* stand, whole blocks, neighbours merged.

        Raises:
            ImageError: its block map is damaged.
        """
        if int.from_bytes(inode[32:36], "little") & _INLINE:
            return inline_spans(inode, self.place_of_inode(number), self.size_of(inode))
        return self.mapped(inode)[0]

    def mapped(self, inode: bytes) -> tuple[Spans, list[tuple[int, int]]]:
        """Return where the bytes of *inode* stand, and the first block and number of what else it takes."""
        blocks = Map(self.medium, self.budget, self._block, self.superblock.blocks, self.size_of(inode))
        extents = int.from_bytes(inode[32:36], "little") & _EXTENTS
        spans = blocks.extents(inode[40:100]) if extents else blocks.pointers(inode[40:100])
        return spans, [*((block, 1) for block in blocks.own), *blocks.kept]

    def problems(self) -> Iterator[Problem]:
        from rumpbundle.images.filesystems.ext2.check import problems

        if self.superblock.unread:
            what = f"it has features that are not read: {self.superblock.unread}"
            yield Problem(
                where="/", offset=None, what=what, consequence="nothing in it was looked at", severity="remark"
            )
            return
        yield from super().problems()
        yield from problems(self)

    def _names(self, path: str, number: int) -> Iterator[tuple[str, int]]:
        """Yield name and inode of everything in the directory *path*."""
        inode = self.inode(number)
        size = self.size_of(inode)
        self._check_directory(path, size, int.from_bytes(inode[28:32], "little") * SECTOR)
        spans = self.spans(number, inode)
        self._enter(spans, path)
        inline = int.from_bytes(inode[32:36], "little") & _INLINE
        skipped = 4 if inline else 0  # an inline directory begins with its parent's number
        for data in self._pieces(spans):
            for name, child in self._records(data, skipped, path, len(data) if inline else self._block):
                if b"/" in name or b"\0" in name or not name:
                    raise ImageError(f"{self.kind}: a file is called {name[:50]!r}")
                yield name.decode("utf-8", "surrogateescape"), child
            skipped = 0

    def _records(self, data: bytes, at: int, path: str, unit: int) -> Iterator[tuple[bytes, int]]:
        """Yield the entries of directory blocks of *unit* bytes that are in use, without ``.`` and ``..``."""
        size = len(data)
        while at + 8 <= size:
            number, length, name_length = _RECORD(data, at)
            if unit > 0xFFFF:  # the two lowest bits, which are not used, carry bits 16 and 17
                length = unit if length in (0, 0xFFFF) else length & 0xFFFC | (length & 3) << 16
            if length < 8 or length & 3 or 8 + name_length > length or at % unit + length > unit:
                raise ImageError(f"{self.kind}: an entry of directory {path or '/'} is damaged")
            name = data[at + 8 : at + 8 + name_length]
            at += length
            if number and name != b"." and name != b"..":
                yield name, number

    def _pieces(self, spans: Spans) -> Iterator[bytes]:
        for span in spans:
            if span.offset is None:
                raise ImageError(f"{self.kind}: a directory or link has holes")
            yield self.medium.read(span.offset, span.length)


_RECORD = struct.Struct("<IHB").unpack_from


def _once(entry: Entry) -> functools.partial[Spans] | Spans:
    """Return what finds the spans of *entry* for all its names together."""
    place = entry.place
    return functools.cache(place) if callable(place) else place  # type: ignore[return-value]
