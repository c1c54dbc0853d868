"""Write last, into a finished container, what depends on the payload's hashes."""

from __future__ import annotations

from rumpbundle.disk.content import Late
from rumpbundle.disk.flat import write_all
from rumpbundle.disk.layout import DiskLayout
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Disk


def fill_late(layout: DiskLayout, disk: Disk, fd: int) -> None:
    """Write every :class:`Late` extent of *layout* in its place in the container *fd*, which *disk* reads.

    Raises:
        ImageError: the container has no place for one.
    """
    for extent in layout.extents:
        if not isinstance(extent.source, Late):
            continue
        data = extent.source.settle().data
        done = 0
        while done < len(data):
            position, run, _ = disk.locate(extent.offset + done)
            if position is None:
                raise ImageError(f"byte {extent.offset + done} of the disk ({extent.label}) has no place")
            write_all(fd, data[done : done + run], position)
            done += run
