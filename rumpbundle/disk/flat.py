"""Write a layout as a plain file: the disk itself, sparse where the layout is."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator

from rumpbundle.disk.content import CHUNK, Content, FileSlice, InputFile, Late, Literal
from rumpbundle.disk.layout import DiskLayout, Extent, content_extents, round_up
from rumpbundle.errors import HostError, InputError, RumpbundleError
from rumpbundle.events import Advanced, Report, silent

SMALL = 256 << 10
"""Files up to this size are read once, hashed and written from the same buffer."""
_COPY_STEP = 64 << 20


def write_flat(layout: DiskLayout, fd: int, report: Report = silent, label: str = "disk") -> None:
    """Write *layout* into the empty file *fd* from its position 0; the file gets exactly its size.

    Payload is copied inside the kernel while another thread hashes it; what depends on the hashes comes
    last. Raises :class:`InputError` if an input changes meanwhile, :class:`HostError` if the disk is full.
    """
    extents = layout.extents
    with disk_errors():
        os.ftruncate(fd, layout.size)
        with hashing(file for file in layout.files if file.size > SMALL):
            write_extents((e for e in extents if not isinstance(e.source, Late)), fd, report, label)
        for extent in extents:
            if isinstance(extent.source, Late):
                write_all(fd, extent.source.read(0, extent.length), extent.offset)
                report(Advanced(label, extent.length))


def write_content(content: Content, fd: int, report: Report = silent, label: str = "file", *, align: int = 1) -> None:
    """Write *content* into the empty file *fd* from its position 0; its size becomes a multiple of *align*.

    Its zeros, those at its end too, take no room. Raises as :func:`write_flat`.
    """
    with disk_errors():
        os.ftruncate(fd, round_up(content.size, align))
        write_extents(content_extents(content, 0, label), fd, report, label)


@contextlib.contextmanager
def hashing(files: Iterable[InputFile]) -> Iterator[None]:
    """Hash *files* in another thread while the block runs; it ends when all are hashed, or at once if it fails."""
    pending = [file for file in files if not file.hashed]
    if not pending:
        yield
        return
    stop = threading.Event()

    def work() -> None:
        # What fails here fails again, and is told, when the hash is asked for.
        with contextlib.suppress(RumpbundleError):
            for file in pending:
                file.sha256(stop)

    # A bare thread: concurrent.futures imports logging, which a small bundle need not wait for.
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
        while thread.is_alive():
            # Not without end: a signal that comes just before the wait would only be handled after it.
            thread.join(0.1)
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join()


def write_extents(extents: Iterable[Extent], fd: int, report: Report = silent, label: str = "disk") -> None:
    """Write *extents*, sorted and none of them :class:`Late`, at their offsets of *fd*."""
    batch = _Batch(fd)
    for extent in extents:
        source = extent.source
        assert not isinstance(source, Late)
        if isinstance(source, Literal):
            batch.add(extent.offset, source.data)
        elif source.file.size <= SMALL:
            batch.add(extent.offset, _read_small(source))
        else:
            # What is gathered must not bridge this extent: the zeros between would be written over it.
            batch.flush()
            _copy(source, fd, extent.offset, report, label)
            continue
        report(Advanced(label, extent.length))
    batch.flush()


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
    """Gathers neighbouring small extents, zero gaps below a sector group included, into one write."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._start = 0
        self._buffer = bytearray()

    def add(self, offset: int, data: bytes) -> None:
        gap = offset - self._start - len(self._buffer)
        if self._buffer and (gap < 0 or gap > 4096 or len(self._buffer) + gap + len(data) > CHUNK):
            self.flush()
        if not self._buffer:
            self._start, gap = offset, 0
        self._buffer += bytes(gap)
        self._buffer += data

    def flush(self) -> None:
        if self._buffer:
            write_all(self._fd, self._buffer, self._start)
            self._buffer = bytearray()


def write_all(fd: int, data: bytes | bytearray, offset: int) -> None:
    """Write all of *data* at *offset* of *fd*."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def _read_small(source: FileSlice) -> bytes:
    data = source.read(0, source.length)
    if not source.file.hashed and source.length == source.file.size:
        source.file.remember_sha256(hashlib.sha256(data).hexdigest())
    return data


def _copy(source: FileSlice, fd: int, offset: int, report: Report, label: str) -> None:
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
                count = _copy_range(
                    src, fd, min(stop - position, _COPY_STEP), position, position - source.start + offset
                )
                if not count:
                    raise InputError("changed while it was read (it is shorter now)", where=file.path)
                position += count
                report(Advanced(label, count))
        file.check(src)
    finally:
        os.close(src)


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
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(src, dst, count, src_offset, dst_offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
                raise
    data = os.pread(src, min(count, CHUNK), src_offset)
    write_all(dst, data, dst_offset)
    return len(data)


__all__ = ["disk_error", "disk_errors", "hashing", "write_all", "write_content", "write_extents", "write_flat"]
