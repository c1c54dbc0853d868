"""qcow2, versions 2 and 3 (QEMU, docs/interop/qcow2.txt)."""

from __future__ import annotations

import struct
from typing import Annotated

from rumpbundle.disk.binary import Record

MAGIC = b"QFI\xfb"
INCOMPATIBLE_DIRTY = 1 << 0
INCOMPATIBLE_CORRUPT = 1 << 1
INCOMPATIBLE_DATA_FILE = 1 << 2
INCOMPATIBLE_COMPRESSION = 1 << 3
INCOMPATIBLE_L2 = 1 << 4
"""Level 2 entries of 16 bytes, each with a bitmap of 32 subclusters."""
COMPATIBLE_LAZY = 1 << 0
"""Reference counts may wait until the image is closed; while they do, it is marked as dirty."""
AUTOCLEAR_BITMAPS = 1 << 0
"""There are bitmaps of what changed, for backups, in clusters of their own."""
EXTENSION_BITMAPS = 0x23852875
EXTENSION_DATA_FILE = 0x44415441
"""The header extension that names the file with the data."""

OFFSET_MASK = 0x00FF_FFFF_FFFF_FE00
"""Where a table or cluster stands in the file, in a table entry."""
L2_COMPRESSED = 1 << 62
L2_ZERO = 1 << 0


class Header(Record, order=">", size=104):
    """The part that versions 2 (its first 72 bytes) and 3 share; offsets in bytes."""

    magic: Annotated[bytes, "4s"] = MAGIC
    version: Annotated[int, "I"] = 3
    backing_file_offset: Annotated[int, "Q"]
    backing_file_size: Annotated[int, "I"]
    cluster_bits: Annotated[int, "I"] = 16
    disk_size: Annotated[int, "Q"]
    encryption: Annotated[int, "I"]
    l1_size: Annotated[int, "I"]
    l1_offset: Annotated[int, "Q"]
    refcount_table_offset: Annotated[int, "Q"]
    refcount_table_clusters: Annotated[int, "I"]
    snapshots: Annotated[int, "I"]
    snapshots_offset: Annotated[int, "Q"]
    incompatible: Annotated[int, "Q"]
    compatible: Annotated[int, "Q"]
    autoclear: Annotated[int, "Q"]
    refcount_order: Annotated[int, "I"] = 4
    header_length: Annotated[int, "I"] = 104


LENGTH_WITH_COMPRESSION = 112
"""Of a version 3 header that has the compression's type, whose 0 is zlib, and padding."""
COPIED = 1 << 63
"""In a table entry: what it leads to is used once, and can be written to in place."""
EXTENSION_FEATURE_NAMES = 0x6803F857
FEATURE_NAME_SIZE = 48
_FEATURES = (
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
)
"""Kind (0 incompatible, 1 compatible, 2 autoclear), bit, and the name that a program tells that does not know it."""


def feature_names() -> bytes:
    """Return the header extension that names the features which this version of the format knows."""
    names = b"".join(struct.pack("BB46s", kind, bit, name.encode("ascii")) for kind, bit, name in _FEATURES)
    return struct.pack(">II", EXTENSION_FEATURE_NAMES, len(names)) + names
