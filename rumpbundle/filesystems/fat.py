"""The EFI system partition: a FAT file system whose every position is known before it is written.

Source: Microsoft's "FAT: General Overview of On-Disk Format" 1.03; docs/facts/formats.md#fat (OVMF boots FAT12
and FAT16). Files stand in one piece on whole 2048-byte blocks, so that a big EFI application is copied like any
other payload. Long names are written as VFAT entries.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import field
from typing import Annotated

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.binary import Record
from rumpbundle.disk.bounds import check_tree
from rumpbundle.disk.content import Late, Literal
from rumpbundle.disk.layout import SECTOR, Extent, content_extents, round_up
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.errors import InputError

_ROOT_ENTRIES = 128
_ENTRY = 32
_MAX_ENTRIES = 0x10000
"""Of a directory: what its readers allow."""
_ALIGN = 2048
_FAT12_CLUSTERS = 4084
_FAT16_CLUSTERS = 65524


class BootSector(Record, order="<", size=62):
    """BIOS parameter block of FAT12 and FAT16; what follows it in the sector is boot code we have none of."""

    jump: Annotated[bytes, "3s"] = b"\xeb\x3c\x90"
    oem: Annotated[bytes, "8s"] = b"MSWIN4.1"
    sector_bytes: Annotated[int, "H"] = SECTOR
    cluster_sectors: Annotated[int, "B"] = 0
    reserved_sectors: Annotated[int, "H"] = 0
    fats: Annotated[int, "B"] = 2
    root_entries: Annotated[int, "H"] = _ROOT_ENTRIES
    sectors16: Annotated[int, "H"] = 0
    media: Annotated[int, "B"] = 0xF8
    fat_sectors: Annotated[int, "H"] = 0
    track_sectors: Annotated[int, "H"] = 63
    heads: Annotated[int, "H"] = 255
    hidden_sectors: Annotated[int, "I"] = 0
    sectors32: Annotated[int, "I"] = 0
    drive: Annotated[int, "B"] = 0x80
    reserved: Annotated[int, "B"] = 0
    signature: Annotated[int, "B"] = 0x29
    serial: Annotated[int, "I"] = 0
    label: Annotated[bytes, "11s"] = b"NO NAME    "
    kind: Annotated[bytes, "8s"] = b""


@dataclass(slots=True)
class _Placed:
    """A file or directory with its clusters; the root directory of FAT12/16 has none."""

    node: File | Directory
    first: int = 0
    count: int = 0
    children: list[_Placed] = field(default_factory=list)


MAX_LABEL = 11


class FatVolume:
    """A planned FAT file system of ``size`` bytes."""

    def __init__(self, root: Directory, *, label: str, epoch: int) -> None:
        """Plan *root*; every date is *epoch*, *label* at most 11 capitals, digits and _.

        Raises:
            InputError: it holds what FAT cannot: symbolic links, names it forbids, more than 2 GiB, too many files.
        """
        check_tree(root)
        self._label = label.encode("ascii").ljust(MAX_LABEL)
        moment = time.gmtime(epoch)
        self._time = moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2
        self._date = (moment.tm_year - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
        self._cluster_bytes = _ALIGN
        while True:
            self._top = _Placed(root)
            clusters = self._place(self._top, 2) - 2
            if clusters <= _FAT16_CLUSTERS:
                break
            self._cluster_bytes *= 2
            if self._cluster_bytes > 32768:
                raise InputError("the EFI system partition would need more than 2 GiB, which FAT16 cannot hold")
        # A FAT's type follows from its number of clusters alone (Microsoft, "FAT Type Determination").
        self._clusters = max(clusters, 1)
        self._fat16 = self._clusters > _FAT12_CLUSTERS
        entry_bits = 16 if self._fat16 else 12
        self._fat_sectors = -(-(self._clusters + 2) * entry_bits // 8 // SECTOR)
        fixed = 2 * self._fat_sectors + _ROOT_ENTRIES * _ENTRY // SECTOR
        self._reserved = round_up(1 + fixed, _ALIGN // SECTOR) - fixed
        self._data = (self._reserved + fixed) * SECTOR
        self.size = self._data + self._clusters * self._cluster_bytes
        self._by_path: dict[str, _Placed] = {}
        self._enter(self._top, "")

    def _place(self, placed: _Placed, cluster: int) -> int:
        taken: set[str] = set()
        for node in placed.node.children if isinstance(placed.node, Directory) else ():
            if node.name.upper() in taken:
                raise InputError("another file has this name but for its case, which FAT ignores", where=node.name)
            taken.add(node.name.upper())
            if isinstance(node, Symlink):
                raise InputError("FAT has no symbolic links", where=node.name)
            inner = _Placed(node, cluster)
            size = node.content.size if isinstance(node, File) else self._directory_bytes(node)
            if size > 0xFFFFFFFF:
                raise InputError("is larger than the 4 GiB a FAT file can be", where=node.name)
            inner.count = -(-size // self._cluster_bytes)
            if not inner.count:
                inner.first = 0
            cluster = self._place(inner, cluster + inner.count)
            placed.children.append(inner)
        return cluster

    def _enter(self, parent: _Placed, path: str) -> None:
        for child in parent.children:
            below = f"{path}/{child.node.name.upper()}"
            self._by_path[below] = child
            self._enter(child, below)

    def _directory_bytes(self, directory: Directory) -> int:
        """Return the size of a directory that is not the root: it has ``.`` and ``..`` too."""
        count = 2 + sum(1 + len(_long_name(node.name)) for node in directory.children)
        if count > _MAX_ENTRIES:
            raise InputError(
                f"the directory would have {count} entries, several for a long name; FAT has room for {_MAX_ENTRIES}",
                where=directory.name,
                hint="spread its files over several directories",
            )
        return count * _ENTRY

    def offset_of(self, path: str) -> int:
        """Return where the content of the file at *path*, in whatever case, stands: bytes from the volume's start."""
        return self._offset(self._by_path[path.upper()], 0)

    def extents(self, offset: int, serial: Callable[[], int]) -> tuple[Extent, ...]:
        """Return the file system's extents with its first byte at *offset* of the disk.

        *serial* gives the volume's serial number; it is asked for last.
        """
        boot = BootSector(
            cluster_sectors=self._cluster_bytes // SECTOR,
            reserved_sectors=self._reserved,
            fat_sectors=self._fat_sectors,
            sectors16=self.size // SECTOR if self.size // SECTOR < 0x10000 else 0,
            sectors32=0 if self.size // SECTOR < 0x10000 else self.size // SECTOR,
            hidden_sectors=offset // SECTOR,
            label=self._label,
            kind=b"FAT16   " if self._fat16 else b"FAT12   ",
        )

        def boot_sector() -> bytes:
            return boot.replace(serial=serial()).pack().ljust(SECTOR - 2, b"\0") + b"\x55\xaa"

        fat = self._fat()
        root = self._entries(self._top, None)
        extents = [
            Extent(offset, Late(SECTOR, boot_sector), "EFI system partition: boot sector"),
            Extent(offset + self._reserved * SECTOR, Literal(fat * 2 + root), "EFI system partition: FATs, root"),
        ]
        self._add_extents(self._top, offset, "", extents)
        return tuple(extents)

    def _add_extents(self, parent: _Placed, offset: int, path: str, extents: list[Extent]) -> None:
        for placed in parent.children:
            label = f"{path}/{placed.node.name}"
            if isinstance(placed.node, Directory):
                records = self._entries(placed, parent)
                extents.append(
                    Extent(self._offset(placed, offset), Literal(records), f"EFI system partition:{label}/")
                )
                self._add_extents(placed, offset, label, extents)
            elif placed.count:
                extents += content_extents(
                    placed.node.content, self._offset(placed, offset), f"EFI system partition:{label}"
                )

    def _offset(self, placed: _Placed, offset: int) -> int:
        return offset + self._data + (placed.first - 2) * self._cluster_bytes

    def _fat(self) -> bytes:
        end = 0xFFFF if self._fat16 else 0xFFF
        chain = [end & ~0xFF | 0xF8, end, *([0] * self._clusters)]
        stack = list(self._top.children)
        while stack:
            placed = stack.pop()
            stack += placed.children
            for cluster in range(placed.first, placed.first + placed.count):
                chain[cluster] = cluster + 1
            if placed.count:
                chain[placed.first + placed.count - 1] = end
        if self._fat16:
            packed = struct.pack(f"<{len(chain)}H", *chain)
        else:
            chain += [0] * (len(chain) % 2)
            pairs = (low | high << 12 for low, high in zip(chain[::2], chain[1::2], strict=True))
            packed = b"".join(pair.to_bytes(3, "little") for pair in pairs)
        return packed[: self._fat_sectors * SECTOR].ljust(self._fat_sectors * SECTOR, b"\0")

    def _entries(self, placed: _Placed, parent: _Placed | None) -> bytes:
        """Return the directory's records; the root (*parent* is None) has its label, others ``.`` and ``..``."""
        if parent is None:
            out = [self._entry(self._label, 0x08, 0, 0)]
        else:
            out = [
                self._entry(b".          ", 0x10, placed.first, 0),
                self._entry(b"..         ", 0x10, parent.first, 0),
            ]
        shorts = _short_names([child.node.name for child in placed.children])
        for child, short in zip(placed.children, shorts, strict=True):
            out += _long_name(child.node.name, short)
            size = child.node.content.size if isinstance(child.node, File) else 0
            out.append(self._entry(short, 0x20 if isinstance(child.node, File) else 0x10, child.first, size))
        data = b"".join(out)
        if parent is None and len(data) > _ROOT_ENTRIES * _ENTRY:
            raise InputError(f"the root of a FAT file system holds {_ROOT_ENTRIES} entries")
        return data

    def _entry(self, name: bytes, attributes: int, cluster: int, size: int) -> bytes:
        return struct.pack(
            "<11sBBBHHHHHHHI", name, attributes, 0, 0, self._time, self._date, self._date, 0, self._time, self._date,
            cluster, size,
        )  # fmt: skip


