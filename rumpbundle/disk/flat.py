"""Write a layout as a plain file: the disk itself, sparse where the layout is."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeGuard

from rumpbundle.disk.content import CHUNK, Computed, Content, FileSlice, Late, Literal, Stored
from rumpbundle.disk.copying import Copier, WriteBuffer, write_all
from rumpbundle.disk.digest import hexdigest
from rumpbundle.disk.forked import SmallFiles
from rumpbundle.disk.hashing import Locate, Trail, trailing
from rumpbundle.disk.layout import DiskLayout, Extent, Named, round_up
from rumpbundle.errors import HostError, no_room
from rumpbundle.events import Advanced, Report, silent

SMALL = 256 << 10
"""Files up to this size are read once, hashed and written from the same buffer."""


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
    placed = iter(placed)
    with (
        trailing(large, fd, locate) as trail,
        Copier(fd, report, label, trail) as copier,
        SmallFiles(source for _, source in placed if _is_gathered(source)) as files,
    ):
        batch = WriteBuffer(fd, lambda count: report(Advanced(label, count)))
        for offset, source in placed:
            if isinstance(source, FileSlice):
                if not _is_gathered(source):
                    # What is gathered must not bridge this: the zeros between would be written over it.
                    batch.flush()
                    copier.copy(source, offset)
                    continue
                data = files.read(source)
                batch.add(offset, data)
                content = small.get(id(source)) if small else None
                if content is not None and not content.hashed:
                    content.remember(hexdigest(data))
            elif isinstance(source, Literal):
                batch.add(offset, source.data)
            else:
                assert isinstance(source, Computed)
                batch.flush()
                _write_computed(source, fd, offset, report, label, trail)
        batch.flush()


def _is_gathered(source: Stored) -> TypeGuard[FileSlice]:
    return isinstance(source, FileSlice) and source.file.size <= SMALL


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
        return HostError("the output's file system, or ulimit -f, does not take a file of this size")
    return HostError(f"cannot write the output: {os.strerror(error.errno or 0)}")


def _write_computed(source: Computed, fd: int, offset: int, report: Report, label: str, trail: Trail) -> None:
    for at in range(0, source.length, CHUNK):
        data = source.read(at, min(CHUNK, source.length - at))
        write_all(fd, data, offset + at)
        trail.arrived(offset + at + len(data))
        report(Advanced(label, len(data)))


__all__ = ["disk_error", "disk_errors", "write_all", "write_content", "write_extents", "write_flat"]
