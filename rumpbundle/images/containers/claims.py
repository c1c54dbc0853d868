"""Which bytes of a container's file belong to what: nothing may belong to two, and what is free should be empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rumpbundle.images.disk import Disk
from rumpbundle.images.problem import Problem

_MOST = 1 << 19
"""Steps through the tables of a disk, so that none of petabytes takes longer than some seconds."""
_MOST_TOLD = 16


class Claim(NamedTuple):
    """The bytes *start*..*end* of the file belong to *what*."""

    start: int
    end: int
    what: str


class Claims:
    """What claims the bytes of a file of *size* bytes; *where* names the container for people."""

    def __init__(self, where: str, size: int) -> None:
        self.where = where
        self.size = size
        self.whole = True
        """Whether all of the disk was looked at."""
        self.packed = False
        """Whether some of the disk stands compressed, which is not among the claims."""
        self._claims: list[Claim] = []

    def add(self, start: int, length: int, what: str) -> None:
        """Let *length* bytes from *start* belong to *what*."""
        last = self._claims[-1] if self._claims else None
        if last is not None and last.what == what and last.end == start:
            self._claims[-1] = Claim(last.start, start + length, what)
        elif len(self._claims) >= _MOST:
            self.whole = False
        elif length:
            self._claims.append(Claim(start, start + length, what))

    def add_mapped(self, disk: Disk, what: str = "a block") -> int:
        """Let all that *disk*'s tables name as it is belong to *what*; return how many they name."""
        count = 0
        for _, position, length in self.mapped(disk):
            self.add(position, length, what)
            count += 1
        return count

    def first(self, what: str) -> int | None:
        """Return where the first begins of what belongs to *what*."""
        return min((claim.start for claim in self._claims if claim.what == what), default=None)

    def mapped(self, disk: Disk) -> Iterator[tuple[int, int, int]]:
        """Yield place on the disk, place in the file, and length of all that stands there as it is."""
        offset = 0
        for _ in range(_MOST):
            if offset >= disk.size:
                return
            position, length, packed = disk.locate(offset)
            self.packed = self.packed or packed
            if position is not None and not packed:
                yield offset, position, length
            offset += length
        self.whole = False

    def problems(self) -> Iterator[Problem]:
        """Yield what two claim, and what lies behind the end of the file."""
        told = 0
        before: Claim | None = None
        for claim in sorted(self._claims):
            found = ""
            if before is not None and claim.start < before.end:
                found = f"{claim.what} and {before.what} share bytes from here on"
                consequence = "one of them is read for the other, and who writes to one damages the other"
            elif claim.end > self.size:
                found = f"{claim.what} ends behind the end of the file, at byte {self.size}"
                consequence = "a part of the disk cannot be read"
            if found:
                yield Problem(where=self.where, offset=claim.start, what=found, consequence=consequence)
                told += 1
                if told >= _MOST_TOLD:
                    return
            if before is None or claim.end > before.end:
                before = claim
        if not self.whole:
            what = "it has more blocks than are compared with each other"
            yield Problem(
                where=self.where, offset=None, what=what, consequence="two may share bytes", severity="remark"
            )

    def free(self) -> Iterator[tuple[int, int]]:
        """Yield start and end of what nothing claims, in order."""
        position = 0
        for claim in sorted(self._claims):
            if claim.start > position:
                yield position, min(claim.start, self.size)
            position = max(position, claim.end)
        if position < self.size:
            yield position, self.size
