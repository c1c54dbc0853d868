"""What every reader of a disk container gives: the disk's bytes at any offset, and facts about the container."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from rumpbundle.disk.content import InputFile
from rumpbundle.images.medium import Medium, check_bounds

Fact = str | int


class Disk:
    """A disk inside a container; itself a :class:`~rumpbundle.images.medium.Medium`.

    *size* is the disk's, in bytes. A container needs :meth:`locate`; one that compresses overrides :meth:`read_unit`.
    """

    others: tuple[InputFile, ...] = ()
    """The files besides the image itself in which the disk stands."""

    container: ClassVar[str]
    """The format's name, as ``rumpbundle formats`` has it, or ``vmdk (stream)`` and the like."""
    qemu: ClassVar[str] = ""
    """QEMU's driver for it; empty if QEMU is not to open it: then the disk has to be unpacked."""

    def __init__(self, medium: Medium, size: int) -> None:
        self.medium = medium
        self.size = size

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What the container says about itself, for people: ids, versions, creators."""
        return {}

    def locate(self, offset: int) -> tuple[int | None, int]:
        """Return where byte *offset* of the disk is in the file (None: nowhere, it is zero) and how many follow it.

        Raises:
            ImageError: a table is damaged.
        """
        raise NotImplementedError

    def read_unit(self, offset: int, length: int) -> bytes:
        """Return up to *length* and at least one of the bytes at *offset*, in the way that costs one access."""
        position, run = self.locate(offset)
        count = min(run, length)
        return bytes(count) if position is None else self.medium.read(position, count)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset* of the disk.

        Raises:
            ImageError: the disk ends before, or the container is damaged.
        """
        check_bounds(self, offset, length)
        parts: list[bytes] = []
        while length:
            part = self.read_unit(offset, length)
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class RawDisk(Disk):
    """A disk that stands in its file as it is."""

    container = "raw"
    qemu = "raw"

    def __init__(self, medium: Medium, size: int | None = None, start: int = 0) -> None:
        super().__init__(medium, medium.size - start if size is None else size)
        self._start = start

    def locate(self, offset: int) -> tuple[int | None, int]:
        return self._start + offset, self.size - offset
