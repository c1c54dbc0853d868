"""What the boot sector of a FAT volume says: where its tables, its root directory and its clusters stand."""

from __future__ import annotations

import struct

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.signatures import BITLOCKER_TO_GO
from rumpbundle.errors import ImageError

_SECTORS = (512, 1024, 2048, 4096)
_CLUSTERS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Bytes a sector and sectors a cluster that there are."""


def says_fat(head: bytes) -> bool:
    """Return whether *head*, the first bytes of a volume, has the signature and the name of a FAT, not encrypted."""
    if head.startswith(BITLOCKER_TO_GO, 424):
        return False
    return head[510:512] == b"\x55\xaa" and (head[54:57] == b"FAT" or head[82:85] == b"FAT")


def is_like_fat(head: bytes) -> bool:
    """Return whether *head* is that of a FAT without the name (DOS 3) or the signature (Atari).

    The numbers have to be sensible, and the first table has to begin with the medium byte and ones, as all tables do.
    """
    if len(head) < 512:
        return False
    sector, per_cluster, reserved, fats, medium = struct.unpack_from("<HBHB4xB", head, 11)
    if sector not in _SECTORS or per_cluster not in _CLUSTERS or not reserved or fats not in (1, 2):
        return False
    return (medium == 0xF0 or medium >= 0xF8) and head.startswith(bytes([medium, 0xFF, 0xFF]), reserved * sector)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSector:
    """Offsets and sizes in bytes of the volume."""

    raw: bytes
    size: int
    sector: int
    cluster: int
    table: int
    """Where the first table stands."""
    table_size: int
    tables: int
    active: int
    """The table that counts, where they are no copies of each other."""
    mirrored: bool
    roots: int
    """Where a root directory stands that is no chain of clusters, and its size."""
    root_size: int
    root_cluster: int
    data: int
    """Where cluster 2 stands."""
    clusters: int
    """Clusters that the boot sector, the table and the medium all have."""
    claimed: int
    """Clusters that the boot sector claims."""
    bits: int

    @classmethod
    def read(cls, raw: bytes, medium: int) -> BootSector:
        """Make sense of the sector *raw* of a volume on a medium of *medium* bytes.

        It is FAT32 where the 16-bit size of a table is 0, as Linux, Windows, EDK2 and GRUB take it. Microsoft's rule,
        which mtools follow, counts the clusters; but small ESPs are often made as FAT32 with fewer than 65,525.

        Raises:
            ImageError: it makes none.
        """
        sector, per_cluster, reserved, fats, roots, sectors16 = struct.unpack_from("<HBHBHH", raw, 11)
        fat16, sectors32, fat32 = struct.unpack_from("<H8xII", raw, 22)
        sectors, table_size = sectors16 or sectors32, (fat16 or fat32) * sector
        sound = sector in _SECTORS and per_cluster in _CLUSTERS
        if not sound or not fats or not reserved or not table_size:
            raise ImageError("FAT: the boot sector is damaged")
        table = reserved * sector
        start = table + fats * table_size
        data = start + -(-roots * 32 // sector) * sector
        cluster = per_cluster * sector
        claimed = (sectors * sector - data) // cluster
        if claimed < 1 or data > medium:
            raise ImageError("FAT: the boot sector is damaged")
        bits = (12 if claimed < 4085 else 16) if fat16 else 32
        flags = int.from_bytes(raw[40:42], "little") if bits == 32 else 0
        mirrored, active = not flags & 0x80, flags & 0xF if flags & 0x80 else 0
        if active >= fats:
            raise ImageError(f"FAT: table {active} is said to be the one in use, but there are {fats}")
        return cls(
            raw=raw,
            size=sectors * sector,
            sector=sector,
            cluster=cluster,
            table=table,
            table_size=table_size,
            tables=fats,
            active=active,
            mirrored=mirrored,
            roots=start,
            root_size=roots * 32,
            root_cluster=int.from_bytes(raw[44:48], "little") if bits == 32 else 0,
            data=data,
            clusters=min(claimed, table_size * 8 // bits - 2, (medium - data) // cluster),
            claimed=claimed,
            bits=bits,
        )

    @property
    def label(self) -> str:
        at = 71 if self.bits == 32 else 43
        if self.raw[at - 5] != 0x29:  # what follows is boot code
            return ""
        return self.raw[at : at + 11].decode("latin-1").rstrip(" \0")
