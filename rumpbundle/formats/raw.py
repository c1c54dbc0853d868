"""raw: the disk itself, byte for byte, sparse.

Booted by every hypervisor that takes a plain disk (QEMU, Xen, bhyve, Firecracker's peers), by ``dd`` to a USB
stick, and by Amazon EC2 through the EBS direct APIs.
"""

from __future__ import annotations

from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.layout import MIB
from rumpbundle.formats._contract import Format, Job, OneFile
from rumpbundle.host.staging import StagedFile


def _write(job: Job, out: StagedFile) -> None:
    write_flat(job.layout, out.fd, job.report, job.label)


FORMAT = Format(
    name="raw",
    suffix=".raw",
    summary="raw disk, sparse: QEMU, Xen, bhyve, dd to a USB stick",
    product=OneFile(_write),
    align=MIB,
)
