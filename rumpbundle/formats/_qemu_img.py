"""qemu-img: the only place that knows its options, its quirks and which version will do.

It reads the disk without a raw copy of it: from a VMDK descriptor whose FLAT extents point into the input files
themselves and, for everything else, into one small sparse file. Neither has a name on any file system: the program
inherits them as open files, so it reads exactly those we have checked and nothing can be left behind.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from rumpbundle.disk.content import FileSlice
from rumpbundle.disk.flat import disk_errors, write_all, write_extents
from rumpbundle.disk.hashing import hashing
from rumpbundle.disk.inputfile import InputFile, close
from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, Extent, held
from rumpbundle.errors import HostError, ToolError
from rumpbundle.events import Advanced, Event, Waiting
from rumpbundle.formats._contract import Job
from rumpbundle.host.staging import StagedFile

OLDEST = (4, 2)
"""Older ones are in no supported distribution any more and were never tried."""

REFERENCED = MIB
"""Slices of input files from this size on are read in place; smaller ones are copied into the sparse file."""
MOST_REFERENCED = 200
"""qemu-img opens a file for each FLAT extent; two extents a slice stay well below the usual limit of 1024."""


def require() -> None:
    """Check that there is a qemu-img that will do.

    Raises:
        MissingToolError: it is not installed.
        HostError: it is too old.
        ToolError: it does not tell its version.
    """
    from rumpbundle.host import programs  # a variant of ours of such a format needs nothing that runs programs

    version = _version(programs.find("qemu-img"))
    if version < OLDEST:
        raise HostError(
            f"qemu-img {version[0]}.{version[1]} is too old",
            hint=f"install {OLDEST[0]}.{OLDEST[1]} or newer (on Debian and Ubuntu: sudo apt install qemu-utils)",
        )


@cache
def _version(path: str) -> tuple[int, int]:
    from rumpbundle.host import programs

    said = programs.run([path, "--version"]).decode("utf-8", "replace")
    match = re.search(r"version (\d{1,4})\.(\d{1,4})\b", said)
    if match is None:
        raise ToolError(f"qemu-img --version does not tell a version: {said[:80]!r}")
    return int(match[1]), int(match[2])


def convert(job: Job, out: StagedFile, driver: str, options: str = "") -> None:
    """Write the job's disk into *out* in qemu-img's format *driver*, with its ``-o`` *options*.

    What is :class:`~rumpbundle.disk.content.Late` in the layout is 0xFF in the result: the caller fills it in. The
    payload is hashed meanwhile. The result holds random ids and dates: the caller seals it.

    Raises:
        MissingToolError, HostError: see :func:`require`; no space is left.
        ToolError: qemu-img failed.
        InputError: an input file is gone or changed.
    """
    from rumpbundle.host import programs

    words = ["-o", options] if options else []
    with hashing(job.layout.named), _source(job.layout, job.output.parent) as (path, fds):
        require()
        try:
            # Absolute, for qemu-img takes what stands before the first colon of any other name for a protocol.
            result = os.path.abspath(out.path)
            argv = ["qemu-img", "convert", "-f", "vmdk", "-O", driver, *words, path, result]
            # The same from the disk as a file (``rumpbundle raw``): ours is read from files that have no names.
            pasted = ("qemu-img", "convert", "-f", "raw", "-O", driver, *words)
            shown = (*pasted, str(job.output.with_suffix(".raw")), str(job.output))
            programs.run(argv, report=_Watched(job, out.fd), pass_fds=fds, told=shown)
        except ToolError as error:
            if "No space left on device" in error.problem:
                raise HostError("no space left on the output's file system") from None
            raise
    # Whoever wants to stop us gets a word in before the file appears.
    job.report(Advanced(job.label, job.layout.payload))


class _Watched:
    """A ``report`` that also tells how the file *fd* grows, which is all that is seen of qemu-img's progress."""

    def __init__(self, job: Job, fd: int) -> None:
        self._job = job
        self._fd = fd
        self._seen = 0

    def __call__(self, event: Event) -> None:
        self._job.report(event)
        if isinstance(event, Waiting):
            written = os.fstat(self._fd).st_blocks * SECTOR
            self._job.report(Advanced(self._job.label, max(written - self._seen, 0)))
            self._seen = max(written, self._seen)


@contextlib.contextmanager
def _source(layout: DiskLayout, directory: Path) -> Iterator[tuple[str, list[int]]]:
    """Give the path of a VMDK descriptor that describes *layout*, and the open files a program needs to read it."""
    with contextlib.ExitStack() as stack:
        with disk_errors():
            rest = stack.enter_context(tempfile.TemporaryFile(dir=directory))
            text = stack.enter_context(tempfile.TemporaryFile(dir=directory))
        referenced, copied = _split(held(layout).extents)
        with disk_errors():
            os.ftruncate(rest.fileno(), layout.size)
            write_extents(copied, rest.fileno())
        fds = [rest.fileno()]
        lines = []
        position = 0
        opened: list[tuple[InputFile, int]] = []
        for extent in referenced:
            source = extent.source
            assert isinstance(source, FileSlice)
            fd = source.file.open()
            stack.callback(close, fd)
            opened.append((source.file, fd))
            fds.append(fd)
            lines.append(_flat(rest.fileno(), position, extent.offset - position))
            lines.append(_flat(fd, source.start, source.length))
            position = extent.end
        lines.append(_flat(rest.fileno(), position, layout.size - position))
        # No empty line may stand before the first extent: qemu-img (7.2) would read that extent twice.
        head = '# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\n'
        with disk_errors():
            write_all(text.fileno(), (head + "".join(lines)).encode("ascii"), 0)
        fds.append(text.fileno())
        yield f"/dev/fd/{text.fileno()}", fds
        for file, fd in opened:
            file.check(fd)


def _flat(fd: int, offset: int, length: int) -> str:
    return f'RW {length // SECTOR} FLAT "/dev/fd/{fd}" {offset // SECTOR}\n' if length else ""


def _split(extents: Sequence[Extent]) -> tuple[list[Extent], list[Extent]]:
    """Return the extents to read in place, whole sectors all of them, and those to copy; both sorted."""
    large = [e for e in extents if isinstance(e.source, FileSlice) and _in_place(e)]
    chosen = {id(e) for e in heapq.nlargest(MOST_REFERENCED, large, key=lambda e: e.length)}
    referenced, copied = [], []
    for extent in extents:
        if id(extent) not in chosen:
            copied.append(extent)
            continue
        source = extent.source
        assert isinstance(source, FileSlice)
        whole = source.length // SECTOR * SECTOR
        referenced.append(Extent(extent.offset, FileSlice(source.file, source.start, whole), extent.label))
        if whole < source.length:
            tail = FileSlice(source.file, source.start + whole, source.length - whole)
            copied.append(Extent(extent.offset + whole, tail, extent.label))
    return referenced, copied


def _in_place(extent: Extent) -> bool:
    source = extent.source
    assert isinstance(source, FileSlice)
    return source.length >= REFERENCED and not (source.start % SECTOR or extent.offset % SECTOR)
