"""Read a VMDK whose descriptor lays the disk out of other files: flat, split into parts, or both.

A descriptor may name any file. Only plain names in its own directory are opened, and no link.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from rumpbundle.disk.inputfile import InputFile, close
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError, InputError, one_line
from rumpbundle.images.containers.vmdk import open_vmdk
from rumpbundle.images.containers.vmdk_descriptor import Descriptor, ExtentLine, parse
from rumpbundle.images.disk import Fact, RawDisk
from rumpbundle.images.medium import FdMedium, Medium, Patchwork, Piece, Run

_MAX_BYTES = 2 << 20
_MAX_EXTENTS = 32 << 10
"""Extents of 2 GB of the largest disk there is."""
_FLAT = {"FLAT", "VMFS"}


class ImageDirectory:
    """The directory an image stands in, for the files that belong to it; the caller closes it."""

    _FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)

    def __init__(self, path: str) -> None:
        self.path = path or "."
        self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))

    def close(self) -> None:
        close(self._fd)

    def open(self, name: str) -> int:
        """Return a descriptor of the file *name*, which the caller closes; a link is not followed."""
        try:
            return os.open(name, self._FLAGS, dir_fd=self._fd)
        except (OSError, ValueError) as error:
            reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "no usable name"
            if isinstance(error, OSError) and os.path.islink(os.path.join(self.path, name)):
                reason = "is a symbolic link"
            raise ImageError(f"VMDK: its part {one_line(name)} cannot be opened: {reason}") from None

    def file(self, name: str) -> InputFile:
        """Return the file *name*, a plain name, as it is now.

        Raises:
            ImageError: it is not plain, missing, or no regular file.
        """
        if not name or name in (".", "..") or set(name) & {"/", "\\", "\0"}:
            raise ImageError(
                f"VMDK: its part “{one_line(name)}” is not in its own directory",
                hint="an image may not name other files of this machine; qemu-img convert makes one file of your own",
            )
        fd = self.open(name)
        try:
            return InputFile(os.path.join(self.path, name), os.fstat(fd))
        except InputError as error:
            raise ImageError(f"VMDK: its part {one_line(name)} {error.problem}") from None
        finally:
            close(fd)


class _Part:
    """A file beside the image, opened for each read: a disk may stand in more files than one may hold open."""

    def __init__(self, directory: ImageDirectory, name: str) -> None:
        self.file = directory.file(name)
        self.size = self.file.size
        self._directory = directory
        self._name = name

    def read(self, offset: int, length: int) -> bytes:
        with self._opened() as medium:
            return medium.read(offset, length)

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        with self._opened() as medium:
            yield from medium.runs(offset, length)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[FdMedium]:
        fd = self._directory.open(self._name)
        try:
            self.file.check(fd)
            yield FdMedium(fd, self.file)
        finally:
            close(fd)


class SplitVmdk(RawDisk):
    """A disk that a descriptor lays out of other files."""

    container: ClassVar[str] = "vmdk (split)"
    sector_size = SECTOR
    qemu = ""

    def __init__(self, medium: Patchwork, descriptor: Descriptor, others: tuple[InputFile, ...]) -> None:
        super().__init__(medium)
        self.others = others
        self._descriptor = descriptor

    @property
    def facts(self) -> Mapping[str, Fact]:
        return {**self._descriptor.facts, "files": len(self.others)}


def open_split(medium: Medium, beside: ImageDirectory | None) -> SplitVmdk:
    """Read the disk that the descriptor in *medium* lays out of files in the directory *beside* it.

    Raises:
        ImageError: a part is missing, damaged, or not where one may be.
    """
    if medium.size > _MAX_BYTES:
        raise ImageError(f"VMDK: a descriptor of {medium.size} bytes")
    found = parse(medium.read(0, medium.size).split(b"\0")[0].decode("utf-8", "surrogateescape"))
    found.check_parent()
    if not sum(extent.sectors for extent in found.extents) or len(found.extents) > _MAX_EXTENTS:
        raise ImageError(f"VMDK: a descriptor of {len(found.extents)} parts and no disk")
    if beside is None:
        raise ImageError(
            "VMDK: a descriptor in an archive, whose parts are not read there", hint="unpack the archive"
        )
    files: dict[str, _Part] = {}
    named: dict[str, int] = {}
    pieces: list[Piece] = []
    offset = 0
    for extent in found.extents:
        length = extent.sectors * SECTOR
        if extent.type != "ZERO":
            if extent.type not in _FLAT | {"SPARSE"} or extent.access == "NOACCESS":
                raise ImageError(f"VMDK: a part of type {extent.access} {extent.type}, which is not read")
            part = files.get(extent.name) or files.setdefault(extent.name, _Part(beside, extent.name))
            pieces.append(_piece(extent, part, offset, length))
            named[extent.name] = named.get(extent.name, 0) + length
            if named[extent.name] > pieces[-1].medium.size:
                # Again and again: the disk of a small file would have no end.
                raise ImageError(f"VMDK: its part {one_line(extent.name)} is named for more bytes than it has")
        offset += length
    return SplitVmdk(Patchwork(offset, pieces), found, tuple(part.file for part in files.values()))


def _piece(extent: ExtentLine, part: _Part, offset: int, length: int) -> Piece:
    name = one_line(extent.name)
    start = 0 if extent.type == "SPARSE" else extent.start * SECTOR
    try:
        whole: Medium = open_vmdk(part) if extent.type == "SPARSE" else part
    except ImageError as error:
        raise ImageError(f"its part {name}: {error.problem}", hint=error.hint) from None
    if start + length > whole.size:
        raise ImageError(f"VMDK: its part {name} ends at byte {whole.size}, {start + length} are needed")
    return Piece(offset, length, whole, start)