_SHORT = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-~!#$%&'()@^`{}")


def _is_short(name: str) -> bool:
    stem, dot, extension = name.partition(".")
    fits = 0 < len(stem) <= 8 and len(extension) <= 3 and bool(extension) == bool(dot)
    return fits and name.isascii() and all(c in _SHORT for c in (stem + extension).encode())


def _short_names(names: list[str]) -> list[bytes]:
    """Return the 8.3 names of a directory: *names* themselves where they are such, else unique ``STEM~1``."""
    taken = {_padded(*name.partition(".")[::2]) for name in names if _is_short(name)}
    tried: dict[tuple[bytes, bytes], int] = {}
    found = []
    for name in names:
        if _is_short(name):
            found.append(_padded(*name.partition(".")[::2]))
            continue
        stem, _, extension = name.upper().rpartition(".") if "." in name.strip(".") else (name.upper(), "", "")
        clean = [bytes(c for c in part.encode("ascii", "ignore") if c in _SHORT) for part in (stem, extension)]
        alike = (clean[0][:6], clean[1][:3])
        short = b""
        while not short or short in taken:
            tried[alike] = tried.get(alike, 0) + 1
            tail = b"~%d" % tried[alike]
            short = (clean[0][: 8 - len(tail)] + tail).ljust(8) + clean[1][:3].ljust(3)
        taken.add(short)
        found.append(short)
    return found


def _padded(stem: str, extension: str) -> bytes:
    return f"{stem:<8}{extension:<3}".encode("ascii")


def _long_name(name: str, short: bytes = b"") -> list[bytes]:
    """Return the VFAT entries of *name*, last part first, none if it is a short name."""
    if _is_short(name):
        return []
    encoded = name.encode("utf-16-le", "surrogatepass")
    if any(c in '"*/:<>?\\|' or ord(c) < 32 for c in name) or len(encoded) > 510 or name != name.rstrip(". "):
        raise InputError("is no name for a FAT file system", where=name, hint="rename the file")
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7 | checksum >> 1) + byte & 0xFF
    if len(encoded) % 26:
        encoded = (encoded + b"\0\0").ljust(round_up(len(encoded) + 2, 26), b"\xff")
    entries = []
    for at in range(0, len(encoded), 26):
        part, order = encoded[at : at + 26], at // 26 + 1
        if at + 26 == len(encoded):
            order |= 0x40
        head, middle, tail = part[:10], part[10:22], part[22:]
        entries.append(struct.pack("<B10sBBB12sH4s", order, head, 0x0F, 0, checksum, middle, 0, tail))
    return entries[::-1]
