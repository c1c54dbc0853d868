"""What an image file is, by its first bytes: the container around a disk, the file system on one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from rumpbundle.disk.content import InputFile
from rumpbundle.errors import ImageError
from rumpbundle.images.containers.archive import Inflated, disk_member, is_tar
from rumpbundle.images.disk import Disk, RawDisk
from rumpbundle.images.filesystem import FileSystem
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
    file = InputFile(disk_file(path))
    fd = file.open()
    try:
        yield _disk_in(FdMedium(fd))
    except ImageError as error:
        if error.where is None:
            raise ImageError(error.problem, where=file.path, hint=error.hint) from None
        raise
    finally:
        os.close(fd)


def disk_file(path: str | os.PathLike[str]) -> str:
    """Return the file that holds the disk of the image at *path*: of a kit EC2's volume, or what Xen boots."""
    path = os.fspath(path)
    if not os.path.isdir(path):
        return path
    for name in ("volume.raw", "disk.raw"):
        file = os.path.join(path, name)
        if os.path.exists(file):
            return file
    is_kit = os.path.exists(os.path.join(path, "xl.cfg"))
    hint = "it is for Xen: rumpbundle run KIT --boot xl" if is_kit else "name a file in it"
    raise ImageError("is a directory without a disk of ours", where=path, hint=hint)


def _disk_in(medium: Medium) -> Disk:
    head = medium.read(0, min(medium.size, 512))
    tail = medium.read(max(medium.size // 512 * 512 - 512, 0), min(medium.size, 8))
    if head.startswith(b"KDMV"):
        from rumpbundle.images.containers.vmdk import open_vmdk

        return open_vmdk(medium)
    if head.startswith(b"QFI\xfb"):
        from rumpbundle.images.containers.qcow2 import Qcow2

        return Qcow2(medium)
    if head.startswith(b"vhdxfile"):
        from rumpbundle.images.containers.vhdx import Vhdx

        return Vhdx(medium)
    if head[64:68] == b"\x7f\x10\xda\xbe":
        from rumpbundle.images.containers.vdi import Vdi

        return Vdi(medium)
    if b"conectix" in (head[:8], tail):
        from rumpbundle.images.containers.vhd import open_vhd

        return open_vhd(medium)
    if is_tar(head):
        from rumpbundle.images.containers.vmdk import open_vmdk

        return open_vmdk(disk_member(medium, ".vmdk"))  # not whatever it may be: archives nest endlessly
    if head.startswith(b"\x1f\x8b"):
        return RawDisk(disk_member(Inflated(medium), "disk.raw"))
    return RawDisk(medium)


def file_system(medium: Medium) -> FileSystem | None:
    """Return the file system on *medium*, also one that is only known by name, or None if there is none.

    Raises:
        ImageError: there is one, and its first structures are damaged.
    """
    head = medium.read(0, min(medium.size, 36 << 10))
    if head[32769:32774] == b"CD001":
        from rumpbundle.images.filesystems.iso9660 import Iso9660

        return Iso9660(medium)
    if head[1080:1082] == b"\x53\xef":
        from rumpbundle.images.filesystems.ext2 import Ext2

        return Ext2(medium)
    if head[510:512] == b"\x55\xaa" and (head[54:57] == b"FAT" or head[82:85] == b"FAT"):
        from rumpbundle.images.filesystems.fat import Fat

        return Fat(medium)
    from rumpbundle.images.filesystems.unread import unread

    return unread(medium)


__all__ = ["Disk", "file_system", "open_disk"]
