"""vdi: VirtualBox's own dynamic disk; QEMU reads it too.

Blocks of 1 MiB stand in the order of the disk, aligned to 1 MiB as VirtualBox aligns them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.disk.layout import MIB, round_up
from rumpbundle.formats._blocks import in_a_row, used_blocks, write_blocks
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.records import vdi

_LARGEST = 1 << 48
"""Bytes: a map of 1 GiB. VirtualBox's own limit is not far above."""
_AT_ONCE = 1 << 18
"""Entries of the map."""


def _write(job: Job, out: StagedFile) -> None:
    layout = job.layout
    blocks = -(-layout.size // vdi.BLOCK)
    data_offset = round_up(vdi.Header.blocks_offset + 4 * blocks, vdi.BLOCK)
    used = used_blocks(layout, vdi.BLOCK)
    allocated = sum(map(len, used))
    with disk_errors():
        os.ftruncate(out.fd, data_offset + allocated * vdi.BLOCK)
        _write_map(out.fd, used, blocks)
    write_blocks(job, out.fd, in_a_row(used, vdi.BLOCK, data_offset))
    header = vdi.Header(
        data_offset=data_offset,
        disk_size=layout.size,
        blocks=blocks,
        blocks_allocated=allocated,
        uuid_create=layout.identity.uuid("vdi-create").bytes_le,
        uuid_modify=layout.identity.uuid("vdi-modify").bytes_le,
    )
    with disk_errors():
        write_all(out.fd, header.pack(), 0)


def _write_map(fd: int, used: Sequence[range], blocks: int) -> None:
    free = vdi.FREE.to_bytes(4, "little")
    for first in range(0, blocks, _AT_ONCE):
        count = min(_AT_ONCE, blocks - first)
        write_all(fd, free * count, vdi.Header.blocks_offset + 4 * first)
    number = 0
    for each in used:
        places = struct.pack(f"<{len(each)}I", *range(number, number + len(each)))
        write_all(fd, places, vdi.Header.blocks_offset + 4 * each.start)
        number += len(each)


FORMAT = Format(
    name="vdi",
    suffix=".vdi",
    summary="VirtualBox disk, dynamic",
    targets=("virtualbox",),
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(largest=_LARGEST),),
)
