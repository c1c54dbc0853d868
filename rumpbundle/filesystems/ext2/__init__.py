"""ext2: a tree of files becomes a writable file system whose every position is known before it is written.

Revision 1 with sparse superblocks and file types in directories, nothing newer: Linux mounts it as ext2 or ext4,
NetBSD's rump kernels read and write it (docs/facts/guests.md#rumprun-disks). No journal, no directory index,
128-byte inodes.

The writer is our own. ``mke2fs -d`` takes owners, times and the order of files from the host, so its result differs
from machine to machine, and only root can give it other owners. Here root owns everything, every date is the
bundle's epoch, and nothing is copied before the image is written: file contents stay where they are.

Source: "The Second Extended File System", Dave Poirier (nongnu.org/ext2-doc), cited by section below. Positions are
in blocks of 4096 bytes (``block``) unless the name says otherwise.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from operator import attrgetter, itemgetter

from blake3 import blake3

from rumpbundle.disk.content import Content, Literal, Source
from rumpbundle.disk.ext2 import holds_sparse_copy
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.tree import Directory
from rumpbundle.errors import InputError
from rumpbundle.filesystems.ext2.geometry import BLOCK, GROUP, of_size, with_room
from rumpbundle.filesystems.ext2.inodes import Inode, inodes_of
from rumpbundle.filesystems.ext2.pointers import DIRECT, POINTERS, BlockRun, blocks_needed, little, window
from rumpbundle.filesystems.ext2.records import (
    DIRECTORY,
    FIRST_INODE,
    LARGE_FILE,
    REGULAR,
    SPARSE_SUPER,
    GroupDescriptor,
    InodeRecord,
    SuperBlock,
)

MAX_LABEL = 16


def check_label(label: str) -> None:
    """Raise :class:`InputError` if *label* cannot stand in a superblock exactly as it is."""
    if not label.isprintable() or len(label.encode()) > MAX_LABEL:
        raise InputError(
            f"{label!r} is no label for ext2",
            hint=f"it has at most {MAX_LABEL} bytes of printable characters in UTF-8",
        )


_INODE_FIELDS = ("mode", "size", "accessed", "changed", "modified", "links", "sectors", "block", "size_high")
_NUMBER = attrgetter("number")
_PACK = tuple(struct.Struct(f"<{count}I").pack for count in range(DIRECT + 1))
"""Of each number of an inode's own pointers."""


