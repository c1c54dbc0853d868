"""ext2, revision 1 ("The Second Extended File System", Dave Poirier, nongnu.org/ext2-doc; sections cited below)."""

from __future__ import annotations

from typing import Annotated

from rumpbundle.disk.binary import Record

MAGIC = 0xEF53
ROOT_INODE = 2
FIRST_INODE = 11
"""The first inode that is not reserved; lost+found has it."""
REGULAR, DIRECTORY, SYMLINK = 0o100000, 0o040000, 0o120000
ENTRY_TYPES = {REGULAR: 1, DIRECTORY: 2, SYMLINK: 7}
"""What a directory entry says a file is, by the bits of its mode."""
FILE_TYPES = 2
"""Incompatible feature: directory entries have types."""
SPARSE_SUPER, LARGE_FILE = 1, 2
"""Read-only compatible features: few copies of the superblock, files of 2 GiB and more."""


class SuperBlock(Record, order="<", size=1024):
    """§ Superblock."""

    inodes_count: Annotated[int, "I"]
    blocks_count: Annotated[int, "I"]
    reserved_blocks: Annotated[int, "I"] = 0
    free_blocks: Annotated[int, "I"]
    free_inodes: Annotated[int, "I"]
    first_data_block: Annotated[int, "I"] = 0
    log_block_size: Annotated[int, "I"] = 2
    """Blocks have 1024 << this bytes."""
    log_fragment_size: Annotated[int, "I"] = 2
    blocks_per_group: Annotated[int, "I"]
    fragments_per_group: Annotated[int, "I"]
    inodes_per_group: Annotated[int, "I"]
    mounted_at: Annotated[int, "I"] = 0
    written_at: Annotated[int, "I"]
    mounts: Annotated[int, "H"] = 0
    max_mounts: Annotated[int, "H"] = 0xFFFF
    magic: Annotated[int, "H"] = MAGIC
    state: Annotated[int, "H"] = 1
    errors: Annotated[int, "H"] = 1
    minor_revision: Annotated[int, "H"] = 0
    checked_at: Annotated[int, "I"]
    check_interval: Annotated[int, "I"] = 0
    creator_os: Annotated[int, "I"] = 0
    revision: Annotated[int, "I"] = 1
    reserved_uid: Annotated[int, "H"] = 0
    reserved_gid: Annotated[int, "H"] = 0
    first_inode: Annotated[int, "I"] = FIRST_INODE
    inode_size: Annotated[int, "H"] = 128
    block_group: Annotated[int, "H"] = 0
    compatible: Annotated[int, "I"] = 0
    incompatible: Annotated[int, "I"] = FILE_TYPES
    read_only_compatible: Annotated[int, "I"]
    uuid: Annotated[bytes, "16s"]
    label: Annotated[bytes, "16s"]
    last_mounted: Annotated[bytes, "64s"] = b""
    compression: Annotated[int, "I"] = 0
    preallocate: Annotated[bytes, "4s"] = b""
    journal: Annotated[bytes, "28s"] = b""
    hash_seed: Annotated[bytes, "16s"]
    hash_version: Annotated[int, "B"] = 1
    padding: Annotated[bytes, "11s"] = b""
    made_at: Annotated[int, "I"]
    rest: Annotated[bytes, "756s"] = b""


class GroupDescriptor(Record, order="<", size=32):
    """§ Block Group Descriptor Structure."""

    block_bitmap: Annotated[int, "I"]
    inode_bitmap: Annotated[int, "I"]
    inode_table: Annotated[int, "I"]
    free_blocks: Annotated[int, "H"]
    free_inodes: Annotated[int, "H"]
    directories: Annotated[int, "H"]
    padding: Annotated[bytes, "14s"] = b""


class InodeRecord(Record, order="<", size=128):
    """§ Inode Structure."""

    mode: Annotated[int, "H"]
    uid: Annotated[int, "H"] = 0
    size: Annotated[int, "I"]
    accessed: Annotated[int, "I"]
    changed: Annotated[int, "I"]
    modified: Annotated[int, "I"]
    deleted: Annotated[int, "I"] = 0
    gid: Annotated[int, "H"] = 0
    links: Annotated[int, "H"]
    sectors: Annotated[int, "I"]
    flags: Annotated[int, "I"] = 0
    os_value: Annotated[int, "I"] = 0
    block: Annotated[bytes, "60s"]
    generation: Annotated[int, "I"] = 0
    file_acl: Annotated[int, "I"] = 0
    size_high: Annotated[int, "I"] = 0
    rest: Annotated[bytes, "16s"] = b""
