"""What listing the files of an image may cost: one budget for all that is looked at together.

An image is hostile, and small ones can claim a lot: a kilobyte that all directories and block pointers lead to is a
million files. What a file system claims is checked against the medium first (two directories do not share their
bytes, a chain is no longer than there are clusters); a budget bounds the rest, so that no image takes more than some
seconds and some hundred megabytes.
"""

from __future__ import annotations

from typing import ClassVar

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.bounds import MAX_DIRECTORIES, MAX_ENTRIES, MAX_NAMES, name_cost
from rumpbundle.errors import ImageError

_POINTERS, _SPANS = 1 << 23, 1 << 18
MAX_UNPACKED = 1 << 28
"""Bytes of compressed files that are unpacked to see whether they are whole: a second, as long as some listings."""
_UNPACKED_COSTS = 4
"""Listings."""


class TooMuchError(ImageError):
    """More than is looked at, which a large disk that is whole may have."""


@dataclass(slots=True)
class Budget:
    """What is left of each; spending more than that is a :class:`TooMuchError`."""

    LISTINGS: ClassVar[int] = 8
    """How many listings may be spent on all file systems of one disk, for each is looked at several times."""

    entries: int = MAX_ENTRIES
    names: int = MAX_NAMES
    """Bytes of memory that paths and link targets take."""
    directories: int = MAX_DIRECTORIES
    """Bytes of directories, and of what continues their records elsewhere."""
    pointers: int = _POINTERS
    """Numbers of block maps, extent trees and cluster chains."""
    spans: int = _SPANS
    """Pieces that files are in."""
    unpacked: int = MAX_UNPACKED
    """Bytes to unpack; who has none left leaves the rest, and says so."""

    def entry(self, path: str, target: str) -> None:
        """Pay for one entry of a listing."""
        self.entries -= 1
        if self.entries < 0:
            raise TooMuchError(f"there are more than {MAX_ENTRIES} files and directories")
        self.names -= name_cost(path, target)
        if self.names < 0:
            raise TooMuchError("the names of all files together are longer than is sensible")

    def directory(self, size: int) -> None:
        """Pay for *size* bytes of directories."""
        self.directories -= size
        if self.directories < 0:
            raise TooMuchError("there are more bytes of directories than is sensible")

    def point(self, count: int) -> None:
        """Pay for following *count* numbers that say where a file goes on."""
        self.pointers -= count
        if self.pointers < 0:
            raise TooMuchError("finding all pieces of its files takes more steps than is sensible")

    def span(self) -> None:
        """Pay for one more piece of a file."""
        self.spans -= 1
        if self.spans < 0:
            raise TooMuchError("its files are in more pieces than is sensible")

    @property
    def spent(self) -> float:
        """What part of a listing's budget was spent: of what there is least left of."""
        return max(
            1 - self.entries / MAX_ENTRIES,
            1 - self.names / MAX_NAMES,
            1 - self.directories / MAX_DIRECTORIES,
            1 - self.pointers / _POINTERS,
            1 - self.spans / _SPANS,
            (1 - self.unpacked / MAX_UNPACKED) * _UNPACKED_COSTS,
        )
