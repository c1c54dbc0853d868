"""Write a layout as a plain file: the disk itself, sparse where the layout is."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

from rumpbundle.disk.content import CHUNK, Computed, Content, FileSlice, Late, Literal, Stored
from rumpbundle.disk.digest import hexdigest
from rumpbundle.disk.hashing import Locate, trailing
from rumpbundle.disk.inputfile import close
from rumpbundle.disk.layout import DiskLayout, Extent, Named, round_up
from rumpbundle.errors import HostError
from rumpbundle.events import Advanced, Report, silent

SMALL = 256 << 10
"""Files up to this size are read once, hashed and written from the same buffer."""
_COPY_STEP = 8 << 20
"""Bytes copied at once: few enough that the hashing, which follows, ends soon after."""
_PAGE = 4096
"""What file systems with reflinks share blocks by: of both files the same part of one."""


def write_flat(layout: DiskLayout, fd: int, report: Report = silent, label: str = "disk") -> None:
    """Write *layout* into the empty file *fd*, open for reading too, from its position 0; it gets exactly its size.

    Payload is copied inside the kernel while another thread hashes it as it stands in the file; what depends on the
    hashes comes last.

    Raises:
        InputError: an input changed meanwhile.
        HostError: the disk is full.
    """
    extents = layout.extents
    with disk_errors():
        os.ftruncate(fd, layout.size)
        write_extents((e for e in extents if not isinstance(e.source, Late)), fd, report, label, layout.named)
        for extent in extents:
            if isinstance(extent.source, Late):
                write_all(fd, extent.source.read(0, extent.length), extent.offset)
                report(Advanced(label, extent.length))


def write_content(
    content: Content, fd: int, report: Report = silent, label: str = "file", *, align: int = 1, named: bool = False
) -> None:
    """Write *content* into the empty file *fd* from its position 0; its size becomes a multiple of *align*.

    Its zeros, those at its end too, take no room. If a manifest has it *named*, it is hashed as it
    stands in *fd*, which is then open for reading too. Raises as :func:`write_flat`.
    """
    with disk_errors():
        os.ftruncate(fd, round_up(content.size, align))
        write_stored(content.stored(), fd, report, label, (Named(0, content),) if named else ())


def write_extents(
    extents: Iterable[Extent],
    fd: int,
    report: Report = silent,
    label: str = "disk",
    named: Sequence[Named] = (),
    locate: Locate = lambda offset: (offset, 1 << 62),
) -> None:
    """Write *extents*, sorted and none of them :class:`Late`, at their offsets of *fd*, and hash what is *named*.

    The extents' offsets are the file's, those of *named* the disk's, which *locate* finds in the file.
    """
    write_stored(((e.offset, e.source) for e in extents), fd, report, label, named, locate)


def write_stored(
    placed: Iterable[tuple[int, Stored]],
    fd: int,
    report: Report = silent,
    label: str = "disk",
    named: Sequence[Named] = (),
    locate: Locate = lambda offset: (offset, 1 << 62),
) -> None:
    """Do what :func:`write_extents` does for sources and their offsets, of which there may be 200,000."""
    small = {id(one.content.sources[0]): one.content for one in named if _is_small_file(one.content)}
    large = [one for one in named if one.content.size > SMALL]
    batch = _Batch(fd, lambda count: report(Advanced(label, count)))
    with trailing(large, fd, locate) as arrived:
        for offset, source in placed:
            if isinstance(source, FileSlice):
                if source.file.size > SMALL:
                    # What is gathered must not bridge this: the zeros between would be written over it.
                    batch.flush()
                    _copy(source, fd, offset, report, label, arrived)
                    continue
                data = source.file.read(source.start, source.length)
                batch.add(offset, data)
                content = small.get(id(source)) if small else None
                if content is not None and not content.hashed:
                    content.remember(hexdigest(data))
            elif isinstance(source, Literal):
                batch.add(offset, source.data)
            else:
                assert isinstance(source, Computed)
                batch.flush()
                _write_computed(source, fd, offset, report, label, arrived)
        batch.flush()


def _is_small_file(content: Content) -> bool:
    return (
        0 < content.size <= SMALL
        and not content.sparse
        and len(content.sources) == 1
        and isinstance(content.sources[0], FileSlice)
    )


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an :class:`OSError` of writing the output inside the block into a :class:`HostError`."""
    try:
        yield
    except OSError as error:
        raise disk_error(error) from None


