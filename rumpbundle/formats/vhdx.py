"""vhdx: Hyper-V's disk, both generations.

Written by qemu-img, whose result holds random GUIDs, a random sequence number, its version, and what is left of a log
(docs/facts/formats.md#qemu-img).
"""

from __future__ import annotations

from rumpbundle.disk.flat import write_all
from rumpbundle.disk.layout import MIB
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.formats._late import fill_late
from rumpbundle.formats._qemu_img import convert
from rumpbundle.formats._seal import expect, sealing
from rumpbundle.formats._written import compare
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.records import vhdx

_LARGEST = 64 << 40
"""Bytes; Microsoft's limit."""


def _write(job: Job, out: StagedFile) -> None:
    convert(job, out, "vhdx", "subformat=dynamic")
    with sealing():
        _seal(job, out.fd)


def _seal(job: Job, fd: int) -> None:
    from rumpbundle.images.containers.vhdx import Vhdx

    medium = FdMedium(fd)
    disk = Vhdx(medium)
    identity = job.layout.identity
    expect(disk.size == job.layout.size, "the VHDX has another size")
    # Vhdx() has refused a log that is in use; this one only holds stale entries.
    expect(disk.header.log_length == MIB and disk.header.log_offset >= MIB, "the VHDX's log is not where it was")
    tables = {medium.read(offset, vhdx.REGION_TABLE_SIZE) for offset in vhdx.REGION_TABLES}
    expect(len(tables) == 1, "the two region tables of the VHDX differ")
    expect(vhdx.PAGE_83 in disk.items, "the VHDX has no disk id")
    compare(job.layout, disk, unit=disk.block)
    fill_late(job.layout, disk, fd)
    creator = "rumpbundle".encode("utf-16-le")
    write_all(fd, vhdx.FileIdentifier(creator=creator).pack(), 0)
    write_all(fd, bytes(disk.header.log_length), disk.header.log_offset)
    write_all(fd, identity.uuid("vhdx-disk").bytes_le, disk.items[vhdx.PAGE_83])
    for sequence, offset in enumerate(vhdx.HEADERS, 1):
        header = disk.header.replace(
            sequence=sequence,
            file_write_guid=identity.uuid("vhdx-file-write").bytes_le,
            data_write_guid=identity.uuid("vhdx-data-write").bytes_le,
        )
        write_all(fd, header.sealed().pack(), offset)


FORMAT = Format(
    name="vhdx",
    suffix=".vhdx",
    summary="Hyper-V's disk, both generations",
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(tools=("qemu-img",), largest=_LARGEST),),
    targets=("hyperv",),
)
