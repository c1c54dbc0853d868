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
    Mark("lvm1", "an LVM1 physical volume", 0, b"HM\1\0"),
    *(
        Mark("swap", "a Linux swap area", page - 10, magic)
        for page in (4096, 8192, 16384, 32768, 65536)
        for magic in (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0", b"LINHIB0001")
    ),
    *(Mark("squashfs", "a squashfs file system", 0, magic) for magic in (b"hsqs", b"sqsh", b"shsq", b"qshs")),
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
    Mark("cramfs", "a cramfs file system", 0, b"\x28\xcd\x3d\x45"),
    Mark("romfs", "a romfs file system", 0, b"-rom1fs-"),
    *(
        Mark("ufs", "a UFS file system", place + 1372, magic)
        for place in (8192, 65536)
        for magic in (b"\x19\x01\x54\x19", b"\x54\x19\x01\x00", b"\x19\x54\x01\x19", b"\x00\x01\x19\x54")
    ),
    # Of those whose magic is two bytes, the number that follows counts, too: Minix' state, or its size of a block.
    *(
        Mark("minix", "a Minix file system", 1040, magic + bytes([state, 0]))
        for magic in (b"\x7f\x13", b"\x8f\x13", b"\x68\x24", b"\x78\x24")
        for state in range(4)
    ),
    *(Mark("minix", "a Minix file system", 1048, b"\x5a\x4d\0\0\0" + bytes([size])) for size in (4, 8, 16)),
    Mark("nilfs2", "a NILFS2 file system", 1024, b"\2\0\0\0\0\0\x34\x34"),
    *(Mark("ocfs2", "an OCFS2 file system", block * 2, b"OCFSV2") for block in (512, 1024, 2048, 4096)),
    Mark("gfs2", "a GFS2 file system", 65536, b"\x01\x16\x19\x70"),
    Mark("bfs", "a UnixWare BFS file system", 0, b"\xce\xfa\xad\x1b"),
    *(Mark("befs", "a BeOS or Haiku file system", 544, magic) for magic in (b"1SFB", b"BFS1")),
    Mark("hpfs", "an HPFS file system", 8192, b"\x49\xe8\x95\xf9"),
    *(Mark("jffs2", "a JFFS2 file system", 0, b"\x85\x19" + node) for node in (b"\3\x20", b"\1\xe0", b"\2\xe0")),
    Mark("ubi", "a UBI flash image", 0, b"UBI#\1"),
    Mark("ubifs", "a UBIFS file system", 0, b"\x31\x18\x10\x06"),
    Mark("stratis", "a member of a Stratis pool", 512, b"!Stra0tis\x86\xff\x02^Arh"),
    Mark("stratis", "a member of a Stratis pool", 4608, b"!Stra0tis\x86\xff\x02^Arh"),
    Mark("cdrom", "a CD of the High Sierra format", 32777, b"CDROM"),
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
