"""iso: the same hybrid disk, sized so that CD firmware and VirtualBox take it as a DVD.

Boots from CD on BIOS and UEFI (El Torito), and from disk or USB when written there as it is. VirtualBox wants a
size that is a multiple of 2048 bytes (docs/facts/formats.md#virtualbox).
"""

from __future__ import annotations

from rumpbundle.disk.flat import write_flat
from rumpbundle.formats._contract import Format, Job, OneFile
from rumpbundle.host.staging import StagedFile


def _write(job: Job, out: StagedFile) -> None:
    write_flat(job.layout, out.fd, job.report, job.label)


FORMAT = Format(
    name="iso",
    suffix=".iso",
    summary="hybrid ISO 9660: CD or USB, BIOS and UEFI; VirtualBox, VMware, QEMU, real PCs",
    product=OneFile(_write),
    align=2048,
)