class Ext2Volume:
    """A planned ext2 file system; ``size`` in bytes."""

    def __init__(self, root: Directory, *, label: str, epoch: int, size: int | None = None, free: int = 0) -> None:
        """Plan *root* as a file system of *size* bytes, or as large as it needs to be with *free* bytes left.

        Raises:
            InputError: it does not fit *size*, or ext2 cannot express it or *label*; a file changed meanwhile.
        """
        check_label(label)
        self._label = label.encode()
        self._epoch = min(epoch, 0x7FFFFFFF)
        self._inodes = inodes_of(root)
        self._placed: list[tuple[int, Source]] = []
        """Everything but the groups' own structures, with its byte offset."""
        data = sum(blocks_needed(inode.wanted) for inode in self._inodes)
        last = self._last_inode()
        self._geometry = with_room(data, last, free) if size is None else of_size(data, last, size)
        self._next = 0
        """The block from which on all are free."""
        self._end = 0
        """Where the group of that block ends."""
        for inode in self._inodes:
            self._place(inode)
        self.size = self._geometry.blocks * BLOCK

    def _last_inode(self) -> int:
        return max(FIRST_INODE, self._inodes[-1].number)

    # -- placing -------------------------------------------------------------------------------------------

    def _allocate(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield ``(block, count)`` of the next free blocks: groups fill one after the other."""
        geometry = self._geometry
        while count:
            group, within = divmod(self._next, GROUP)
            assert group < geometry.groups, "more blocks are wanted than were planned"
            within = max(within, geometry.overhead(group))
            length = min(count, geometry.length(group) - within)
            if length:
                yield group * GROUP + within, length
                count -= length
            self._next = group * GROUP + within + length if count == 0 else (group + 1) * GROUP
            self._end = group * GROUP + geometry.length(group)

    def _place(self, inode: Inode) -> None:
        """Give *inode* its blocks, and the blocks of pointers that find them (§ Inode, i_block)."""
        if self._place_small(inode):
            return
        runs: list[BlockRun] = []
        for logical, count in inode.wanted:
            for physical, length in self._allocate(count):
                runs.append(BlockRun(logical, physical, length))
                end = min((logical + length) * BLOCK, inode.content.size)
                offset = physical * BLOCK
                for source in inode.content.part(logical * BLOCK, end).sources:
                    self._placed.append((offset, source))
                    offset += source.length
                logical += length
        used = sum(run.count for run in runs)
        tops = array("I", bytes(12))
        start = DIRECT
        for depth in (1, 2, 3):
            if not runs or runs[-1].logical + runs[-1].count <= start:
                break
            tops[depth - 1], taken = self._pointers(runs, start, depth)
            used += taken
            start += POINTERS**depth
        inode.block = inode.inline or little(window(runs, 0, DIRECT) + tops)
        inode.sectors = used * (BLOCK // 512)

    def _place_small(self, inode: Inode) -> bool:
        """Do it for a file without holes or blocks of pointers, if the group at hand has room: most are such."""
        count = inode.wanted[0][1] if inode.wanted else 0
        size = inode.content.size
        whole = len(inode.wanted) < 2 and count <= DIRECT and -(-size // BLOCK) == count
        if not whole or not count or not 0 < self._next <= self._end - count:
            return False
        offset = self._next * BLOCK
        for source in inode.content.sources:
            self._placed.append((offset, source))
            offset += source.length
        inode.block = _PACK[count](*range(self._next, self._next + count))
        inode.sectors = count * (BLOCK // 512)
        self._next += count
        return True

    def _pointers(self, runs: list[BlockRun], start: int, depth: int) -> tuple[int, int]:
        """Place the pointers to the ``1024 ** depth`` blocks from *start*; return the top one and their number."""
        span = POINTERS**depth
        inside = [run for run in runs if run.logical < start + span and run.logical + run.count > start]
        if not inside:
            return 0, 0
        used = 1
        [(block, _)] = self._allocate(1)
        if depth == 1:
            table = window(inside, start, POINTERS)
        else:
            table = array("I", bytes(BLOCK))
            step = span // POINTERS
            touched: set[int] = set()
            for run in inside:
                last = min(run.logical + run.count - 1 - start, span - 1)
                touched.update(range(max(run.logical - start, 0) // step, last // step + 1))
            for index in sorted(touched):
                table[index], taken = self._pointers(inside, start + index * step, depth - 1)
                used += taken
        self._placed.append((block * BLOCK, Literal(little(table))))
        return block, used

    # -- rendering -----------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> Identity:
        """The file system's ids follow from its structures: names, modes, sizes and places, but no file is read."""
        digest = blake3(b"%b\0%d\0%d" % (self._label, self._epoch, self.size))
        for inode in self._inodes:
            block = inode.inline or inode.block.ljust(60, b"\0")
            digest.update(b"%d %o %d %b" % (inode.number, inode.kind | inode.mode, inode.content.size, block))
        for offset, source in self._placed:
            digest.update(b"%d %d" % (offset, source.length))
            if isinstance(source, Literal):
                digest.update(source.data)
        return Identity(digest.hexdigest)

    @property
    def uuid(self) -> str:
        """The file system's UUID, in lower case."""
        return str(self.identity.uuid("ext2"))

    def content(self) -> Content:
        """Return the whole file system; files are read when that is."""
        geometry = self._geometry
        placed: list[tuple[int, Source]] = []
        descriptors = b"".join(self._descriptor(group).pack() for group in range(geometry.groups))
        for group in range(geometry.groups):
            first = block = group * GROUP
            if holds_sparse_copy(group):
                superblock = self._superblock(group).pack()
                boot = bytes(1024) if group == 0 else b""
                placed.append((block, Literal(boot + superblock)))
                placed.append((block + 1, Literal(descriptors)))
                block += 1 + geometry.descriptor_blocks
            length = geometry.length(group)
            used = self._used_blocks(group)
            placed.append((block, Literal(_bitmap(used, length))))
            placed.append((block + 1, Literal(_bitmap(self._used_inodes(group), geometry.inodes_per_group))))
            if table := self._table(group):
                placed.append((block + 2, Literal(table)))
            assert block + 2 + geometry.table_blocks == first + geometry.overhead(group)
        groups = [(block * BLOCK, source) for block, source in placed]
        return Content.spread(sorted([*self._placed, *groups], key=itemgetter(0)), self.size)

    def _used_blocks(self, group: int) -> int:
        """Return how many blocks of *group* are in use; they are its first."""
        beyond = self._next - group * GROUP
        return min(max(beyond, self._geometry.overhead(group)), self._geometry.length(group))

    def _used_inodes(self, group: int) -> int:
        per_group = self._geometry.inodes_per_group
        return min(max(self._last_inode() - group * per_group, 0), per_group)

    def _in_group(self, group: int) -> tuple[Inode, ...]:
        per_group = self._geometry.inodes_per_group
        low, high = (bisect_right(self._inodes, n * per_group, key=_NUMBER) for n in (group, group + 1))
        return self._inodes[low:high]

    def _table(self, group: int) -> bytes:
        """Return the used part of *group*'s inode table."""
        inodes = self._in_group(group)
        if not inodes:
            return b""
        pack = InodeRecord.packer(*_INODE_FIELDS)
        first, epoch = group * self._geometry.inodes_per_group + 1, self._epoch
        table = bytearray((inodes[-1].number - first + 1) * InodeRecord.SIZE)
        for inode in inodes:
            size = inode.content.size
            high = size >> 32 if inode.kind == REGULAR else 0
            at = (inode.number - first) * InodeRecord.SIZE
            table[at : at + InodeRecord.SIZE] = pack(
                *(inode.kind | inode.mode, size & 0xFFFFFFFF, epoch, epoch, epoch),
                *(inode.links, inode.sectors, inode.block, high),
            )
        return bytes(table)

    def _descriptor(self, group: int) -> GroupDescriptor:
        geometry = self._geometry
        block = group * GROUP + geometry.overhead(group) - geometry.table_blocks - 2
        return GroupDescriptor(
            block_bitmap=block,
            inode_bitmap=block + 1,
            inode_table=block + 2,
            free_blocks=geometry.length(group) - self._used_blocks(group),
            free_inodes=geometry.inodes_per_group - self._used_inodes(group),
            directories=sum(inode.kind == DIRECTORY for inode in self._in_group(group)),
        )

    @cached_property
    def _free_blocks(self) -> int:
        return sum(self._geometry.length(group) - self._used_blocks(group) for group in range(self._geometry.groups))

    @cached_property
    def _large(self) -> bool:
        return any(inode.kind == REGULAR and inode.content.size >= 1 << 31 for inode in self._inodes)

    def _superblock(self, group: int) -> SuperBlock:
        geometry = self._geometry
        inodes = geometry.inodes_per_group * geometry.groups
        return SuperBlock(
            inodes_count=inodes,
            blocks_count=geometry.blocks,
            free_blocks=self._free_blocks,
            free_inodes=inodes - self._last_inode(),
            blocks_per_group=GROUP,
            fragments_per_group=GROUP,
            inodes_per_group=geometry.inodes_per_group,
            written_at=self._epoch,
            checked_at=self._epoch,
            made_at=self._epoch,
            block_group=group,
            read_only_compatible=SPARSE_SUPER | (LARGE_FILE if self._large else 0),
            uuid=self.identity.uuid("ext2").bytes,
            label=self._label,
            hash_seed=self.identity.uuid("ext2 hash seed").bytes,
        )


@lru_cache(64)
def _bitmap(used: int, length: int) -> bytes:
    """Return a block of bitmap: the first *used* bits, and all from *length* on, which do not exist.

    Groups without files share one: 1 TiB has 8,192 of them.
    """
    bits = ((1 << used) - 1) | ((1 << 8 * BLOCK) - (1 << length))
    return bits.to_bytes(BLOCK, "little")
