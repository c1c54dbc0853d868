"""What the containers share that leave unused blocks of the disk out: which blocks stand in the file, and where.

A block is what such a format gives one place to: qcow2's cluster, VMDK's grain, the block of VDI, VHD and VHDX. Those
that are used stand in the order of the disk, so that payload is copied in long pieces.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rumpbundle.disk.content import Content, Late
from rumpbundle.disk.flat import disk_errors, write_all, write_extents
from rumpbundle.disk.layout import DiskLayout, Extent, LayoutReader, content_extents, held
from rumpbundle.events import Advanced
from rumpbundle.formats._contract import Job


class StoredRun(NamedTuple):
    """Blocks that follow each other, on the disk as in the file; all in bytes."""

    offset: int
    """Of the disk."""
    length: int
    place: int
    """In the file."""


def used_blocks(layout: DiskLayout, size: int) -> list[range]:
    """Return the indices of *layout*'s blocks of *size* bytes that are not all zero, in order."""
    with disk_errors(), LayoutReader(held(layout)) as reader:
        return list(reader.used(size))


def fits_surely(layout: DiskLayout, size: int, room: int) -> bool:
    """Whether *layout*'s blocks of *size* bytes take at most *room* even if none is all zero: nothing is read."""
    return sum(end - start for start, end in layout.ranges(size)) <= room


def in_a_row(used: Iterable[range], size: int, place: int) -> list[StoredRun]:
    """Return the runs of *used* blocks of *size* bytes that stand one behind the other from *place* on."""
    runs = []
    for blocks in used:
        runs.append(StoredRun(blocks.start * size, len(blocks) * size, place))
        place += len(blocks) * size
    return runs


def write_blocks(job: Job, fd: int, runs: Sequence[StoredRun]) -> None:
    """Write the job's disk to where *runs* have its blocks in the file *fd*, which has its size already.

    Payload is copied inside the kernel and hashed as it stands in the file; what depends on the hashes comes last. A
    gap between two runs that is smaller than a page may get zeros: what belongs there is written afterwards.

    Raises:
        InputError: an input changed meanwhile.
        HostError: the disk is full.
    """
    starts = [run.offset for run in runs]

    def locate(offset: int) -> tuple[int | None, int]:
        index = bisect_right(starts, offset) - 1
        if index >= 0 and offset < runs[index].offset + runs[index].length:
            within = offset - runs[index].offset
            return runs[index].place + within, runs[index].length - within
        following = starts[index + 1] if index + 1 < len(starts) else job.layout.size
        return None, following - offset

    with disk_errors():
        known = (extent for extent in job.layout.extents if not isinstance(extent.source, Late))
        write_extents(_moved(known, runs), fd, job.report, job.label, job.layout.named, locate)
        for extent in job.layout.extents:
            if isinstance(extent.source, Late):
                for part in _moved((Extent(extent.offset, extent.source.settle(), extent.label),), runs):
                    write_all(fd, part.source.read(0, part.length), part.offset)
                job.report(Advanced(job.label, extent.length))


def _moved(extents: Iterable[Extent], runs: Sequence[StoredRun]) -> Iterator[Extent]:
    """Yield *extents*, sorted, where they stand in the file: cut where a run ends, and without unused blocks."""
    first = 0
    for extent in extents:
        while first < len(runs) and runs[first].offset + runs[first].length <= extent.offset:
            first += 1
        for index in range(first, len(runs)):
            run = runs[index]
            if run.offset >= extent.end:
                break
            low, high = max(run.offset, extent.offset), min(run.offset + run.length, extent.end)
            part = Content((extent.source,)).part(low - extent.offset, high - extent.offset)
            yield from content_extents(part, run.place + low - run.offset, extent.label)
