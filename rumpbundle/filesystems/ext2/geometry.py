"""How an ext2 file system is divided into groups of blocks, and how large it must be."""

from __future__ import annotations

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.ext2 import holds_sparse_copy
from rumpbundle.disk.layout import MIB, round_up
from rumpbundle.errors import InputError
from rumpbundle.filesystems.ext2.records import GroupDescriptor, InodeRecord

BLOCK = 4096
GROUP = 8 * BLOCK
"""Blocks in a group: what one block of bitmap can map."""
GROUP_INODES = 8 * BLOCK
"""Inodes a group has at most, for the same reason."""
MAX_BLOCKS = 1 << 32
BYTES_PER_INODE = 16384
"""One inode for so many bytes that are free, as mke2fs has it."""
_LEAST_LAST_GROUP = 50
"""Blocks beside its own structures without which a last group is not worth having, as mke2fs has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a file system of *blocks* with at least *inodes* inodes is divided."""

    blocks: int
    inodes: int

    @property
    def groups(self) -> int:
        return -(-self.blocks // GROUP)

    @property
    def descriptor_blocks(self) -> int:
        return -(-self.groups * GroupDescriptor.SIZE // BLOCK)

    @property
    def inodes_per_group(self) -> int:
        return round_up(-(-self.inodes // self.groups), BLOCK // InodeRecord.SIZE)

    @property
    def table_blocks(self) -> int:
        return self.inodes_per_group * InodeRecord.SIZE // BLOCK

    def overhead(self, group: int) -> int:
        """Return the blocks of *group* that structures take: they stand at its beginning."""
        copies = 1 + self.descriptor_blocks if holds_sparse_copy(group) else 0
        return copies + 2 + self.table_blocks

    def length(self, group: int) -> int:
        """Return the blocks *group* has."""
        return min(GROUP, self.blocks - group * GROUP)

    def usable(self) -> int:
        """Return the blocks that files can have."""
        return self.blocks - sum(map(self.overhead, range(self.groups)))

    def without_stub(self) -> Geometry:
        """Return this without a last group too small to be worth its structures."""
        last = self.groups - 1
        if last and self.length(last) < self.overhead(last) + _LEAST_LAST_GROUP:
            return Geometry(blocks=last * GROUP, inodes=self.inodes)
        return self


def with_room(data: int, inodes: int, free: int) -> Geometry:
    """Return the fewest whole MiB that hold *data* blocks, *inodes*, and *free* bytes with inodes for these.

    Raises:
        InputError: no ext2 is that large.
    """
    inodes += free // BYTES_PER_INODE
    needed = data + -(-free // BLOCK)
    groups = -(-inodes // GROUP_INODES)
    blocks = round_up(max(needed, (groups - 1) * GROUP + 1), MIB // BLOCK)
    while True:
        if blocks >= MAX_BLOCKS:
            raise InputError("does not fit ext2's 32-bit block numbers")
        geometry = Geometry(blocks=blocks, inodes=inodes).without_stub()
        if geometry.blocks == blocks and geometry.usable() >= needed:
            return geometry
        blocks = round_up(max(blocks + 1, blocks + needed - geometry.usable()), MIB // BLOCK)


def of_size(data: int, inodes: int, size: int) -> Geometry:
    """Return as many blocks as *size* bytes hold, with room for *data* blocks and *inodes*.

    Raises:
        InputError: there is not that much room in them.
    """
    wanted = max(inodes, size // BYTES_PER_INODE)
    blocks = size // BLOCK
    if blocks >= MAX_BLOCKS:
        raise InputError(f"a file system of {size} bytes does not fit ext2's 32-bit block numbers")
    if blocks > 0:
        geometry = Geometry(blocks=blocks, inodes=wanted).without_stub()
        if geometry.inodes_per_group <= GROUP_INODES and geometry.usable() >= data:
            return geometry
    least = with_room(data, inodes, 0).blocks * BLOCK // MIB
    raise InputError(f"a file system of {size} bytes cannot hold these files; they need {least} MiB")