def disk_error(error: OSError) -> HostError:
    """Turn an error of writing the output into one that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError("no space left on the output's file system")
    if error.errno == errno.EFBIG:
        return HostError("the output's file system does not take a file of this size")
    return HostError(f"cannot write the output: {os.strerror(error.errno or 0)}")


class _Batch:
    """Gathers neighbouring small pieces, zero gaps below a sector group included, into one write."""

    def __init__(self, fd: int, written: Callable[[int], None]) -> None:
        """Write to *fd*, and tell *written* how many bytes that were pieces."""
        self._fd = fd
        self._written = written
        self._start = 0
        self._pieces = 0
        self._buffer = bytearray()

    def add(self, offset: int, data: bytes) -> None:
        gap = offset - self._start - len(self._buffer)
        if self._buffer and (gap < 0 or gap > 4096 or len(self._buffer) + gap + len(data) > CHUNK):
            self.flush()
        if not self._buffer:
            self._start, gap = offset, 0
        self._buffer += bytes(gap)
        self._buffer += data
        self._pieces += len(data)

    def flush(self) -> None:
        if self._buffer:
            write_all(self._fd, self._buffer, self._start)
            self._written(self._pieces)
            self._pieces = 0
            self._buffer = bytearray()


def write_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of *data* at *offset* of *fd*."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def _write_computed(
    source: Computed, fd: int, offset: int, report: Report, label: str, arrived: Callable[[int], None]
) -> None:
    for at in range(0, source.length, CHUNK):
        data = source.read(at, min(CHUNK, source.length - at))
        write_all(fd, data, offset + at)
        arrived(offset + at + len(data))
        report(Advanced(label, len(data)))


def _copy(
    source: FileSlice, fd: int, offset: int, report: Report, label: str, arrived: Callable[[int], None]
) -> None:
    """Copy a slice of a file to *offset* of *fd*: shared or moved by the kernel where it can be."""
    file = source.file
    src = file.open()
    try:
        position, end = source.start, source.start + source.length
        while position < end:
            start, stop = _next_data(src, position, end)
            report(Advanced(label, start - position))
            position = start
            while position < stop:
                place = position - source.start + offset
                # Up to a boundary first: a step that begins on none shares nothing.
                step = _COPY_STEP - position % _PAGE
                count = _copy_range(src, fd, min(stop - position, step), position, place)
                if not count:
                    # Through our memory, to tell whose fault it is: the input's (shorter, EIO) or the output's.
                    count = min(stop - position, CHUNK)
                    write_all(fd, file.read_from(src, position, count), place)
                position += count
                arrived(position - source.start + offset)
                report(Advanced(label, count))
        file.check(src)
    finally:
        close(src)


def _next_data(fd: int, position: int, end: int) -> tuple[int, int]:
    """Return the next range of data in *position*..*end* (``end, end`` if only a hole is left)."""
    if not hasattr(os, "SEEK_DATA"):
        return position, end
    try:
        start = min(os.lseek(fd, position, os.SEEK_DATA), end)
        return start, min(os.lseek(fd, start, os.SEEK_HOLE), end)
    except OSError as error:
        return (end, end) if error.errno == errno.ENXIO else (position, end)


def _copy_range(src: int, dst: int, count: int, src_offset: int, dst_offset: int) -> int:
    """Let the kernel copy, and return how many bytes it has; 0 if it cannot, whyever."""
    try:
        return os.copy_file_range(src, dst, count, src_offset, dst_offset)
    except (OSError, AttributeError):
        return 0


__all__ = ["disk_error", "disk_errors", "write_all", "write_content", "write_extents", "write_flat"]
