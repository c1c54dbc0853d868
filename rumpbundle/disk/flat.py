"""Write a layout as a plain file: the disk itself, sparse where the layout is."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

from rumpbundle.disk.content import CHUNK, Computed, Content, FileSlice, Late, Literal, Stored
from rumpbundle.disk.digest import hexdigest
from rumpbundle.disk.hashing import Locate, trailing
from rumpbundle.disk.inputfile import InputFile, close
from rumpbundle.disk.layout import DiskLayout, Extent, Named, round_up
from rumpbundle.errors import HostError, no_room
from rumpbundle.events import Advanced, Report, silent

SMALL = 256 << 10
"""Files up to this size are read once, hashed and written from the same buffer."""
_COPY_STEP = 8 << 20
"""Bytes copied at once: few enough that the hashing, which follows, ends soon after."""
_ENDLESS = 1 << 63
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
    with (
        trailing(large, fd, locate) as arrived,
        _Copier(fd, report, label, arrived) as copier,
        _Batch(fd, lambda count: report(Advanced(label, count))) as batch,
    ):
        for offset, source in placed:
            if isinstance(source, FileSlice):
                if source.file.size > SMALL:
                    # What is gathered must not bridge this: the zeros between would be written over it.
                    batch.flush()
                    copier.copy(source, offset)
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
    if full := no_room(error):
        return HostError(full)
    if error.errno == errno.EFBIG:
        return HostError("the output's file system does not take a file of this size")
    return HostError(f"cannot write the output: {os.strerror(error.errno or 0)}")


class _Batch:
    """Gathers neighbouring small pieces, zero gaps below a sector group included, into one write.

    A full one is written by a thread while the next is filled: of 200,000 small files each takes our time and the
    system's by turns.
    """

    def __init__(self, fd: int, written: Callable[[int], None]) -> None:
        """Write to *fd*, and tell *written* how many bytes that were pieces."""
        self._fd = fd
        self._written = written
        self._start = 0
        self._pieces = 0
        self._buffer = bytearray()
        self._thread: threading.Thread | None = None
        self._failed: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            with contextlib.suppress(RuntimeError):  # a signal came before it was started
                self._thread.join()  # it must not write what has been closed

    def add(self, offset: int, data: bytes) -> None:
        gap = offset - self._start - len(self._buffer)
        if self._buffer:
            if gap < 0 or gap > 4096:
                self.flush()
            elif len(self._buffer) + gap + len(data) > CHUNK:
                self._pass_on()
        if not self._buffer:
            self._start, gap = offset, 0
        self._buffer += bytes(gap)
        self._buffer += data
        self._pieces += len(data)

    def flush(self) -> None:
        """Write all that was added; then it stands in the file."""
        self._wait()
        if self._buffer:
            write_all(self._fd, self._buffer, self._start)
            self._forget()

    def _pass_on(self) -> None:
        """Have what was added written."""
        self._wait()
        self._thread = threading.Thread(target=self._write, args=(self._buffer, self._start), daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there are none here, or no more of them
            self._thread = None
            write_all(self._fd, self._buffer, self._start)
        self._forget()

    def _write(self, data: bytearray, offset: int) -> None:
        try:
            write_all(self._fd, data, offset)
        except BaseException as error:  # told by whoever waits
            self._failed = error

    def _wait(self) -> None:
        """Wait until what was passed on stands in the file."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._failed is not None:
                raise self._failed

    def _forget(self) -> None:
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


class _Copier:
    """Copies slices of files into *fd*: shared or moved by the kernel where it can be. One file is open at a time."""

    def __init__(self, fd: int, report: Report, label: str, arrived: Callable[[int], None]) -> None:
        self._fd = fd
        self._report = report
        self._label = label
        self._arrived = arrived
        self._file: InputFile | None = None
        self._src = -1
        self._data = (0, 0)
        """Of the open file: a range without holes. To find its end may cost more than to copy a part of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._close(check=kind is None)

    def _close(self, *, check: bool) -> None:
        file, src, self._file, self._src, self._data = self._file, self._src, None, -1, (0, 0)
        if file is None:
            return
        try:
            if check:
                file.check(src)
        finally:
            close(src)

    def copy(self, source: FileSlice, offset: int) -> None:
        """Copy *source* to *offset* of the output."""
        if source.file is not self._file:
            self._close(check=True)
            self._src, self._file = source.file.open(), source.file
        position, end = source.start, source.start + source.length
        # The kernel moves whole pages, and what stands elsewhere in a page slowly.
        alike = not (source.start - offset) % _PAGE
        while position < end:
            start, stop = self._next_data(position, end)
            self._report(Advanced(self._label, start - position))
            position = start
            while position < stop:
                place = position - source.start + offset
                # Up to a boundary first: a step that begins on none shares nothing.
                step = min(stop - position, _COPY_STEP - position % _PAGE)
                count = _copy_range(self._src, self._fd, step, position, place) if alike else 0
                if not count:
                    # Through our memory, to tell whose fault it is: the input's (shorter, EIO) or the output's.
                    count = min(stop - position, CHUNK)
                    write_all(self._fd, source.file.read_from(self._src, position, count), place)
                position += count
                self._arrived(position - source.start + offset)
                self._report(Advanced(self._label, count))

    def _next_data(self, position: int, end: int) -> tuple[int, int]:
        """Return the next range of data in *position*..*end* (``end, end`` if only a hole is left)."""
        if not self._data[0] <= position < self._data[1]:
            self._data = _data_from(self._src, position)
        start, stop = self._data
        return min(max(start, position), end), min(stop, end)


def _data_from(fd: int, position: int) -> tuple[int, int]:
    """Return the first range of data that begins, or goes on, at *position*; of what has no holes it is endless."""
    if not hasattr(os, "SEEK_DATA"):
        return position, _ENDLESS
    try:
        start = os.lseek(fd, position, os.SEEK_DATA)
        return start, os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        return (_ENDLESS, _ENDLESS) if error.errno == errno.ENXIO else (position, _ENDLESS)


def _copy_range(src: int, dst: int, count: int, src_offset: int, dst_offset: int) -> int:
    """Let the kernel copy, and return how many bytes it has; 0 if it cannot, whyever."""
    try:
        return os.copy_file_range(src, dst, count, src_offset, dst_offset)
    except (OSError, AttributeError):
        return 0


__all__ = ["disk_error", "disk_errors", "write_all", "write_content", "write_extents", "write_flat"]
