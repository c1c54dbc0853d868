"""What the boot sector of a FAT volume says: where its tables, its root directory and its clusters stand."""

from __future__ import annotations

import struct

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError


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

        Raises:
            ImageError: it makes none.
        """
        sector, per_cluster, reserved, fats, roots, sectors16 = struct.unpack_from("<HBHBHH", raw, 11)
        fat16, sectors32, fat32 = struct.unpack_from("<H8xII", raw, 22)
        sectors, table_size = sectors16 or sectors32, (fat16 or fat32) * sector
        sound = sector in (512, 1024, 2048, 4096) and per_cluster in (1, 2, 4, 8, 16, 32, 64, 128)
        if not sound or not fats or not reserved or not table_size:
            raise ImageError("FAT: the boot sector is damaged")
        table = reserved * sector
        start = table + fats * table_size
        data = start + -(-roots * 32 // sector) * sector
        cluster = per_cluster * sector
        claimed = (sectors * sector - data) // cluster
        if claimed < 1 or data > medium:
            raise ImageError("FAT: the boot sector is damaged")
        bits = 12 if claimed < 4085 else 16 if claimed < 65525 else 32
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
        return self.raw[at : at + 11].decode("latin-1").rstrip(" \0")
