"""Where the blocks of a file stand: pointers and blocks of pointers (ext2), or a tree of extents (ext4).

Both walk what the image claims, so both know each block of the map only once, find no block outside the medium, and
pay for every number they follow.
"""

from __future__ import annotations

import struct
from array import array

from rumpbundle.errors import ImageError
from rumpbundle.images.budget import Budget
from rumpbundle.images.filesystem import Span, Spans
from rumpbundle.images.medium import Medium

_MAX_LEVELS = 5
"""Of an extent tree: deeper ones would map more than 32 bits of blocks."""
_INITIALISED = 32768
"""A longer extent is preallocated: its blocks hold nothing yet and read as zeros."""
_LEAST = 4096
"""Bytes that a block of the map costs at least: smaller ones take no less time."""
_LITTLE = array("I", [1]).tobytes()[0] == 1


class Map:
    """Collects the spans of one file of *size* bytes in blocks of *block* bytes, of *blocks* that there are."""

    def __init__(self, medium: Medium, budget: Budget, block: int, blocks: int, size: int) -> None:
        self._medium = medium
        self._budget = budget
        self._block = block
        self._blocks = min(blocks, medium.size // block)
        self._wanted = -(-size // block)
        self._done = 0
        """Blocks of the file that have a place."""
        self._spans: list[Span] = []
        self.own: set[int] = set()
        """Blocks of the map itself."""
        self.kept: list[tuple[int, int]] = []
        """First block and number of what is the file's and holds nothing of it: preallocated, or behind its end."""

    def pointers(self, inode: bytes) -> Spans:
        """Return the spans by the 15 numbers *inode*: 12 of blocks, 3 of blocks of pointers in 1, 2 and 3 levels."""
        numbers = struct.unpack("<15I", inode)
        self._run(array("I", numbers[:12]))
        for depth, number in enumerate(numbers[12:], 1):
            self._indirect(number, depth)
        if self._done < self._wanted:
            raise ImageError("ext2: a file is larger than its block map")
        return tuple(self._spans)

    def _indirect(self, number: int, depth: int) -> None:
        """Add what the block of pointers *number* maps, *depth* levels above the data."""
        if self._done >= self._wanted:
            return
        per_block = self._block // 4
        if not number:
            self._add(None, per_block**depth)
            return
        data = self._map_block(number)
        if data == bytes(self._block):
            self._add(None, per_block**depth)
            return
        table = array("I", data)
        if not _LITTLE:
            table.byteswap()
        if depth == 1:
            self._run(table)
            return
        self._budget.point(len(table))
        for each in table:
            self._indirect(each, depth - 1)

    def _map_block(self, number: int) -> bytes:
        if number in self.own:
            raise ImageError(f"ext2: block {number} is in two places of a file's block map")
        self.own.add(number)
        self._budget.point(max(self._block, _LEAST) // 32)
        self._check(number, 1)
        return self._medium.read(number * self._block, self._block)

    def _run(self, table: array[int]) -> None:
        """Add the blocks that *table* names, holes where it says 0."""
        table = table[: self._wanted - self._done]
        if not table:
            return
        first = table[0]
        if first and first + len(table) <= 1 << 32 and table == array("I", range(first, first + len(table))):
            self._add(first, len(table))
            return
        self._budget.point(len(table))
        at = 0
        while at < len(table):
            first, start = table[at], at
            at += 1
            while at < len(table) and table[at] == (first + at - start if first else 0):
                at += 1
            self._add(first or None, at - start)

    def extents(self, root: bytes) -> Spans:
        """Return the spans by the extent tree whose *root* stands in the inode."""
        self._node(root, None)
        self._add(None, self._wanted - self._done)
        return tuple(self._spans)

    def _node(self, node: bytes, level: int | None) -> None:
        magic, entries, depth = struct.unpack_from("<HH2xH", node)
        if magic != 0xF30A or (depth > _MAX_LEVELS if level is None else depth != level):
            raise ImageError("ext4: an extent tree is damaged")
        if 12 + 12 * entries > len(node):
            raise ImageError(f"ext4: a node of an extent tree claims {entries} entries")
        self._budget.point(entries)
        for at in range(12, 12 + 12 * entries, 12):
            if depth:
                low, high = struct.unpack_from("<4xIH", node, at)
                self._node(self._map_block(high << 32 | low), depth - 1)
                continue
            logical, count, high, low = struct.unpack_from("<IHHI", node, at)
            if logical < self._done and count:
                raise ImageError("ext4: the extents of a file overlap")
            self._add(None, min(logical, self._wanted) - self._done)
            first = high << 32 | low
            if count > _INITIALISED:
                count -= _INITIALISED
                self.kept.append((first, count))
                self._add(None, count)
            else:
                inside = min(count, self._wanted - self._done)
                self.kept.append((first + inside, count - inside))
                self._add(first, inside)

    def _add(self, number: int | None, count: int) -> None:
        """Let the next *count* blocks of the file be those from block *number*, or a hole."""
        count = min(count, self._wanted - self._done)
        if count <= 0:
            return
        self._done += count
        length = count * self._block
        if number is not None:
            self._check(number, count)
        offset = None if number is None else number * self._block
        last = self._spans[-1] if self._spans else None
        if last is not None and _continues(last, offset):
            self._spans[-1] = Span(last.offset, last.length + length)
            return
        self._budget.span()
        self._spans.append(Span(offset, length))

    def _check(self, number: int, count: int) -> None:
        if not 0 < number <= self._blocks - count:
            raise ImageError(f"ext2: block {number + count - 1} does not exist")


def _continues(last: Span, offset: int | None) -> bool:
    if last.offset is None or offset is None:
        return last.offset is offset
    return last.offset + last.length == offset
