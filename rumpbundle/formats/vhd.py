"""vhd: Microsoft's older disk format: Hyper-V generation 1, Virtual PC, VirtualBox, Xen, EC2 import.

``dynamic`` grows with what is written; ``fixed`` is the disk itself with a footer behind it. Neither lets a reader
round the disk's size to cylinders. Azure wants ``fixed`` with rules of its own: see the format ``azure``.
"""

from __future__ import annotations

import os

from rumpbundle.disk.flat import disk_errors, write_all, write_flat
from rumpbundle.disk.layout import GIB, MIB, SECTOR, round_up
from rumpbundle.formats._blocks import StoredRun, used_blocks, write_blocks
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.records import vhd

_BLOCK = 2 << 20
_BITMAP = b"\xff" * (_BLOCK // SECTOR // 8)
"""In front of each block: all its sectors are in use."""
_LARGEST_DYNAMIC = 2040 * GIB
"""Microsoft's limit, which qemu-img holds to as well."""


def _write(job: Job, out: StagedFile) -> None:
    layout = job.layout
    if job.subformat == "fixed":
        write_flat(layout, out.fd, job.report, job.label)
        footer = vhd.footer(layout.size, layout.identity.uuid("vhd-fixed").bytes, job.epoch)
        with disk_errors():
            write_all(out.fd, footer.pack(), layout.size)
        return
    end = _write_dynamic(job, out.fd)
    footer = vhd.footer(
        layout.size,
        layout.identity.uuid("vhd-dynamic").bytes,
        job.epoch,
        data_offset=SECTOR,
        disk_type=vhd.DYNAMIC,
    )
    with disk_errors():
        write_all(out.fd, footer.pack(), 0)
        write_all(out.fd, footer.pack(), end)


def _write_dynamic(job: Job, fd: int) -> int:
    """Write all of the job's disk but its footers, and return where the second of those goes."""
    header = vhd.DynamicHeader(table_offset=3 * SECTOR, blocks=-(-job.layout.size // _BLOCK), block_size=_BLOCK)
    table = bytearray(vhd.UNUSED.to_bytes(4, "big")) * header.blocks
    place = header.table_offset + round_up(len(table), SECTOR)
    runs = []
    for indices in used_blocks(job.layout, _BLOCK):
        for index in indices:
            table[4 * index : 4 * index + 4] = (place // SECTOR).to_bytes(4, "big")
            runs.append(StoredRun(index * _BLOCK, _BLOCK, place + len(_BITMAP)))
            place += len(_BITMAP) + _BLOCK
    with disk_errors():
        os.ftruncate(fd, place + SECTOR)
        write_all(fd, header.sealed().pack(), SECTOR)
        write_all(fd, table.ljust(round_up(len(table), SECTOR), b"\xff"), header.table_offset)
    write_blocks(job, fd, runs)
    with disk_errors():
        for run in runs:
            write_all(fd, _BITMAP, run.place - len(_BITMAP))
    return place


FORMAT = Format(
    name="vhd",
    suffix=".vhd",
    summary="Microsoft's older disk: Hyper-V generation 1, VirtualBox, Xen, EC2 import",
    targets=("hyperv",),
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(name="dynamic", largest=_LARGEST_DYNAMIC), Subformat(name="fixed")),
)
