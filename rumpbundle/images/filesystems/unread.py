"""What may fill a disk or a partition and is not read here: known by its mark, so that nobody takes it for empty.

The marks are those that libblkid (util-linux) and the projects' own headers name.
"""

from __future__ import annotations

import struct
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.signatures import BITLOCKER_TO_GO
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
    too: tuple[int, bytes] = (0, b"")
    """Another place and what stands there, where the magic alone is too short to be one."""


_ORDERS: tuple[OneOf["little", "big"], ...] = ("little", "big")
_UFS = (8192, 65536, 0, 262144)
"""Where a UFS of either version may have its superblock."""
_SYNC = b"\0" + 10 * b"\xff" + b"\0"
MARKS = (
    Mark("xfs", "an XFS file system", 0, b"XFSB"),
    Mark("btrfs", "a btrfs file system", 65600, b"_BHRfS_M"),
    Mark("ntfs", "an NTFS file system", 3, b"NTFS    "),
    Mark("exfat", "an exFAT file system", 3, b"EXFAT   "),
    Mark("refs", "a ReFS file system", 3, b"ReFS\0\0\0\0"),
    Mark("bitlocker", "a BitLocker volume", 3, b"-FVE-FS-"),
    Mark("bitlocker", "a BitLocker volume", 424, BITLOCKER_TO_GO),
    Mark("luks", "a LUKS encrypted volume", 0, b"LUKS\xba\xbe"),
    # LUKS2's second header, where the first is gone (cryptsetup, lib/luks2/luks2_disk_metadata.c).
    *(Mark("luks", "a LUKS encrypted volume", 0x4000 << power, b"SKUL\xba\xbe") for power in range(9)),
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
    *(Mark("reiserfs", "a ReiserFS file system", offset, b"ReIsEr") for offset in (65588, 8244, 8212)),
    Mark("reiser4", "a Reiser4 file system", 65536, b"ReIsEr4"),
    Mark("cramfs", "a cramfs file system", 0, b"\x45\x3d\xcd\x28"),
    Mark("cramfs", "a cramfs file system", 0, b"\x28\xcd\x3d\x45"),
    Mark("romfs", "a romfs file system", 0, b"-rom1fs-"),
    *(
        Mark("ufs", "a UFS file system", place + 1372, number.to_bytes(4, order))
        for place in _UFS
        for number in (0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994)
        for order in _ORDERS
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
    *(Mark("befs", "a BeOS or Haiku file system", at, magic) for at in (544, 32) for magic in (b"1SFB", b"BFS1")),
    Mark("hpfs", "an HPFS file system", 8192, b"\x49\xe8\x95\xf9"),
    *(Mark("jffs2", "a JFFS2 file system", 0, b"\x85\x19" + node) for node in (b"\3\x20", b"\1\xe0", b"\2\xe0")),
    Mark("ubi", "a UBI flash image", 0, b"UBI#\1"),
    Mark("ubifs", "a UBIFS file system", 0, b"\x31\x18\x10\x06"),
    Mark("stratis", "a member of a Stratis pool", 512, b"!Stra0tis\x86\xff\x02^Arh"),
    Mark("stratis", "a member of a Stratis pool", 4608, b"!Stra0tis\x86\xff\x02^Arh"),
    Mark("cdrom", "a CD of the High Sierra format", 32777, b"CDROM"),
    Mark("hfsplus", "an HFS+ file system", 1024, b"H+\0\x04"),
    Mark("hfsplus", "an HFSX file system", 1024, b"HX\0\x05"),
    Mark("hfsplus", "an HFS+ file system in an HFS wrapper", 1024, b"BD", (1148, b"H+")),
    # Its bitmap begins at the fourth sector (Inside Macintosh: Files, 2-60).
    Mark("hfs", "a classic HFS file system", 1024, b"BD", (1038, b"\0\3")),
    Mark("mfs", "an MFS file system", 1024, b"\xd2\xd7", (1038, b"\0\4")),
    Mark("apfs", "an APFS container", 32, b"NXSB"),
    Mark("cdrom", "a CD dumped in sectors of 2448 bytes", 0, _SYNC, (2448, _SYNC)),
    Mark("cdrom", "a CD dumped in sectors of 2352 bytes", 0, _SYNC),
    Mark("cdrom", "a CD dumped in sectors of 2336 bytes", 16 * 2336 + 9, b"CD001"),
    Mark("super", "an Android super partition", 4096, b"gDla\x34\0\0\0"),
    Mark("bsd", "a BSD disklabel", 512, b"\x57\x45\x56\x82"),
    Mark("bsd", "a BSD disklabel", 64, b"\x57\x45\x56\x82"),
    Mark("apm", "an Apple partition map", 512, b"PM\0\0"),
    Mark("vmfs", "a VMware VMFS volume", 1 << 20, b"\x0d\xd0\x01\xc0"),
    Mark("vmfs", "a VMware VMFS file system", 2 << 20, b"\x5e\xf1\xab\x2f"),
    Mark("vxfs", "a VxFS file system", 1024, b"\xf5\xfc\x01\xa5"),
    Mark("vxfs", "a VxFS file system", 8192, b"\xa5\x01\xfc\xf5"),
    Mark("hammer", "a HAMMER file system", 0, bytes.fromhex("313052c54d4d41c8")),
    Mark("hammer2", "a HAMMER2 file system", 0, bytes.fromhex("112017 05324d4148")),
    *(Mark("lfs", "a NetBSD LFS file system", 8192, (0x70162).to_bytes(4, order)) for order in _ORDERS),
    Mark("qnx4", "a QNX4 file system", 516, b"QNX4FS\0"),
    Mark("qnx6", "a QNX6 file system", 8192, b"\x22\x11\x19\x68"),
    *(Mark("affs", "an Amiga file system", 0, b"DOS" + bytes([kind])) for kind in range(8)),
    Mark("efs", "an SGI EFS file system", 540, b"\0\x07\x29\x59"),
    Mark("netware", "a NetWare file system", 4096, b"SPB5"),
    Mark("ocfs", "an OCFS file system", 8, b"OracleCFS"),
    Mark("oracleasm", "an Oracle ASM disk", 32, b"ORCLDISK"),
    Mark("zonefs", "a zonefs file system", 0, b"SFOZ"),
    Mark("littlefs", "a littlefs file system", 8, b"littlefs"),
    Mark("bluestore", "a Ceph BlueStore device", 0, b"bluestore block device"),
    Mark("vdo", "a VDO device", 0, b"dmvdo001"),
    Mark("integrity", "a dm-integrity device", 0, b"integrit\0"),
    Mark("verity", "a dm-verity hash tree", 0, b"verity\0\0"),
    Mark("softraid", "a member of an OpenBSD softraid", 8192, b"marcCRAM"),
    Mark("spaces", "a member of a Windows storage pool", 4096, b"SPACEDB "),
    Mark("aixlvm", "an AIX physical volume", 3584, b"_LVM_LVM"),
    Mark("xfslog", "an external XFS log", 0, b"\xfe\xed\xba\xbe"),
    Mark("sun", "a disk with a Sun label", 508, b"\xda\xbe", (188, b"\x60\x0d\xde\xee")),
    Mark("sgi", "a disk with an SGI label", 0, b"\x0b\xe5\xa9\x41"),
    *(Mark("rdb", "a disk with an Amiga label", sector * 512, b"RDSK\0\0") for sector in range(16)),
    Mark("pc98", "a disk with a PC-98 label", 4, b"IPL1", (510, b"\x55\xaa")),
    Mark("aix", "a disk with an AIX label", 0, b"\xc9\xc2\xd4\xc1"),
)
"""A row a mark; the first that fits counts."""


@dataclass(frozen=True, slots=True)
class SizeField:
    """Where what bears a mark says how many bytes it takes: a count at *count*, in units that stand at *unit*.

    Both are place and width of a number; a *unit* without a place is its width. *power*: the unit's power of two.
    """

    count: tuple[int, int]
    unit: tuple[int | None, int] = (None, 1)
    order: OneOf["little", "big"] = "little"
    power: bool = False
    only: tuple[int, bytes] = (0, b"")
    """A place and what stands there in those that say it so."""


_CLAIMS: tuple[tuple[str, SizeField], ...] = (
    ("xfs", SizeField((8, 8), (4, 4), "big")),
    ("btrfs", SizeField((65536 + 0xD1, 8))),  # of this device
    ("ntfs", SizeField((40, 8), (11, 2))),  # without the copy of the first sector
    ("exfat", SizeField((72, 8), (108, 1), power=True)),
    ("f2fs", SizeField((1060, 8), (1040, 4), power=True)),
    ("squashfs", SizeField((40, 8), only=(28, b"\4\0"))),
    ("erofs", SizeField((1060, 4), (1036, 1), power=True)),
    ("jfs", SizeField((32776, 8), (32792, 4))),
    ("hfsplus", SizeField((1068, 4), (1064, 4), "big", only=(1024, b"H"))),
    ("apfs", SizeField((40, 8), (36, 4))),
    ("nilfs2", SizeField((1056, 8))),
    ("reiserfs", SizeField((65536, 4), (65580, 2), only=(65588, b"ReIsEr"))),
    ("romfs", SizeField((8, 4), order="big")),
    *(("lvm2", SizeField((at + 64, 8), only=(at, b"LABELONE"))) for at in range(0, 2048, 512)),
    # Without its last page, and as if pages were small.
    *(("swap", SizeField((1028, 4), (None, 4096), order, only=(1024, (1).to_bytes(4, order)))) for order in _ORDERS),
    *(
        (
            "ufs",
            SizeField((place + size, width), (place + 52, 4), order, only=(place + 1372, magic.to_bytes(4, order))),
        )
        for place in _UFS
        for magic, size, width in ((0x011954, 36, 4), (0x19540119, 1080, 8))
        for order in _ORDERS
    ),
)
CLAIMS = {kind: tuple(claim for name, claim in _CLAIMS if name == kind) for kind, _ in _CLAIMS}
"""By kind, as the projects' own headers have it; others do not say, or in ways of their own."""

_HEAD = 68 << 10
"""Bytes in which all but a few of them stand."""


class Unread(FileSystem):
    """What lists no files, with the reason why."""

    def __init__(
        self, medium: Medium, kind: str, problem: str, *, size: int | None = None, member: bool = False
    ) -> None:
        """*size*: the bytes it says it takes; *member*: of several disks over which data is spread."""
        super().__init__(medium, max(size or 0, medium.size), "")  # a mark may be all that is left of it
        self._kind = kind
        self.problem = problem
        self.member = member

    def told(self, where: str = "") -> str:
        """Return all that is wrong with it, after *where* it is."""
        after = ": " if self._kind == "damaged" else " "
        return (where and f"{where}{after}") + (f"{self.problem}; {self.cut}" if self.cut else self.problem)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return self._kind

    def _root(self) -> int:
        raise ImageError(self.problem)


def unread(medium: Medium) -> Unread | None:
    """Return what *medium* holds if it bears one of ``MARKS``, else None."""
    head = medium.read(0, min(medium.size, _HEAD))

    def stands(offset: int, magic: bytes) -> bool:
        if offset + len(magic) <= len(head):
            return head.startswith(magic, offset)
        return offset + len(magic) <= medium.size and medium.read(offset, len(magic)) == magic

    mark = next((mark for mark in MARKS if stands(mark.offset, mark.magic) and stands(*mark.too)), None)
    if mark is None:
        return None
    problem = f"is {mark.name}, which cannot be read"
    claims = (_claimed(medium, claim) for claim in CLAIMS.get(mark.kind, ()))
    size = _pooled(medium) if mark.kind == "zfs" else next(filter(None, claims), None)
    return Unread(medium, mark.kind, problem, size=size)


_ZFS_LABEL = slice(16 << 10, 128 << 10)
"""Where the first of four labels has its list of names and values (sys/vdev_impl.h)."""
_ZFS_ASIZE = struct.pack(">I8sII", 5, b"asize", 8, 1)
_ZFS_WHOLE = tuple(
    struct.pack(">I4sIII", 4, b"type", 9, 1, len(kind)) + kind for kind in (b"disk", b"file", b"mirror")
)
"""A name, its type, how many values follow: of what has all of the size on each of its disks."""
_ZFS_AROUND = (4 << 20) + (512 << 10)
"""Bytes in front of the data, with two labels, and two labels behind it."""


def _pooled(medium: Medium) -> int | None:
    """Return how many bytes the member of a ZFS pool that begins with *medium* takes, unless others share them."""
    start = _ZFS_LABEL.start
    label = medium.read(start, min(_ZFS_LABEL.stop, medium.size) - start)
    at = label.find(_ZFS_ASIZE) + len(_ZFS_ASIZE)
    if at < len(_ZFS_ASIZE) or not any(kind in label for kind in _ZFS_WHOLE) or b"\0\0\0\7nparity\0" in label:
        return None
    return int.from_bytes(label[at : at + 8], "big") + _ZFS_AROUND


def _claimed(medium: Medium, claim: SizeField) -> int | None:
    """Return how many bytes what begins with *medium* takes by its own *claim*, if that is how it says it."""

    def there(place: int, width: int) -> bytes:
        return medium.read(place, width) if place + width <= medium.size else b""

    def number(place: int, width: int) -> int:
        return int.from_bytes(there(place, width), claim.order)

    place, magic = claim.only
    if there(place, len(magic)) != magic:
        return None
    place_of_unit, width = claim.unit
    unit = width if place_of_unit is None else number(place_of_unit, width)
    return number(*claim.count) * (1 << min(unit, 32) if claim.power else unit)
