"""vhdx: Hyper-V's disk, both generations.

Laid out as qemu-img does it, byte for byte but for its ids, its version and what is left in its log: regions of whole
MiB behind each other, then the blocks in the order of the disk (docs/facts/formats.md#vhdx).
"""

from __future__ import annotations

import os
import struct

from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.disk.layout import GIB, MIB, SECTOR, round_up
from rumpbundle.formats._blocks import in_a_row, used_blocks, write_blocks
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.records import vhdx

_LARGEST = 64 << 40
"""Bytes; Microsoft's limit."""
_LOG_OFFSET, _TABLE_OFFSET = MIB, 2 * MIB
_FREE = 4 * MIB
"""Between the regions and the first block."""
_BITMAP_SECTORS = 1 << 23
"""For so many of them stands a bitmap's entry in the table, though only a disk with a parent has bitmaps."""


def _write(job: Job, out: StagedFile) -> None:
    layout, fd = job.layout, out.fd
    block = _block_size(layout.size)
    blocks, chunk = -(-layout.size // block), _BITMAP_SECTORS * SECTOR // block
    entries = blocks + (blocks - 1) // chunk
    table_size = round_up(8 * entries, MIB)
    metadata_offset = _TABLE_OFFSET + table_size
    runs = in_a_row(used_blocks(layout, block), block, metadata_offset + MIB + _FREE)
    table = [vhdx.BLOCK_ZERO] * entries
    for index in range(chunk, entries, chunk + 1):
        table[index] = 0
    for run in runs:
        for number in range(run.length // block):
            index = run.offset // block + number
            table[index + index // chunk] = run.place + number * block | vhdx.BLOCK_FULLY_PRESENT
    with disk_errors():
        os.ftruncate(fd, runs[-1].place + runs[-1].length if runs else metadata_offset + MIB + _FREE)
        regions = vhdx.region_table({vhdx.BAT: (_TABLE_OFFSET, table_size), vhdx.METADATA: (metadata_offset, MIB)})
        for offset in vhdx.REGION_TABLES:
            write_all(fd, regions, offset)
        write_all(fd, struct.pack(f"<{entries}Q", *table), _TABLE_OFFSET)
    write_blocks(job, fd, runs)
    identity = layout.identity
    with disk_errors():
        write_all(fd, vhdx.FileIdentifier(creator="rumpbundle".encode("utf-16-le")).pack(), 0)
        for sequence, offset in enumerate(vhdx.HEADERS, 1):
            header = vhdx.Header(
                sequence=sequence,
                file_write_guid=identity.uuid("vhdx-file-write").bytes_le,
                data_write_guid=identity.uuid("vhdx-data-write").bytes_le,
                log_length=MIB,
                log_offset=_LOG_OFFSET,
            )
            write_all(fd, header.sealed().pack(), offset)
        for at, data in vhdx.metadata(block, layout.size, identity.uuid("vhdx-disk")):
            write_all(fd, data, metadata_offset + at)


def _block_size(size: int) -> int:
    """Return what qemu-img takes for a disk of *size* bytes."""
    for least, block in ((32 << 40, 64 * MIB), (100 * GIB, 32 * MIB), (GIB, 16 * MIB)):
        if size > least:
            return block
    return 8 * MIB


FORMAT = Format(
    name="vhdx",
    suffix=".vhdx",
    summary="Hyper-V's disk, both generations",
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(largest=_LARGEST),),
    targets=("hyperv",),
)
