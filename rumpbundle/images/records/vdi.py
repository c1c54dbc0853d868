"""VDI 1.1, VirtualBox's own format (docs/facts/formats.md#vdi, from its source VDICore.h)."""

from __future__ import annotations

from typing import Annotated

from rumpbundle.disk.binary import Record

SIGNATURE = 0xBEDA107F
VERSION = 0x00010001
DYNAMIC = 1
FIXED = 2
UNDO = 3
DIFFERENCING = 4
BLOCK = 1 << 20
FREE = 0xFFFFFFFF
ZERO = 0xFFFFFFFE


class Header(Record, order="<", size=512):
    """Preheader and header; offsets in bytes from the start of the file. UUIDs have their first fields swapped."""

    text: Annotated[bytes, "64s"] = b"<<< rumpbundle disk image >>>\n"
    signature: Annotated[int, "I"] = SIGNATURE
    version: Annotated[int, "I"] = VERSION
    header_size: Annotated[int, "I"] = 400
    """What follows ``version``, with the LCHS geometry that newer VirtualBox writes."""
    type: Annotated[int, "I"] = DYNAMIC
    flags: Annotated[int, "I"]
    comment: Annotated[bytes, "256s"]
    blocks_offset: Annotated[int, "I"] = 512
    data_offset: Annotated[int, "I"]
    cylinders: Annotated[int, "I"]
    heads: Annotated[int, "I"]
    sectors: Annotated[int, "I"]
    sector_size: Annotated[int, "I"] = 512
    unused: Annotated[int, "I"]
    disk_size: Annotated[int, "Q"]
    block_size: Annotated[int, "I"] = BLOCK
    block_extra: Annotated[int, "I"]
    blocks: Annotated[int, "I"]
    blocks_allocated: Annotated[int, "I"]
    uuid_create: Annotated[bytes, "16s"]
    uuid_modify: Annotated[bytes, "16s"]
    uuid_linkage: Annotated[bytes, "16s"]
    uuid_parent_modify: Annotated[bytes, "16s"]
    lchs: Annotated[bytes, "16s"]
    """Logical geometry; all zero leaves it to VirtualBox."""
    padding: Annotated[bytes, "40s"]
