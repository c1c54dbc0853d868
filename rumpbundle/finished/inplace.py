"""What a finished image changes by when it gets another configuration: bytes at their places in its own file.

The new plan is compared with what is there, sector by sector, only where the plans say that anything may differ: so
it takes milliseconds at any size. Formats that keep a disk as it is, or in tables that stay, can be changed so.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from rumpbundle.disk.content import FileSlice
from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, LayoutReader
from rumpbundle.formats import Format, Job, OneFile, Standing
from rumpbundle.host.rollback import Patch
from rumpbundle.images.disk import Disk
from rumpbundle.images.records import vdi, vhd
from rumpbundle.images.records.kitfiles import EC2_DISK, EC2_MANIFEST

FORMATS = {("raw", ""), ("iso", ""), ("vdi", ""), ("vhd", "fixed"), ("ec2", "raw"), ("azure", "")}
"""Formats and subformats that are changed in place; others are written anew."""


def disk_file(output: Path) -> Path:
    """Return the file of *output*, an image or a kit, that holds the disk."""
    return output / EC2_DISK if output.is_dir() else output


def patches(disk: Disk, output: Path, before: DiskLayout, job: Job, format: Format) -> list[Patch] | None:
    """Return what makes *output*, which holds *disk* by the plan *before*, what *job* would write as *format*.

    None if that cannot be said by bytes at their places: then it has to be written anew.

    Raises:
        ImageError: the image is damaged.
    """
    path, after = disk_file(output), job.layout
    if after.size != disk.size:
        return None
    found: list[Patch] = []
    changed: list[tuple[int, int]] = []
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
                    changed.append((start + at, start + end))
    found = sorted([*found, *_frame(disk, path, job)], key=lambda patch: patch.offset)
    texts = None if isinstance(format.product, OneFile) else format.product.texts
    if found and texts is not None:
        files = [output / EC2_MANIFEST] if output.is_dir() else format.files(output)[1:]
        if not all(map(Path.is_file, files)):
            return None
        there = {file.name: file.read_bytes() for file in files}
        for file, text in zip(files, texts(job, Standing(there, tuple(changed))).values(), strict=True):
            found.append(Patch(file, 0, there[file.name], text))
    return [*found, *sums(output, found)]


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


def sums(output: Path, changes: Sequence[Patch]) -> list[Patch]:
    """Return what keeps the ``SHA256SUMS`` beside *output* true, if there is one, once its files have *changes*."""
    path = output.parent / "SHA256SUMS"
    if not path.is_file():
        return []
    new = old = path.read_bytes()
    for file in dict.fromkeys(each.path for each in changes):
        name = os.fsencode(os.path.relpath(file, output.parent))
        name = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")  # as sha256sum escapes it
        if match := re.search(rb"^\\?([0-9a-f]{64}) [ *](?:\./)?" + re.escape(name) + rb"$", new, re.MULTILINE):
            digest = _sha256(file, [each for each in changes if each.path == file])
            new = new[: match.start(1)] + digest.encode() + new[match.end(1) :]
    return [] if new == old else [Patch(path, 0, old, new)]


def _sha256(path: Path, changes: Sequence[Patch]) -> str:
    """Return the SHA-256 of the file *path* as it will be with *changes*, in the order of their places."""
    digest = hashlib.sha256()
    with path.open("rb") as file:

        def take(length: int) -> None:
            while length and (data := file.read(min(length, MIB))):
                digest.update(data)
                length -= len(data)

        for each in changes:
            take(each.offset - file.tell())
            digest.update(each.new)
            file.seek(len(each.old), os.SEEK_CUR)
        take(path.stat().st_size - file.tell())
    return digest.hexdigest()


__all__ = ["FORMATS", "disk_file", "patches", "sums"]
