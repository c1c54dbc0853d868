"""Something that can be read at any offset: an image file, a member of an archive, a disk, a partition.

Readers of finished images trust nothing they read: they ask a medium for what a field points at, and a medium refuses
what lies outside it *before* it allocates.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Protocol

from rumpbundle.errors import HostError, ImageError


class Medium(Protocol):
    """*size* bytes."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset*.

        Raises:
            ImageError: they are not all there.
        """
        ...


class FdMedium:
    """An open file that the caller keeps open, as large as it is now."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

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
        return parts[0] if len(parts) == 1 else b"".join(parts)


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
        raise ImageError(f"ends at byte {medium.size}, but something at {offset} of {length} bytes is asked for")


class Tables:
    """Reads numbers and records of big tables through a small cache of pages, so a giant table costs no memory."""

    PAGE = 4096
    KEPT = 256

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
