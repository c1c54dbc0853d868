"""qcow2: QEMU's own disk, for libvirt, Proxmox, OpenStack.

Written by qemu-img, in whose result nothing is random or dated (docs/facts/formats.md#qemu-img).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from rumpbundle.disk.layout import MIB
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.formats._late import fill_late
from rumpbundle.formats._qemu_img import convert
from rumpbundle.formats._seal import expect, sealing
from rumpbundle.formats._written import compare
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.records import qcow2

if TYPE_CHECKING:
    from rumpbundle.images.containers.qcow2 import Qcow2

_LARGEST = 1 << 51
"""Bytes; more do not fit the first-level table of qemu-img's clusters of 64 KiB."""


def _write(job: Job, out: StagedFile) -> None:
    from rumpbundle.images.containers.qcow2 import Qcow2

    convert(job, out, "qcow2")
    with sealing():
        disk = Qcow2(FdMedium(out.fd))
        header = disk.header
        plain = (header.version, header.snapshots, header.incompatible, header.autoclear) == (3, 0, 0, 0)
        expect(disk.size == job.layout.size and plain, "the qcow2 header has unknown values")
        cluster = 1 << header.cluster_bits
        compare(job.layout, disk, unit=cluster, least=_end(disk, cluster))
        fill_late(job.layout, disk, out.fd)


def _end(disk: Qcow2, cluster: int) -> int:
    """Return where the last of *disk*'s tables ends in its file."""
    header = disk.header
    starts = (header.l1_offset, header.refcount_table_offset)
    ends = (starts[0] + 8 * header.l1_size, starts[1] + header.refcount_table_clusters * cluster)
    found = [*ends]
    for start, end in zip(starts, ends, strict=True):
        entries = struct.iter_unpack(">Q", disk.medium.read(start, end - start))
        found += [(entry & qcow2.OFFSET_MASK) + cluster for (entry,) in entries]
    return max(found)


FORMAT = Format(
    name="qcow2",
    suffix=".qcow2",
    summary="QEMU's own disk: QEMU, libvirt, Proxmox, OpenStack",
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(tools=("qemu-img",), largest=_LARGEST),),
)
