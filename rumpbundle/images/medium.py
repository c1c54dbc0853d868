"""Something that can be read at any offset: an image file, a member of an archive, a disk, a partition.

Readers of finished images trust nothing they read: they ask a medium for what a field points at, and a medium refuses
what lies outside it *before* it allocates.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Literal as OneOf
from typing import Protocol

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import FileSlice, Zeros
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import HostError, ImageError


@dataclass(frozen=True, slots=True)
class Run:
    """*length* bytes of a medium from *offset*, and what they are: a part of a file as it stands there, or zeros.

    A *source* of None says that they stand nowhere as they are (compressed, say): who wants them reads the medium.
    """

    offset: int
    length: int
    source: FileSlice | Zeros | None


class Medium(Protocol):
    """*size* bytes."""

    @property
    def size(self) -> int: ...

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        """Yield what *length* bytes from *offset* on (all, if not given) are made of, in order and without a gap.

        Holes of a file are zeros here. So where runs begin and end depends on the host; the bytes do not.

        Raises:
            ImageError: a table is damaged; perhaps only after some runs.
        """
        ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset*.

        Raises:
            ImageError: they are not all there.
        """
        ...


class FdMedium:
    """An open file that the caller keeps open, as large as it is now; *file* is what it was opened from."""

    def __init__(self, fd: int, file: InputFile | None = None, *, settled: bool = False) -> None:
        """With *settled* it is an error if what was read is no longer what *file* was at first."""
        self._fd = fd
        self._file = file
        self._settled = file if settled else None
        self.size = os.fstat(fd).st_size

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        length = self.size - offset if length is None else length
        check_bounds(self, offset, length)
        if self._file is None:
            yield from [Run(offset, length, None)] if length else []
            return
        end = offset + length
        while offset < end:
            data = min(self._next(offset, "SEEK_DATA", offset), end)
            if data > offset:
                yield Run(offset, data - offset, Zeros(data - offset))
            offset = min(self._next(data, "SEEK_HOLE", end), end)
            if offset > data:
                yield Run(data, offset - data, FileSlice(self._file, data, offset - data))

    def _next(self, offset: int, what: str, otherwise: int) -> int:
        """Return where the next data or hole from *offset* on begins; *otherwise* where the host cannot say."""
        whence = getattr(os, what, None)
        if whence is None or offset >= self.size:
            return otherwise
        try:
            return os.lseek(self._fd, offset, whence)
        except OSError as error:
            return self.size if error.errno == errno.ENXIO else otherwise

    def read(self, offset: int, length: int) -> bytes:
        check_bounds(self, offset, length)
        parts = []
        while length:
            try:
                part = os.pread(self._fd, length, offset)
            except OSError as error:
                raise HostError(f"cannot be read: {os.strerror(error.errno or 0)}") from None
            if not part:
                raise ImageError("became shorter while it was read")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        if self._settled is not None:
            self._settled.check(self._fd)
        return parts[0] if len(parts) == 1 else b"".join(parts)


@dataclass(frozen=True, slots=True)
class Piece:
    """*length* bytes at *offset* of a medium: those of another *medium* from *start*."""

    offset: int
    length: int
    medium: Medium
    start: int


