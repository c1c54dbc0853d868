"""What an image file is: the container around a disk, the file system on one."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal as OneOf

from rumpbundle.arguments import file_name
from rumpbundle.dataclass import dataclass
from rumpbundle.disk import signatures
from rumpbundle.disk.inputfile import InputFile, close
from rumpbundle.disk.layout import SECTOR
from rumpbundle.disk.signatures import Kind
from rumpbundle.errors import ImageError
from rumpbundle.events import Note, Report, silent
from rumpbundle.images.disk import Disk, IsoDisk, RawDisk
from rumpbundle.images.filesystem import FileSystem
from rumpbundle.images.medium import FdMedium, Medium
from rumpbundle.images.records import kitfiles


class NoImageError(ImageError):
    """A file that is no disk image at all, or of a kind that is not read."""


_READERS = {
    "a qcow2 image": ("qcow2", "Qcow2"),
    "a VMDK image": ("vmdk", "open_single"),
    "a VDI image": ("vdi", "Vdi"),
    "a VHDX image": ("vhdx", "Vhdx"),
    "a VHD image": ("vhd", "open_vhd"),
}
"""Module and function of each container's reader; what else is a disk is one as it stands."""
_DESCRIPTOR = "a VMDK descriptor"
_CD = (0x8001, b"CD001")
"""Where an ISO 9660 says that it is one, and how."""


@contextlib.contextmanager
def open_disk(
    path: str | os.PathLike[str],
    report: Report = silent,
    *,
    watch: OneOf["all", "reads", "no"] = "all",
    whole: bool = False,
) -> Iterator[Disk]:
    """Give the disk inside the finished image at *path*, whatever its format.

    The result has ``size`` (bytes), ``read(offset, length)``, ``runs()`` (where its bytes are), ``container`` (the
    format's name), ``facts`` (what the container says about itself) and ``around`` (what the container stands in).
    What is compressed is unpacked into an unnamed temporary file, as far as it is read; *report* hears of it, and of
    what else in an archive may be meant. Who will read *whole* disks lets a compressed archive be unpacked for that.

    *watch*: nobody may write to the file while it is read (``reads``), or until the end of the block, nor put another
    in its place (``all``: what was read is still true then); ``no`` is for who writes to it.

    Raises:
        InputError: it cannot be read, or changed though we *watch*.
        NoImageError: it is something else, or a kind that is not read.
        ImageError: it is damaged; also while the disk is read.
    """
    file = InputFile(disk_file(path))
    with contextlib.ExitStack() as stack:
        fd = file.open()
        stack.callback(close, fd)
        try:
            medium = FdMedium(fd, file, settled=watch != "no")
            disk = _Opening(file.path, stack, report, whole).disk(medium)
            disk.outermost, disk.path = medium, file.path
            yield disk
            for each in (file, *disk.others) if watch == "all" else ():
                close(each.open())
        except ImageError as error:
            if watch != "no":
                file.check(fd)  # what changes meanwhile is not damaged
            if error.where is None:
                raise type(error)(error.problem, where=file.path, hint=error.hint) from None
            raise


def disk_file(path: str | os.PathLike[str]) -> str:
    """Return the file that holds the disk of the image at *path*: of a kit EC2's volume, or what Xen boots."""
    path = file_name("image", path)
    if not os.path.isdir(path):
        return path
    for name in (kitfiles.EC2_DISK, kitfiles.XEN_DISK):
        file = os.path.join(path, name)
        if os.path.islink(file):
            raise ImageError("is a symbolic link; a kit has none", where=file, hint="name the file it leads to")
        if os.path.exists(file):
            return file
    hint = "it is for Xen: rumpbundle run KIT --boot xl" if kitfiles.is_xen(path) else "name a file in it"
    raise ImageError("is a directory without a disk of ours", where=path, hint=hint)


