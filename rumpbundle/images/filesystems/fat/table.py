"""One copy of the file allocation table: which cluster follows which."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from rumpbundle.errors import ImageError
from rumpbundle.images.budget import Budget
from rumpbundle.images.filesystems.fat.boot import BootSector
from rumpbundle.images.medium import Medium

_PAGE = 3 << 14
"""Bytes read at once; whole numbers of 12, 16 and 32 bits."""
_LITTLE = array("I", [1]).tobytes()[0] == 1


class FatTable:
    """The copy *number* of the table of *boot* on *medium*."""

    def __init__(self, medium: Medium, boot: BootSector, number: int) -> None:
        self._medium = medium
        self._boot = boot
        self._start = boot.table + number * boot.table_size
        self._first = -1
        """The cluster that the page at hand begins with."""
        self._page: array[int] = array("I")

    @property
    def _last(self) -> int:
        """The least number that ends a chain."""
        return {12: 0xFF8, 16: 0xFFF8, 32: 0xFFFFFF8}[self._boot.bits]

    def next(self, cluster: int) -> int:
        """Return what the table says for *cluster*: the next one, or a value that is none."""
        per_page = _PAGE * 8 // self._boot.bits
        first = cluster // per_page * per_page
        if first != self._first:
            self._page, self._first = self.numbers(first, per_page), first
        return self._page[cluster - first]

    def numbers(self, first: int, count: int) -> array[int]:
        """Return the numbers of *count* clusters from *first*, as far as there are so many."""
        bits = self._boot.bits
        count = min(count, self._boot.clusters + 2 - first)
        at, length = first * bits // 8, -(-count * bits // 8)
        data = self._medium.read(self._start + at, length)
        if bits == 12:
            pairs = data + bytes(-len(data) % 3)
            numbers = array("I")
            for low, middle, high in zip(pairs[::3], pairs[1::3], pairs[2::3], strict=True):
                numbers.append(low | (middle & 15) << 8)
                numbers.append(middle >> 4 | high << 4)
            return numbers[:count]
        table = array("H" if bits == 16 else "I", data)
        if not _LITTLE:
            table.byteswap()
        return array("I", table) if bits == 16 else array("I", [number & 0xFFFFFFF for number in table])

    def runs(self, cluster: int, wanted: int, budget: Budget) -> Iterator[tuple[int, int]]:
        """Yield first cluster and length of each run of the chain from *cluster*, up to *wanted* clusters of it.

        Raises:
            ImageError: the chain leaves the volume, or is a loop.
        """
        most, steps, mark, renewed = self._boot.clusters + 2, 0, 0, 1
        while cluster and cluster < self._last:
            first = cluster
            while True:
                if not 2 <= cluster < most:
                    raise ImageError(f"FAT: cluster {cluster} does not exist")
                following = self.next(cluster)
                steps += 1
                if steps & 0xFFFF == 0:
                    budget.point(0x10000)
                if following != cluster + 1 or steps >= wanted:
                    break
                cluster = following
            budget.point(1)
            # Brent: whoever comes by the mark again, set anew after 1, 2, 4 … runs, goes in circles.
            if first == mark:
                raise ImageError(f"FAT: the chain of clusters is a loop at cluster {cluster}")
            renewed -= 1
            if not renewed:
                mark, renewed = first, max(2 * steps, 2)
            yield first, cluster + 1 - first
            if steps >= wanted:
                return
            cluster = following
