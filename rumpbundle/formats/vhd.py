"""vhd: Microsoft's older disk format: Hyper-V generation 1, Virtual PC, VirtualBox, Xen, EC2 import.

``dynamic`` grows with what is written; ``fixed`` is the disk itself with a footer behind it. Neither lets a reader
round the disk's size to cylinders. Azure wants ``fixed`` with rules of its own: see the format ``azure``.
"""

from __future__ import annotations

from rumpbundle.disk.flat import disk_errors, write_all, write_flat
from rumpbundle.disk.layout import GIB, MIB, SECTOR, round_up
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.formats._late import fill_late
from rumpbundle.formats._qemu_img import convert
from rumpbundle.formats._seal import expect, sealing
from rumpbundle.formats._written import compare
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.records import vhd

_LARGEST_DYNAMIC = 2040 * GIB
"""Microsoft's limit, which qemu-img holds to as well."""


def _write(job: Job, out: StagedFile) -> None:
    if job.subformat == "fixed":
        write_flat(job.layout, out.fd, job.report, job.label)
        footer = vhd.footer(job.layout.size, job.layout.identity.uuid("vhd-fixed").bytes, job.epoch)
        with disk_errors():
            write_all(out.fd, footer.pack(), job.layout.size)
        return
    convert(job, out, "vpc", "subformat=dynamic,force_size=on")
    with sealing():
        _seal(job, out.fd)


def _seal(job: Job, fd: int) -> None:
    """Replace the footer of the dynamic VHD in *fd*, which holds a date and a random id, in both its places."""
    from rumpbundle.images.containers.vhd import DynamicVhd

    medium = FdMedium(fd)
    written = vhd.Footer.unpack(medium.read(medium.size - SECTOR, SECTOR))
    expect(medium.read(0, SECTOR) == written.pack(), "the two footers of the VHD differ")
    footer = vhd.footer(
        job.layout.size,
        job.layout.identity.uuid("vhd-dynamic").bytes,
        job.epoch,
        data_offset=SECTOR,
        disk_type=vhd.DYNAMIC,
    )
    same = written.replace(
        timestamp=footer.timestamp,
        unique_id=footer.unique_id,
        creator_application=footer.creator_application,
        creator_version=footer.creator_version,
        creator_host_os=footer.creator_host_os,
    ).sealed()
    expect(same.pack() == footer.pack(), "the VHD's footer has unknown values")
    disk = DynamicVhd(medium, written)
    table = round_up(4 * disk.header.blocks, SECTOR)
    compare(job.layout, disk, unit=disk.header.block_size, least=disk.header.table_offset + table, behind=SECTOR)
    fill_late(job.layout, disk, fd)
    write_all(fd, footer.pack(), 0)
    write_all(fd, footer.pack(), medium.size - SECTOR)


FORMAT = Format(
    name="vhd",
    suffix=".vhd",
    summary="Microsoft's older disk: Hyper-V generation 1, VirtualBox, Xen, EC2 import",
    targets=("hyperv",),
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(name="dynamic", tools=("qemu-img",), largest=_LARGEST_DYNAMIC), Subformat(name="fixed")),
)
