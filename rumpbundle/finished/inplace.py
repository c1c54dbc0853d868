"""What a finished image changes by when it gets another configuration: bytes at their places in its own file.

The new plan is compared with what is there, sector by sector, only where the plans say that anything may differ: so
it takes milliseconds at any size. Formats that keep a disk as it is, or in tables that stay, can be changed so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rumpbundle.disk.content import FileSlice
from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, LayoutReader
from rumpbundle.formats import Job
from rumpbundle.host.rollback import Patch
from rumpbundle.images.disk import Disk
from rumpbundle.images.records import vdi, vhd

FORMATS = {("raw", ""), ("iso", ""), ("vdi", ""), ("vhd", "fixed")}
"""Formats and subformats that are changed in place; others are written anew."""


def patches(disk: Disk, path: Path, before: DiskLayout, job: Job) -> list[Patch] | None:
    """Return what makes the file *path*, which holds *disk* by the plan *before*, what *job* would write.

    None if that cannot be said by bytes at their places: then it has to be written anew.

    Raises:
        ImageError: the image is damaged.
    """
    after = job.layout
    if after.size != disk.size:
        return None
    found = []
    with LayoutReader(after) as reader:
        for low, high in _suspects(before.padded(least=disk.size), after):
            for start in range(low, high, MIB):
                length = min(MIB, high - start)
                old, new = disk.read(start, length), reader.read(start, length)
                for at, end in _differences(old, new):
                    place = disk.locate(start + at)
                    if place.position is None or place.packed or place.length < end - at:
                        return None
                    found.append(Patch(path, place.position, old[at:end], new[at:end]))
    found += _frame(disk, path, job)
    return found


def _suspects(before: DiskLayout, after: DiskLayout) -> Iterator[tuple[int, int]]:
    """Yield the ranges, in order and apart, in which the two may differ: all but what stays in the image's file."""
    kept = {(one.offset, one.source) for one in after.extents if isinstance(one.source, FileSlice)}
    kept &= {(one.offset, one.source) for one in before.extents if isinstance(one.source, FileSlice)}
    ranges = sorted(
        (one.offset // SECTOR * SECTOR, -(-one.end // SECTOR) * SECTOR)
        for one in (*before.extents, *after.extents)
        if (one.offset, one.source) not in kept
    )
    start = end = 0
    for low, high in ranges:
        if low > end:
            if end > start:
                yield start, end
            start = low
        end = max(end, high)
    if end > start:
        yield start, min(end, after.size)


def _differences(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Yield the runs of sectors in which *old* and *new* differ."""
    if old == new:
        return
    start: int | None = None
    for at in range(0, len(new), SECTOR):
        differ = old[at : at + SECTOR] != new[at : at + SECTOR]
        if differ and start is None:
            start = at
        elif not differ and start is not None:
            yield start, at
            start = None
    if start is not None:
        yield start, len(new)


def _frame(disk: Disk, path: Path, job: Job) -> Iterator[Patch]:
    """Yield what changes of the container itself: the ids that follow from the bundle."""
    identity = job.layout.identity
    if disk.container == "vdi":
        old = disk.medium.read(0, vdi.Header.SIZE)
        header = vdi.Header.unpack(old).replace(
            uuid_create=identity.uuid("vdi-create").bytes_le, uuid_modify=identity.uuid("vdi-modify").bytes_le
        )
        yield Patch(path, 0, old, header.pack())
    elif disk.container == "vhd (fixed)":
        old = disk.medium.read(disk.size, vhd.Footer.SIZE)
        yield Patch(path, disk.size, old, vhd.footer(disk.size, identity.uuid("vhd-fixed").bytes, job.epoch).pack())


__all__ = ["FORMATS", "patches"]
