"""Members of RAIDs that say so at their end: a file system or a partition table seems to begin with the first.

Sources: mdadm (super0.c, super1.c, super-intel.c, super-ddf.c); "Common RAID Disk Data Format", SNIA, revision 2.0;
dmraid (lib/format/ataraid: lsi.h, nv.h, pdc.h, sil.h, jm.h) for the RAIDs of mainboards and cheap cards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from rumpbundle.images.filesystems.unread import Unread
from rumpbundle.images.medium import Medium

_MIRROR = 1
"""The level of a mirror, in all of them: each of its disks is the whole."""
_LINUX = b"\xfc\x4e\x2b\xa9"
_INTEL = b"Intel Raid ISM Cfg Sig. "
_DDF, _DDF_VOLUME = b"\xde\x11\xde\x11", b"\xee\xee\xee\xee"
_LSI, _NVIDIA, _JMICRON = b"$XIDE$", b"NVIDIA", b"JM"
_PROMISE = b"Promise Technology, Inc."
_PROMISE_PLACES = (63, 255, 256, 16, 399, 591, 675, 735, 911, 951, 974, 991, 3087)
"""Sectors before the end, by the size of the disk and what its controller takes it to have."""
_MOST = 64 << 10
"""Bytes of a description that are read."""


def striped(medium: Medium, *, whole: bool) -> Unread | None:
    """Return *medium*, a *whole* disk or a part, if it is one of several over which a RAID spreads its data."""
    for kind, name, levels in _RAIDS if whole else _RAIDS[:1]:
        if any(level != _MIRROR for level in levels(medium)):
            return Unread(medium, kind, f"is a member of {name}, which cannot be read", member=True)
    return None


def _read(medium: Medium, start: int, length: int) -> bytes:
    """Return what there is of *length* bytes at *start*."""
    return medium.read(start, min(length, medium.size - start)) if 0 <= start < medium.size else b""


def _linux(medium: Medium) -> Iterator[int]:
    """Yield the level of a Linux RAID, of version 0.90 or 1.0."""
    sectors = medium.size // 512
    for start, level in ((sectors & ~127) - 128, 28), (sectors - 16 & ~7, 72):
        head = _read(medium, start * 512, 512)
        if head.startswith(_LINUX):
            yield int.from_bytes(head[level : level + 4], "little", signed=True)


def _intel(medium: Medium) -> Iterator[int]:
    """Yield the levels of the volumes that an Intel RAID keeps on its disks; none of a spare."""
    for sector in (512, 4096):
        anchor = medium.size - 2 * sector
        head = _read(medium, anchor, sector)
        if not head.startswith(_INTEL):
            continue
        size = min(int.from_bytes(head[36:40], "little"), _MOST)
        more = -(-max(size - sector, 0) // sector) * sector  # what does not fit stands before
        text = head + _read(medium, anchor - more, more)
        disks, volumes = head[56:58]
        at = 216 + 48 * disks
        for _ in range(volumes):
            if at + 132 > len(text):
                return
            yield text[at + 127]
            at += 112
            for _ in range(2 if text[at - 24] else 1):  # two, while it becomes another
                at += 48 + 4 * text[at + 16] if at + 16 < len(text) else 0


def _ddf(medium: Medium) -> Iterator[int]:
    """Yield the levels of the volumes that a DDF RAID keeps on its disks."""
    anchor = _read(medium, medium.size - 512, 512)
    if not anchor.startswith(_DDF):
        return
    (primary,) = struct.unpack_from(">Q", anchor, 96)
    head = _read(medium, primary * 512, 512)
    section, sectors = struct.unpack_from(">II", head if head.startswith(_DDF) else anchor, 216)
    records = _read(medium, (primary + section) * 512, min(sectors * 512, _MOST))
    for at in range(0, len(records) - 67, 512):
        if records.startswith(_DDF_VOLUME, at):
            yield records[at + 67]


def _lsi(medium: Medium) -> Iterator[int]:
    """Yield the level of a RAID of LSI: stripes, a mirror, or stripes over mirrors, counted from 1."""
    head = _from_end(medium, 1)
    if head.startswith(_LSI) and len(head) == 512:
        yield head[16] - 1


def _nvidia(medium: Medium) -> Iterator[int]:
    """Yield the level of a RAID of NVIDIA: with 0x80 added; 0 is a spare's."""
    head = _from_end(medium, 2)
    level = int.from_bytes(head[76:80], "little")
    if head.startswith(_NVIDIA) and level:
        yield level & ~0x80 if level < 0x100 else level  # 0x8180: stripes over mirrors


def _promise(medium: Medium) -> Iterator[int]:
    """Yield the level of a RAID of Promise: a mirror of more than three disks has stripes, too."""
    for sectors in _PROMISE_PLACES:
        head = _from_end(medium, sectors, 0x221)
        if head.startswith(_PROMISE) and len(head) == 0x221:
            level, disks = head[0x21F:0x221]
            yield level if disks < 4 else 10
            return


def _silicon(medium: Medium) -> Iterator[int]:
    """Yield the level of a RAID of Silicon Image: 0 to 2 and 16; 3 is a spare, which holds nothing."""
    head = _from_end(medium, 1)
    if len(head) < 512 or int.from_bytes(head[96:100], "little") & 0x3FFFFFF != 0x3000000:
        return
    words = struct.unpack("<160H", head[:320])
    if sum(words) & 0xFFFF == 0 and head[0x117] != 3:  # the last of them is the checksum
        yield head[0x117]


def _jmicron(medium: Medium) -> Iterator[int]:
    """Yield the level of a RAID of JMicron."""
    head = _from_end(medium, 1)
    # Some of their programs count the sum to 1.
    if head.startswith(_JMICRON) and len(head) == 512 and sum(struct.unpack("<64H", head[:128])) & 0xFFFF in (0, 1):
        yield head[48]


def _from_end(medium: Medium, sectors: int, length: int = 512) -> bytes:
    """Return what there is of *length* bytes from the last but *sectors* on, counted from 1."""
    return _read(medium, (medium.size // 512 - sectors) * 512, length)


# What stands at the end of a disk stands at the end of its last partition, too. Firmware takes disks only.
_RAIDS: tuple[tuple[str, str, Callable[[Medium], Iterator[int]]], ...] = (
    ("mdraid", "a Linux software RAID", _linux),
    ("imsm", "an Intel RAID (IMSM)", _intel),
    ("ddf", "a RAID of a controller (DDF)", _ddf),
    ("lsi", "an LSI RAID (MegaRAID)", _lsi),
    ("nvidia", "an NVIDIA RAID", _nvidia),
    ("promise", "a Promise RAID (FastTrak)", _promise),
    ("silicon", "a Silicon Image RAID (Medley)", _silicon),
    ("jmicron", "a JMicron RAID", _jmicron),
)
