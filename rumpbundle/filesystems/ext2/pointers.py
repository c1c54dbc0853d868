"""How an ext2 inode finds its blocks: twelve pointers of its own, then trees of blocks of pointers (§ Inode)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from rumpbundle.dataclass import dataclass
from rumpbundle.filesystems.ext2.geometry import BLOCK

POINTERS = BLOCK // 4
"""Pointers in a block of them."""
DIRECT = 12
"""Pointers in an inode, before those to one, two and three levels of blocks of pointers."""


@dataclass(frozen=True, slots=True)
class BlockRun:
    """*count* blocks of a file from *logical*, at *physical* of the disk."""

    logical: int
    physical: int
    count: int


def window(runs: list[BlockRun], start: int, count: int) -> array[int]:
    """Return the pointers of the *count* blocks from logical block *start*; 0 is a hole."""
    table = array("I", bytes(4 * count))
    for run in runs:
        low, high = max(run.logical, start), min(run.logical + run.count, start + count)
        if low < high:
            physical = run.physical + low - run.logical
            table[low - start : high - start] = array("I", range(physical, physical + high - low))
    return table


def little(table: array[int]) -> bytes:
    """Return *table* as little-endian 32-bit numbers on any machine."""
    if array("I", [1]).tobytes()[0] == 0:
        table = table[:]
        table.byteswap()
    return table.tobytes()


def blocks_needed(wanted: Sequence[tuple[int, int]]) -> int:
    """Return the blocks that the stretches *wanted* take, ``(logical, count)`` each, pointers included."""
    if len(wanted) == 1 and sum(wanted[0]) <= DIRECT:
        return wanted[0][1]
    blocks = sum(count for _, count in wanted)
    start = DIRECT
    for depth in (1, 2, 3):
        if not wanted or sum(wanted[-1]) <= start:
            break
        blocks += sum(_tables(wanted, start, depth, level) for level in range(1, depth + 1))
        start += POINTERS**depth
    return blocks


def _tables(wanted: Sequence[tuple[int, int]], start: int, depth: int, level: int) -> int:
    """Return how many blocks of pointers at *level* the tree of *depth* from logical block *start* needs."""
    span, step = POINTERS**depth, POINTERS**level
    count, last = 0, -1
    for logical, length in wanted:
        low, high = max(logical, start), min(logical + length, start + span)
        if low < high:
            first, final = (low - start) // step, (high - 1 - start) // step
            count += final - max(first, last + 1) + 1
            last = final
    return count
