"""What every reader of a disk container gives: the disk's bytes at any offset, and facts about the container."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

from rumpbundle.disk.content import Zeros
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium, Run, check_bounds, joined, moved
from rumpbundle.images.problem import Problem

Fact = str | int

_STEPS = 1 << 25
"""Steps through the tables of a disk: two terabytes in clusters of 64 KiB, and a minute."""
_EMPTY = 1 << 18
"""Steps to nothing, more than there are to something: readers tell terabytes of nothing in a few steps."""


class Where(NamedTuple):
    """Where a byte of a disk is in the container's file, and for how many bytes from it that holds."""

    position: int | None
    """None: nowhere, it is zero."""
    length: int
    packed: bool = False
    """What stands at *position* is compressed."""


class Disk:
    """A disk inside a container; itself a :class:`~rumpbundle.images.medium.Medium`.

    *size* is the disk's, in bytes. A container needs :meth:`locate`; one that compresses overrides :meth:`read_unit`.
    """

    sector_size: int | None = None
    """Bytes of a logical sector, in which the disk's partition tables count; None if the container does not say."""
    others: tuple[InputFile, ...] = ()
    """The files besides the image itself in which the disk stands."""
    around: tuple[str, ...] = ()
    """What the container stands in, from the outside: ``gzip``, ``xz``, ``bzip2`` or ``zstd``, then ``tar``."""

    outermost: Medium | None = None
    """The image's file."""
    path: str | None = None
    """Its name, for messages: of two images that are open it has to be told which one is damaged."""
    layers: tuple[Medium, ...] = ()
    """For each of these: of a compression what is inside, of an archive itself."""

    member: str = ""
    """The file of an archive it is in."""
    ambiguity: str = ""
    """What else in that archive may be meant."""

    expands: int = 1
    """The most bytes that one compressed byte of it can be."""

    container: ClassVar[str]
    """The format's name, as ``rumpbundle formats`` has it, or ``vmdk (stream)`` and the like."""
    qemu: str = ""
    """QEMU's driver for it; empty if QEMU is not to open it: then the disk has to be unpacked."""

    def __init__(self, medium: Medium, size: int) -> None:
        self.medium = medium
        self.size = size

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What the container says about itself, for people: ids, versions, creators."""
        return {}

    def locate(self, offset: int) -> Where:
        """Return where byte *offset* of the disk is.

        Raises:
            ImageError: a table is damaged.
        """
        raise NotImplementedError

    def packed_place(self, position: int) -> tuple[int, int]:
        """Return where in the file the compressed data at *position* stands, and the bytes it takes at most."""
        raise NotImplementedError

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        """Yield what *length* bytes from *offset* on are made of: see :class:`~rumpbundle.images.medium.Medium`."""
        length = self.size - offset if length is None else length
        check_bounds(self, offset, length)
        return joined(self._runs(offset, offset + length))

    def _runs(self, offset: int, end: int) -> Iterator[Run]:
        try:
            for start, (position, length, packed) in self.places(offset, end):
                if packed:
                    yield Run(start, length, None)
                elif position is None:
                    yield Run(start, length, Zeros(length))
                else:
                    yield from moved(self.medium.runs(position, length), start - position)
        except ImageError as error:
            raise self._blamed(error) from None

    def places(self, offset: int, end: int) -> Iterator[tuple[int, Where]]:
        """Yield offset and place of all that is between *offset* and *end*, as one what follows on in the file.

        Raises:
            ImageError: a table is damaged, or used again and again: the disk of a small file would have no end.
        """
        named = steps = empty = 0
        while offset < end:
            position, length, packed = self.locate(offset)
            steps += 1
            while position is not None and not packed and offset + length < end:
                following = self.locate(offset + length)
                if following.packed or following.position != position + length:
                    break
                length += following.length
                steps += 1
            length = min(length, end - offset)
            if position is None:
                empty += 1
            else:
                empty -= 1
                named += -(-length // self.expands) if packed else length
            if named > self.medium.size or steps > _STEPS or empty > _EMPTY:
                much = "name more bytes than its file can hold: it is cut off, or damaged"
                what = much if named > self.medium.size else "are longer than any"
                raise ImageError(f"the tables of its {self.container} {what}", hint="rumpbundle verify looks closer")
            yield offset, Where(position, length, packed)
            offset += length

    def _blamed(self, error: ImageError) -> ImageError:
        """Return *error* as one of this image, if it names none."""
        return error if error.where is not None else type(error)(error.problem, where=self.path, hint=error.hint)

    def problems(self) -> Iterator[Problem]:
        """Yield all that is wrong with the container, with offsets of its file; what its disk holds is not looked at.

        Raises:
            ImageError: a table cannot be read; what follows it was not looked at.
        """
        return iter(())

    def read_unit(self, offset: int, length: int) -> bytes:
        """Return up to *length* and at least one of the bytes at *offset*, in the way that costs one access."""
        position, run, _ = self.locate(offset)
        count = min(run, length)
        return bytes(count) if position is None else self.medium.read(position, count)

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset* of the disk.

        Raises:
            ImageError: the disk ends before, or the container is damaged.
        """
        check_bounds(self, offset, length)
        parts: list[bytes] = []
        try:
            while length:
                part = self.read_unit(offset, length)
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except ImageError as error:
            raise self._blamed(error) from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


class RawDisk(Disk):
    """A disk that stands in its file as it is."""

    container = "raw"
    qemu = "raw"

    def __init__(self, medium: Medium, size: int | None = None, start: int = 0) -> None:
        super().__init__(medium, medium.size - start if size is None else size)
        self._start = start

    def locate(self, offset: int) -> Where:
        return Where(self._start + offset, self.size - offset)


class IsoDisk(RawDisk):
    """A CD image, or a hybrid that is called one: the same bytes as a raw disk."""

    container = "iso"
