"""Read ext2 and ext3 ("The Second Extended File System", Dave Poirier); of ext4 only what it says it is."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace

from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Fact
from rumpbundle.images.filesystem import MAX_DEPTH, MAX_DIRECTORY, Entry, FileSystem, Span
from rumpbundle.images.medium import Medium, Tables

_ROOT = 2
_READABLE = 0x0002 | 0x0004
"""Incompatible features we can read: file types in directories, a journal to be replayed (read as it stands)."""
_JOURNAL = 0x0004
_MAX_SPANS = 1 << 20
_MAX_INDIRECT = 1 << 16
"""Indirect blocks followed in one listing: enough for 256 GiB of files."""
_KINDS = {0o100000: "file", 0o040000: "directory", 0o120000: "symlink"}


class Ext2(FileSystem):
    """A volume whose first byte is the medium's."""

    def __init__(self, medium: Medium) -> None:
        head = medium.read(1024, 1024)
        inodes, blocks = struct.unpack_from("<II", head, 0)
        self._first, log_size = struct.unpack_from("<II", head, 20)
        per_group, self._inodes_per_group = struct.unpack_from("<I4xI", head, 32)
        revision: int = struct.unpack_from("<I", head, 76)[0]
        self._inode_size = struct.unpack_from("<H", head, 88)[0] if revision else 128
        compatible, incompatible = struct.unpack_from("<II", head, 92) if revision else (0, 0)
        fits = 128 <= self._inode_size <= 4096 and self._inode_size & (self._inode_size - 1) == 0
        if log_size > 6 or not per_group or not self._inodes_per_group or not inodes or not fits:
            raise ImageError("ext2: the superblock is damaged")
        self._block: int = 1024 << log_size
        self._inodes, self._blocks = inodes, blocks
        self._foreign = bool(incompatible & ~_READABLE)
        self._name = "ext4" if self._foreign else "ext3" if compatible & _JOURNAL else "ext2"
        self._uuid = str(uuid.UUID(bytes=head[104:120])) if revision else ""
        self._tables = Tables(medium)
        self._visited = 0
        label = head[120:136].split(b"\0")[0].decode("utf-8", "replace")
        super().__init__(medium, blocks * self._block, label)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self._name

    @property
    def facts(self) -> Mapping[str, Fact]:
        return {"uuid": self._uuid} if self._uuid else {}

    @property
    def structures(self) -> tuple[Span, ...]:
        table = -(-self._inodes_per_group * self._inode_size // self._block) * self._block
        groups = -(-self._inodes // self._inodes_per_group)
        return tuple(Span(self._inode_table(group), table) for group in range(min(groups, 1024)))

    def _inode_table(self, group: int) -> int:
        block: int = self._tables.number((self._first + 1) * self._block + group * 32 + 8, 4, "little")
        return block * self._block

    def _inode(self, number: int) -> bytes:
        if not 1 <= number <= self._inodes:
            raise ImageError(f"ext2: inode {number} does not exist")
        group, index = divmod(number - 1, self._inodes_per_group)
        return self.medium.read(self._inode_table(group) + index * self._inode_size, 128)

    def _entries(self) -> Iterator[Entry]:
        if self._foreign:
            return
        self._visited = 0
        known: dict[int, Entry] = {}
        seen = {_ROOT}
        stack = [("", self._inode(_ROOT), 0)]
        while stack:
            path, inode, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise ImageError(f"ext2: directories are nested deeper than {MAX_DEPTH}")
            below = []
            for name, number in self._directory(path, inode):
                child = self._inode(number)
                linked = known.get(number)
                entry = (
                    self._entry(f"{path}/{name}", child) if linked is None else replace(linked, path=f"{path}/{name}")
                )
                if entry.kind == "file" and int.from_bytes(child[26:28], "little") > 1:
                    known[number] = entry
                yield entry
                if entry.kind == "directory":
                    if number in seen:
                        raise ImageError(f"ext2: directory {entry.path} is in two places, or in itself")
                    seen.add(number)
                    below.append((entry.path, child, depth + 1))
            stack += reversed(below)

    def _entry(self, path: str, inode: bytes) -> Entry:
        mode = int.from_bytes(inode[:2], "little")
        kind = _KINDS.get(mode & 0o170000, "special")
        size = self._size(inode)
        target = b""
        spans: tuple[Span, ...] = ()
        if kind == "file":
            spans = self._spans(inode, size)
        elif kind == "symlink" and size < 60:
            target = inode[40 : 40 + size]
        elif kind == "symlink":
            target = b"".join(self._pieces(self._spans(inode, min(size, self._block))))[: min(size, self._block)]
        return Entry(
            path=path,
            kind=kind,  # type: ignore[arg-type]
            size=size if kind == "file" else 0,
            mode=mode & 0o7777,
            target=target.decode("utf-8", "surrogateescape"),
            spans=spans,
        )

    def _size(self, inode: bytes) -> int:
        low, high = struct.unpack_from("<I", inode, 4)[0], struct.unpack_from("<I", inode, 108)[0]
        regular = int.from_bytes(inode[:2], "little") & 0o170000 == 0o100000
        return int(low | (high << 32 if regular else 0))

    def _directory(self, path: str, inode: bytes) -> Iterator[tuple[str, int]]:
        size = self._size(inode)
        if size > MAX_DIRECTORY:
            raise ImageError(f"ext2: directory {path or '/'} has {size} bytes")
        spans = self._spans(inode, size)
        self._enter(spans, path)
        for data in self._pieces(spans):
            at = 0
            while at + 8 <= len(data):
                number, length, name_length = struct.unpack_from("<IHB", data, at)
                if length < 8 or length % 4 or 8 + name_length > length or at % self._block + length > self._block:
                    raise ImageError(f"ext2: an entry of directory {path or '/'} is damaged")
                name = data[at + 8 : at + 8 + name_length]
                at += length
                if not number or name in (b".", b".."):
                    continue
                if b"/" in name or b"\0" in name or not name:
                    raise ImageError(f"ext2: a file is called {name[:50]!r}")
                yield name.decode("utf-8", "surrogateescape"), number

    def _pieces(self, spans: tuple[Span, ...]) -> Iterator[bytes]:
        for span in spans:
            yield bytes(span.length) if span.offset is None else self.medium.read(span.offset, span.length)

    def _spans(self, inode: bytes, size: int) -> tuple[Span, ...]:
        """Return where the *size* bytes of a file stand, whole blocks, neighbours merged."""
        if size > self._blocks * self._block * 1024:
            raise ImageError("ext2: a file is larger than any")
        left = -(-size // self._block)
        spans: list[Span] = []
        for number in struct.unpack_from("<12I", inode, 40):
            left = self._add(spans, number, 1, left)
        for depth, number in enumerate(struct.unpack_from("<3I", inode, 88), 1):
            left = self._indirect(spans, number, depth, left)
        if left:
            raise ImageError("ext2: a file is larger than its block map")
        return tuple(spans)

    def _indirect(self, spans: list[Span], block: int, depth: int, left: int) -> int:
        """Add what the indirect *block* maps, *depth* levels above the data; return the blocks still *left*."""
        pointers = self._block // 4
        if not left:
            return 0
        if not depth or not block:
            return self._add(spans, block, pointers**depth, left)
        self._visited += 1
        if self._visited > min(self._blocks, _MAX_INDIRECT):
            raise ImageError("ext2: files share their block maps")
        for index in range(pointers):
            if not left:
                break
            number = self._tables.number(block * self._block + 4 * index, 4, "little")
            left = self._indirect(spans, number, depth - 1, left)
        return left

    def _add(self, spans: list[Span], number: int, count: int, left: int) -> int:
        count = min(count, left)
        if not count:
            return left
        if number >= self._blocks:
            raise ImageError(f"ext2: block {number} does not exist")
        offset = number * self._block if number else None
        length = count * self._block
        last = spans[-1] if spans else None
        if last is not None and _continues(last, offset):
            spans[-1] = Span(last.offset, last.length + length)
        else:
            spans.append(Span(offset, length))
            if len(spans) > _MAX_SPANS:
                raise ImageError("ext2: a file is in too many pieces")
        return left - count


def _continues(last: Span, offset: int | None) -> bool:
    if last.offset is None or offset is None:
        return last.offset is offset
    return last.offset + last.length == offset