class Window:
    """*size* bytes of another medium from *start*."""

    def __init__(self, medium: Medium, start: int, size: int, what: str = "a part") -> None:
        """Raises :class:`ImageError` if *medium* does not hold all of it."""
        if start < 0 or size < 0 or start + size > medium.size:
            raise ImageError(f"{what} at {start} of {size} bytes leaves the {medium.size} bytes there are")
        self._medium = medium
        self._start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        check_bounds(self, offset, length)
        return self._medium.read(self._start + offset, length)

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        length = self.size - offset if length is None else length
        check_bounds(self, offset, length)
        return moved(self._medium.runs(self._start + offset, length), -self._start)

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Yield what *length* bytes from *offset* on are of the other medium."""
        check_bounds(self, offset, length)
        yield Piece(offset, length, self._medium, self._start + offset)


class Patchwork:
    """*size* bytes laid out of pieces, in order and apart from each other; what none covers is zero."""

    def __init__(self, size: int, pieces: Iterable[Piece]) -> None:
        """Raises :class:`ImageError` if they are not in order, or one is not all there."""
        self.size = size
        self._pieces = tuple(pieces)
        self._ends = [piece.offset + piece.length for piece in self._pieces]
        before = 0
        for piece, end in zip(self._pieces, self._ends, strict=True):
            if piece.offset < before or end > size:
                raise ImageError(f"a part at {piece.offset} of {piece.length} bytes is out of place")
            check_bounds(piece.medium, piece.start, piece.length)
            before = end

    def _within(self, offset: int, end: int) -> Iterator[tuple[int, int, Piece | None]]:
        """Yield start and end of each stretch of *offset*..*end*, and the piece it is of, if it is of one."""
        index = bisect_right(self._ends, offset)
        while offset < end:
            piece = self._pieces[index] if index < len(self._pieces) else None
            if piece is None or piece.offset > offset:
                stop = end if piece is None else min(piece.offset, end)
                yield offset, stop, None
            else:
                stop = min(self._ends[index], end)
                yield offset, stop, piece
                index += 1
            offset = stop

    def read(self, offset: int, length: int) -> bytes:
        check_bounds(self, offset, length)
        return b"".join(
            bytes(end - start)
            if piece is None
            else piece.medium.read(piece.start + start - piece.offset, end - start)
            for start, end, piece in self._within(offset, offset + length)
        )

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        length = self.size - offset if length is None else length
        check_bounds(self, offset, length)
        for start, end, piece in self._within(offset, offset + length):
            if piece is None:
                yield Run(start, end - start, Zeros(end - start))
            else:
                by = piece.offset - piece.start
                yield from moved(piece.medium.runs(start - by, end - start), by)

    def pieces(self, offset: int, length: int) -> Iterator[Piece]:
        """Yield what *length* bytes from *offset* on are laid out of."""
        check_bounds(self, offset, length)
        for start, end, piece in self._within(offset, offset + length):
            if piece is not None:
                yield Piece(start, end - start, piece.medium, piece.start + start - piece.offset)


def moved(runs: Iterable[Run], by: int) -> Iterator[Run]:
    """Yield *runs* with *by* added to their offsets."""
    return (Run(run.offset + by, run.length, run.source) for run in runs)


def joined(runs: Iterable[Run]) -> Iterator[Run]:
    """Yield *runs* with neighbours that continue each other made one."""
    last: Run | None = None
    for run in runs:
        if last is None:
            last = run
            continue
        source = _followed(last.source, run.source)
        if source is False:
            yield last
            last = run
        else:
            last = Run(last.offset, last.length + run.length, source)
    if last is not None:
        yield last


def _followed(
    one: FileSlice | Zeros | None, two: FileSlice | Zeros | None
) -> FileSlice | Zeros | OneOf[False] | None:
    """Return *one* with *two* behind it as one source; False if *two* does not continue it."""
    match one, two:
        case None, None:
            return None
        case Zeros(), Zeros():
            return Zeros(one.length + two.length)
        case FileSlice(), FileSlice() if one.file is two.file and one.start + one.length == two.start:
            return FileSlice(one.file, one.start, one.length + two.length)
    return False


def place_of(medium: Medium) -> tuple[int, int] | None:
    """Return the open file *medium* is a part of, and where it begins there; None if it is unpacked from one."""
    match medium:
        case FdMedium(_fd=fd):
            return fd, 0
        case Window(_medium=outer, _start=start):
            place = place_of(outer)
            return place and (place[0], place[1] + start)
    return None


def check_bounds(medium: Medium, offset: int, length: int) -> None:
    """Raise :class:`ImageError` unless *medium* has *length* bytes at *offset*."""
    if offset < 0 or length < 0 or offset + length > medium.size:
        wanted = f"{length} bytes at {offset} are wanted"
        what = "the file " if isinstance(medium, FdMedium) else ""
        raise ImageError(f"{what}ends at byte {medium.size}, and {wanted}: it is cut off, or damaged")


class Tables:
    """Reads numbers and records of big tables through a small cache of pages, so a giant table costs no memory."""

    PAGE = 4096
    KEPT = 256
    AT_ONCE = 64 * PAGE
    """Bytes in which :meth:`same` looks for the same number."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._pages: OrderedDict[int, bytes] = OrderedDict()

    def number(self, offset: int, width: int, order: str) -> int:
        """Return the number of *width* bytes at *offset*; *order* is ``little`` or ``big``."""
        return int.from_bytes(self.record(offset, width), "big" if order == "big" else "little")

    def record(self, offset: int, length: int) -> bytes:
        """Return *length* bytes at *offset*: a record of a table."""
        check_bounds(self._medium, offset, length)
        index, at = divmod(offset, self.PAGE)
        data = self._page(index)[at : at + length]
        while len(data) < length:
            index += 1
            data += self._page(index)[: length - len(data)]
        return data

    def same(self, offset: int, most: int, number: bytes) -> int:
        """Return how many times in a row, *most* at most, *number* stands from *offset* on.

        Of a great many fewer are told, but not none: who looks here and there does not read all of a table each time.
        """
        position, end = offset, offset + min(most, (self._medium.size - offset) // len(number)) * len(number)
        if any(number):
            return (self._alike(position, end, number) - offset) // len(number)
        for run in self._medium.runs(offset, max(end - offset, 0)):
            if run.offset > position:
                break
            # A hole in the table: terabytes of nothing.
            hole = isinstance(run.source, Zeros)
            position = run.offset + run.length if hole else self._alike(position, run.offset + run.length, b"\0")
        return (position - offset) // len(number)

    def _alike(self, start: int, end: int, number: bytes) -> int:
        """Return where, from *start* on, *number* ceases to stand again and again, or has not been looked for."""
        position, end = start, min(end, start + self.AT_ONCE)
        while position < end:
            page, at = divmod(position, self.PAGE)
            data = self._page(page)[at : at + end - position]
            begun = (position - start) % len(number)  # a number may stand in two pages
            wanted = (number * (len(data) // len(number) + 2))[begun : begun + len(data)]
            if data != wanted:
                return position + next(
                    at for at, pair in enumerate(zip(data, wanted, strict=True)) if pair[0] != pair[1]
                )
            position += len(data)
        return end

    def _page(self, index: int) -> bytes:
        page = self._pages.get(index)
        if page is None:
            start = index * self.PAGE
            page = self._medium.read(start, min(self.PAGE, self._medium.size - start))
            self._pages[index] = page
            if len(self._pages) > self.KEPT:
                self._pages.popitem(last=False)
        else:
            self._pages.move_to_end(index)
        return page
