"""Open finished images of any format: the disk inside a container, and the files on that disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rumpbundle.content import InputFile
from rumpbundle.errors import ImageError
from rumpbundle.images.archive import Inflated, disk_member, is_tar
from rumpbundle.images.disk import Disk, RawDisk
from rumpbundle.images.medium import FdMedium, Medium


@contextlib.contextmanager
def open_disk(path: str | os.PathLike[str]) -> Iterator[Disk]:
    """Give the disk inside the finished image at *path*, whatever its format.

    The result has ``size`` (bytes), ``read(offset, length)``, ``container`` (the format's name) and ``facts`` (what
    the container says about itself). What is no known container is a raw disk.

    Raises:
        InputError: it cannot be read.
        ImageError: it is damaged; also while the disk is read.
    """
    if os.path.isdir(path):
        path = _disk_of_kit(path)
    file = InputFile(path)
    fd = file.open()
    try:
        yield _disk_in(FdMedium(fd))
    except ImageError as error:
        if error.where is None:
            raise ImageError(error.problem, where=file.path, hint=error.hint) from None
        raise
    finally:
        os.close(fd)


def _disk_of_kit(directory: str | os.PathLike[str]) -> str:
    """Return the disk in a directory we wrote: EC2's volume, or what Xen boots."""
    for name in ("volume.raw", "disk.raw"):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            return path
    raise ImageError("is a directory without a disk of ours", where=directory, hint="name a file in it")


def _disk_in(medium: Medium) -> Disk:
    head = medium.read(0, min(medium.size, 512))
    tail = medium.read(max(medium.size // 512 * 512 - 512, 0), min(medium.size, 8))
    if head.startswith(b"KDMV"):
        from rumpbundle.images.vmdk import open_vmdk

        return open_vmdk(medium)
    if head.startswith(b"QFI\xfb"):
        from rumpbundle.images.qcow2 import Qcow2

        return Qcow2(medium)
    if head.startswith(b"vhdxfile"):
        from rumpbundle.images.vhdx import Vhdx

        return Vhdx(medium)
    if head[64:68] == b"\x7f\x10\xda\xbe":
        from rumpbundle.images.vdi import Vdi

        return Vdi(medium)
    if b"conectix" in (head[:8], tail):
        from rumpbundle.images.vhd import open_vhd

        return open_vhd(medium)
    if is_tar(head):
        from rumpbundle.images.vmdk import open_vmdk

        return open_vmdk(disk_member(medium, ".vmdk"))  # not whatever it may be: archives nest endlessly
    if head.startswith(b"\x1f\x8b"):
        return RawDisk(disk_member(Inflated(medium), "disk.raw"))
    return RawDisk(medium)


__all__ = ["Disk", "open_disk"]
