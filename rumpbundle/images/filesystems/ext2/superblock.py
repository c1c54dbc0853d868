"""What the superblock of an ext2, ext3 or ext4 says: sizes, features, where the groups' descriptors stand.

Sources: "The Second Extended File System", Dave Poirier; Linux, Documentation/filesystems/ext4 ("super.rst").
"""

from __future__ import annotations

import struct
import uuid

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.ext2 import holds_sparse_copy
from rumpbundle.errors import ImageError

OFFSET = 1024
SIZE = 1024
MAGIC = b"\x53\xef"

HAS_JOURNAL = 0x0004
"""Compatible."""
COMPRESSION, RECOVER, JOURNAL_DEVICE, META_GROUPS, WIDE = 0x1, 0x4, 0x8, 0x10, 0x80
INLINE, ENCRYPT = 0x8000, 0x10000
"""Incompatible: who does not know them must not read."""
SPARSE_SUPER, BIG_CLUSTERS, CHECKSUMS, SHARED_BLOCKS = 0x1, 0x200, 0x400, 0x4000
"""Read-only compatible."""

_INCOMPATIBLE = {
    COMPRESSION: "compression",
    0x2: "filetype",
    RECOVER: "needs_recovery",
    JOURNAL_DEVICE: "journal_dev",
    META_GROUPS: "meta_bg",
    0x40: "extents",
    WIDE: "64bit",
    0x100: "mmp",
    0x200: "flex_bg",
    0x400: "ea_inode",
    0x1000: "dirdata",
    0x2000: "metadata_csum_seed",
    0x4000: "large_dir",
    INLINE: "inline_data",
    ENCRYPT: "encrypt",
    0x20000: "casefold",
}
"""The names that e2fsprogs gives them."""
_UNREAD = COMPRESSION | JOURNAL_DEVICE | 0x1000
_EXT3_INCOMPATIBLE = 0x2 | RECOVER | META_GROUPS
_EXT3_READ_ONLY = SPARSE_SUPER | 0x2 | 0x4
_ERRORS = 2
"""A bit of the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuperBlock:
    """The fields we use, as they stand; *raw* is all of it."""

    raw: bytes
    inodes: int
    blocks: int
    first_block: int
    block_size: int
    blocks_per_group: int
    inodes_per_group: int
    inode_size: int
    descriptor_size: int
    first_meta_group: int
    compatible: int
    incompatible: int
    read_only: int

    @classmethod
    def read(cls, raw: bytes) -> SuperBlock:
        """Make sense of the 1024 bytes *raw*.

        Raises:
            ImageError: they make none.
        """
        inodes, blocks, first, log_size = struct.unpack_from("<II12xII", raw, 0)
        per_group, inodes_per_group = struct.unpack_from("<I4xI", raw, 32)
        revision = int.from_bytes(raw[76:80], "little")
        inode_size = int.from_bytes(raw[88:90], "little") if revision else 128
        compatible, incompatible, read_only = struct.unpack_from("<III", raw, 92) if revision else (0, 0, 0)
        descriptor_size = 32
        if incompatible & WIDE:
            blocks |= int.from_bytes(raw[336:340], "little") << 32
            descriptor_size = int.from_bytes(raw[254:256], "little") or 64
        powers = all(size & (size - 1) == 0 for size in (inode_size, descriptor_size))
        journal = incompatible & JOURNAL_DEVICE
        if log_size > 6 or not powers or (not journal and not (per_group and inodes_per_group and inodes)):
            raise ImageError("ext2: the superblock is damaged")
        if inodes_per_group > 8 * (1024 << log_size):
            raise ImageError(f"ext2: {inodes_per_group} inodes in a group, more than its bitmap has bits")
        if not 128 <= inode_size <= 1024 << log_size or not 32 <= descriptor_size <= 1024:
            raise ImageError("ext2: the superblock is damaged")
        return cls(
            raw=raw,
            inodes=inodes,
            blocks=blocks,
            first_block=first,
            block_size=1024 << log_size,
            blocks_per_group=per_group or 1,
            inodes_per_group=inodes_per_group or 1,
            inode_size=inode_size,
            descriptor_size=descriptor_size,
            first_meta_group=int.from_bytes(raw[260:264], "little"),
            compatible=compatible,
            incompatible=incompatible,
            read_only=read_only,
        )

    @property
    def kind(self) -> str:
        if self.incompatible & ~_EXT3_INCOMPATIBLE or self.read_only & ~_EXT3_READ_ONLY:
            return "ext4"
        return "ext3" if self.compatible & HAS_JOURNAL else "ext2"

    @property
    def label(self) -> str:
        return self.raw[120:136].split(b"\0")[0].decode("utf-8", "replace")

    @property
    def uuid(self) -> str:
        return str(uuid.UUID(bytes=self.raw[104:120])) if any(self.raw[104:120]) else ""

    @property
    def groups(self) -> int:
        return -(-max(self.blocks - self.first_block, 0) // self.blocks_per_group)

    @property
    def unread(self) -> str:
        """The features that keep us from reading its files, by name; empty if there are none."""
        names = []
        for bit in (1 << number for number in range(32)):
            if self.incompatible & bit & (_UNREAD | ~sum(_INCOMPATIBLE)):
                names.append(_INCOMPATIBLE.get(bit, f"{bit:#x}"))
        return ", ".join(names)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What its files do not show."""
        found = []
        if self.incompatible & RECOVER:
            found.append("its journal has not been replayed: what only the journal holds is not shown")
        if self.incompatible & ENCRYPT:
            found.append("it may hold encrypted files, which cannot be read")
        if int.from_bytes(self.raw[58:60], "little") & _ERRORS:
            found.append("it says that errors were found in it: run e2fsck")
        return tuple(found)

    def has_copy(self, group: int) -> bool:
        """Return whether *group* begins with a copy of the superblock."""
        if self.compatible & 0x200:  # sparse_super2
            return group == 0 or group in struct.unpack_from("<II", self.raw, 588)
        return not self.read_only & SPARSE_SUPER or holds_sparse_copy(group)

    def descriptor(self, group: int) -> int:
        """Return the byte offset of the descriptor of *group*."""
        number, at = divmod(group, self._per_block)
        first = self.first_block
        if not self.incompatible & META_GROUPS or number < self.first_meta_group:
            block = first + 1 + number + self._shift
        else:
            own = number * self._per_block
            block = first + own * self.blocks_per_group + self.has_copy(own) + (self._shift if not own else 0)
        return block * self.block_size + at * self.descriptor_size

    @property
    def _per_block(self) -> int:
        return self.block_size // self.descriptor_size

    @property
    def _shift(self) -> int:
        """With blocks of 1 KiB and none before the first group, the superblock takes the second block."""
        return int(self.block_size == 1024 and not self.first_block)
