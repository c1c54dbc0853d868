"""qcow2: QEMU's own disk, for libvirt, Proxmox, OpenStack.

Written by qemu-img, in whose result nothing is random or dated (docs/facts/formats.md#qemu-img).
"""

from __future__ import annotations

from rumpbundle.disk.layout import MIB
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.formats._late import fill_late
from rumpbundle.formats._qemu_img import convert
from rumpbundle.formats._seal import expect, sealing
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.containers.qcow2 import Qcow2
from rumpbundle.images.medium import FdMedium

_LARGEST = 1 << 51
"""Bytes; more do not fit the first-level table of qemu-img's clusters of 64 KiB."""


def _write(job: Job, out: StagedFile) -> None:
    convert(job, out, "qcow2")
    with sealing():
        disk = Qcow2(FdMedium(out.fd))
        header = disk.header
        plain = (header.version, header.snapshots, header.incompatible, header.autoclear) == (3, 0, 0, 0)
        expect(disk.size == job.layout.size and plain, "the qcow2 header has unknown values")
        fill_late(job.layout, disk, out.fd)


FORMAT = Format(
    name="qcow2",
    suffix=".qcow2",
    summary="QEMU's own disk: QEMU, libvirt, Proxmox, OpenStack",
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(tools=("qemu-img",), largest=_LARGEST),),
)
