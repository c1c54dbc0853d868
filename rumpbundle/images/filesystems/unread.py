"""What may fill a disk or a partition and is not read here: known by its mark, so that nobody takes it for empty.

The marks are those that libblkid (util-linux) and the projects' own headers name.
"""

from __future__ import annotations

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.filesystem import FileSystem
from rumpbundle.images.medium import Medium


@dataclass(frozen=True, slots=True)
class Mark:
    """*magic* stands at byte *offset* of what is called *kind*, for people *name*."""

    kind: str
    name: str
    offset: int
    magic: bytes


MARKS = (
    Mark("xfs", "an XFS file system", 0, b"XFSB"),
    Mark("btrfs", "a btrfs file system", 65600, b"_BHRfS_M"),
    Mark("ntfs", "an NTFS file system", 3, b"NTFS    "),
    Mark("exfat", "an exFAT file system", 3, b"EXFAT   "),
    Mark("refs", "a ReFS file system", 3, b"ReFS\0\0\0\0"),
    Mark("bitlocker", "a BitLocker volume", 3, b"-FVE-FS-"),
    Mark("luks", "a LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    *(Mark("lvm2", "an LVM2 physical volume", sector * 512 + 24, b"LVM2 001") for sector in range(4)),
    *(Mark("swap", "a Linux swap area", page - 10, b"SWAPSPACE2") for page in (4096, 8192, 16384, 32768, 65536)),
    Mark("squashfs", "a squashfs file system", 0, b"hsqs"),
    Mark("erofs", "an EROFS file system", 1024, b"\xe2\xe1\xf5\xe0"),
    Mark("f2fs", "an F2FS file system", 1024, b"\x10\x20\xf5\xf2"),
    Mark("zfs", "a member of a ZFS pool", 16404, b"\0\0\0\x07version"),
    Mark("mdraid", "a member of a Linux software RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    Mark("mdraid", "a member of a Linux software RAID", 0, b"\xfc\x4e\x2b\xa9"),
    Mark("bcachefs", "a bcachefs file system", 4120, bytes.fromhex("c68573f666ce90a9d96a60cf803df7ef")),
    Mark("bcache", "a bcache device", 4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
    Mark("udf", "a UDF file system", 32769, b"BEA01"),
    Mark("jfs", "a JFS file system", 32768, b"JFS1"),
    Mark("reiserfs", "a ReiserFS file system", 65588, b"ReIsEr"),
    Mark("reiser4", "a Reiser4 file system", 65536, b"ReIsEr4"),
    Mark("cramfs", "a cramfs file system", 0, b"\x45\x3d\xcd\x28"),
    Mark("romfs", "a romfs file system", 0, b"-rom1fs-"),
    Mark("ufs", "a UFS file system", 66908, b"\x19\x01\x54\x19"),
    Mark("ufs", "a UFS file system", 9564, b"\x54\x19\x01\x00"),
    Mark("hfsplus", "an HFS+ file system", 1024, b"H+\0\x04"),
    Mark("hfsplus", "an HFSX file system", 1024, b"HX\0\x05"),
    Mark("apfs", "an APFS container", 32, b"NXSB"),
    Mark("cdrom", "a CD dumped in sectors of 2352 bytes", 0, b"\0" + 10 * b"\xff" + b"\0"),
    Mark("bsd", "a BSD disklabel", 512, b"\x57\x45\x56\x82"),
    Mark("bsd", "a BSD disklabel", 64, b"\x57\x45\x56\x82"),
    Mark("apm", "an Apple partition map", 512, b"PM\0\0"),
)
"""A row a mark; the first that fits counts."""


_HEAD = 68 << 10
"""Bytes in which all of them stand."""


class Unread(FileSystem):
    """What lists no files, with the reason why."""

    def __init__(self, medium: Medium, kind: str, problem: str) -> None:
        super().__init__(medium, medium.size, "")
        self._kind = kind
        self.problem = problem

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self._kind

    def _root(self) -> int:
        raise ImageError(self.problem)


def unread(medium: Medium) -> Unread | None:
    """Return what *medium* holds if it bears one of ``MARKS``, else None."""
    head = medium.read(0, min(medium.size, _HEAD))
    mark = next((mark for mark in MARKS if head.startswith(mark.magic, mark.offset)), None)
    return None if mark is None else Unread(medium, mark.kind, f"is {mark.name}, which cannot be read")
