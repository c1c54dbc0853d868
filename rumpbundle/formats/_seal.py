"""Make what qemu-img wrote ours: put in the bytes that were late, and replace every random or dated field.

A field that is not where a format's sealer expects it means a qemu-img we do not know: then the build fails, for a
guess would corrupt the image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rumpbundle.content import Late
from rumpbundle.errors import ImageError, ToolError
from rumpbundle.flat import disk_errors, write_all
from rumpbundle.images.disk import Disk
from rumpbundle.layout import DiskLayout


def fill_late(layout: DiskLayout, disk: Disk, fd: int) -> None:
    """Write every :class:`Late` extent of *layout* in its place in the container *fd*, which *disk* reads.

    Waits for the payload's hashing.
    """
    for extent in layout.extents:
        if not isinstance(extent.source, Late):
            continue
        data = extent.source.settle().data
        done = 0
        while done < len(data):
            position, run = disk.locate(extent.offset + done)
            expect(position is not None, f"no place for {extent.label} at {extent.offset + done}")
            assert position is not None
            write_all(fd, data[done : done + run], position)
            done += run


@contextlib.contextmanager
def sealing() -> Iterator[None]:
    """Turn what a reader or the disk says inside the block into the error of the tool or the machine it is."""
    with disk_errors():
        try:
            yield
        except ImageError as error:
            expect(False, str(error))


def expect(condition: bool, what: str) -> None:
    """Raise :class:`ToolError` unless *condition* holds of what qemu-img wrote."""
    if not condition:
        raise ToolError(
            f"qemu-img wrote what rumpbundle cannot seal: {what}",
            hint="please report it with the output of qemu-img --version",
        )