@dataclass(frozen=True, slots=True)
class _Opening:
    """The way from the file at *path* in to the disk: through a compression, then through an archive, no deeper."""

    path: str
    stack: contextlib.ExitStack
    report: Report
    whole: bool
    around: tuple[str, ...] = ()
    layers: tuple[Medium, ...] = ()

    def disk(self, medium: Medium, *, tail: bool = True) -> Disk:
        """Return the disk in *medium*; only with *tail* its last bytes are looked at, too."""
        kind = _kind(medium, tail)
        if kind is None or (kind.role == "disk" and kind.name not in (*_READERS, _DESCRIPTOR)):
            disk = self._raw(medium, kind)
        elif kind.role == "disk":
            disk = self._container(medium, kind)
        elif kind.role == "compressed" and not self.around:
            return self._compressed(medium, kind.name.removesuffix("-compressed"))
        elif kind.role == "archive" and "tar" not in self.around:
            return self._archive(medium)
        else:
            raise self._refused(kind)
        disk.around, disk.layers = self.around, self.layers
        return disk

    def _container(self, medium: Medium, kind: Kind) -> Disk:
        if kind.name == _DESCRIPTOR:
            from rumpbundle.images.containers.vmdk_split import ImageDirectory, open_split

            beside = None
            if not self.around:
                beside = ImageDirectory(os.path.dirname(self.path))
                self.stack.callback(beside.close)
            return open_split(medium, beside)
        module, function = _READERS[kind.name]
        disk = getattr(importlib.import_module(f"rumpbundle.images.containers.{module}"), function)(medium)
        assert isinstance(disk, Disk)
        return disk

    def _compressed(self, medium: Medium, compression: str) -> Disk:
        from rumpbundle.images.compression import Unpacked
        from rumpbundle.images.containers.tar import BLOCK, is_tar

        file = self.stack.enter_context(tempfile.TemporaryFile(prefix="rumpbundle-"))  # noqa: SIM115 (it does)
        inside = Unpacked(medium, compression, file.fileno(), self.report, os.path.basename(self.path))
        inside.reach(BLOCK)
        within = replace(self, around=(compression,), layers=(inside,))
        if is_tar(inside.read(0, min(inside.size, BLOCK))):
            return within._archive(inside)
        inside.finish()  # an archive tells the sizes of its members, anything else has to be known whole
        return within.disk(inside)

    def _archive(self, medium: Medium) -> Disk:
        from rumpbundle.images.compression import Unpacked
        from rumpbundle.images.containers.archive import ambiguity, choose

        member = choose(medium)
        within = replace(self, around=(*self.around, "tar"), layers=(*self.layers, medium))
        # In a compressed archive what follows the disk is far away; and at its end stands its checksum.
        looked = self.whole or not self.around
        if isinstance(medium, Unpacked) and looked:
            medium.finish()
        several = ambiguity(medium, member) if looked else ""
        if several:
            self.report(Note(f"{os.path.basename(self.path)}: {several}"))
        # The end of Google's disk is far away in a compressed archive, and there can be no footer.
        disk = within.disk(member.within(medium), tail=member.name != kitfiles.GCE_DISK)
        disk.member, disk.ambiguity = member.name, several
        return disk

    def _raw(self, medium: Medium, kind: Kind | None) -> Disk:
        if not medium.size:
            raise NoImageError(f"is empty{self._after}")
        if kind is None:
            if signatures.is_text(medium.read(0, min(medium.size, 4096))):
                raise NoImageError(f"is a text file{self._after}, no disk image")
            if medium.size < SECTOR:
                raise NoImageError(
                    f"is no disk image{self._after}: shorter than a sector, {medium.size} of {SECTOR} bytes"
                )
        return IsoDisk(medium) if self._is_iso(medium) else RawDisk(medium)

    def _is_iso(self, medium: Medium) -> bool:
        """Whether people call it an ISO: it is one and no disk besides, or it is both, and so is its name."""
        head = medium.read(0, min(medium.size, signatures.HEAD_BYTES))
        if head[_CD[0] :] != _CD[1]:
            return False
        named = os.path.basename(self.path).lower()
        if self.around:
            named = os.path.splitext(named)[0]
        return named.endswith(".iso") or not signatures.has_partitions(head)

    def _refused(self, kind: Kind) -> NoImageError:
        what = "which is not read" if kind.role != "file" else "no disk image"
        return NoImageError(f"is {kind.name}{self._after}, {what}", hint=kind.hint or None)

    @property
    def _after(self) -> str:
        """What was done to come here, for messages."""
        if not self.around:
            return ""
        from rumpbundle.images.compression import UNPACKERS

        words = {"tar": "in the archive"} | {name: f"after {program}" for name, program in UNPACKERS.items()}
        return f" ({', '.join(words[each] for each in self.around)})"


def _kind(medium: Medium, tail: bool) -> Kind | None:
    """Return what *medium* is, as far as its first bytes tell, and with *tail* its last."""
    from rumpbundle.images.containers.tar import BLOCK, is_tar

    kind = signatures.find(medium.size, medium.read, tail=tail)
    if kind is not None and not kind.offset:
        return kind
    head = medium.read(0, min(medium.size, BLOCK))
    partitioned = signatures.has_partitions(head)
    # What stands deeper in an archive may be a mark of the disk in it. The seventh edition's has no magic of its own.
    if is_tar(head) and not partitioned:
        return next(each for each in signatures.KINDS if each.role == "archive")
    if kind is not None or partitioned:
        return kind
    kernel = signatures.find(medium.size, medium.read, signatures.KERNELS, tail=False)
    return (
        kernel or signatures.boot_code(medium.size, medium.read) or signatures.zlib_stream(medium.size, medium.read)
    )


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
    from rumpbundle.images.filesystems.fat.boot import is_like_fat, says_fat
    from rumpbundle.images.filesystems.unread import unread

    # What was formatted anew often keeps a mark of what it was, but not of FAT: that stands in the first sector.
    named = None if says_fat(head) else unread(medium)
    if named is None and (says_fat(head) or is_like_fat(head)):
        from rumpbundle.images.filesystems.fat import Fat

        return Fat(medium)
    return named


__all__ = ["Disk", "NoImageError", "file_system", "open_disk"]
