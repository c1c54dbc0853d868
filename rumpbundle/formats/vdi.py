"""vdi: VirtualBox's own dynamic disk; QEMU reads it too.

Blocks of 1 MiB stand in the order of the disk, aligned to 1 MiB as VirtualBox aligns them.
"""

from __future__ import annotations

from rumpbundle.errors import InputError
from rumpbundle.events import Advanced
from rumpbundle.flat import disk_errors, hashing, write_all
from rumpbundle.formats import Format, Job
from rumpbundle.formats._late import fill_late
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.vdi import Vdi
from rumpbundle.layout import MIB, LayoutReader, held, round_up
from rumpbundle.ondisk import vdi
from rumpbundle.output import StagedFile

_LARGEST = 1 << 48
"""Bytes: a map of 1 GiB. VirtualBox's own limit is not far above."""


def _write(job: Job, out: StagedFile) -> None:
    layout = job.layout
    if layout.size > _LARGEST:
        raise InputError(f"a disk of {layout.size} bytes is too large for VDI")
    blocks = -(-layout.size // vdi.BLOCK)
    data_offset = round_up(vdi.Header.blocks_offset + 4 * blocks, vdi.BLOCK)
    table = [vdi.FREE] * blocks
    allocated = 0
    with disk_errors(), hashing(layout.files), LayoutReader(held(layout)) as reader:
        for index, block in reader.blocks(vdi.BLOCK):
            write_all(out.fd, block, data_offset + allocated * vdi.BLOCK)
            table[index] = allocated
            allocated += 1
            job.report(Advanced("vdi", vdi.BLOCK))
        write_all(out.fd, b"".join(entry.to_bytes(4, "little") for entry in table), vdi.Header.blocks_offset)
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
        fill_late(layout, Vdi(FdMedium(out.fd)), out.fd)


FORMAT = Format(
    name="vdi",
    suffix=".vdi",
    summary="VirtualBox disk, dynamic",
    targets=("virtualbox",),
    write=_write,
    align=MIB,
)
