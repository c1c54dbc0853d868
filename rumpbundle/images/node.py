"""How QEMU is to open a finished image: one driver over one part of one open file, and nothing else.

QEMU follows what an image says: a VMDK whose header has no capacity is a list of other files to it, a qcow2 may name
a backing file. That gives a guest any file of the host (CVE-2022-47951 and its kind). So an image comes to QEMU and
to qemu-img only after our own reader has opened it, and as a :class:`BlockNode`.
"""

from __future__ import annotations

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Disk, RawDisk
from rumpbundle.images.medium import place_of

CONVERT = "rumpbundle convert IMAGE -f qcow2 makes one file of it"


@dataclass(frozen=True, slots=True)
class BlockNode:
    """What QEMU opens; *offset* and *length* in bytes of the file, a length of None reaches to its end."""

    driver: str
    fd: int
    """The file, open for reading as long as the disk is."""
    offset: int = 0
    length: int | None = None


def node_of(disk: Disk) -> BlockNode | None:
    """Return how QEMU opens *disk*, or None if it has no way to: then the disk has to be unpacked.

    Raises:
        ImageError: other files belong to it, which QEMU would open by the names the image gives.
    """
    if disk.others:
        names = ", ".join(file.path for file in disk.others)
        raise ImageError(f"stands in other files, too ({names})", hint=CONVERT)
    place = place_of(disk.medium)
    if place is None or not disk.qemu:
        return None
    fd, offset = place
    length = disk.medium.size if offset else None
    if isinstance(disk, RawDisk) and disk.size:
        start = disk.locate(0)[0] or 0
        if start or disk.size != disk.medium.size:
            offset, length = offset + start, disk.size
    return BlockNode(disk.qemu, fd, offset, length)
