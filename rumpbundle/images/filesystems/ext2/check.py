"""What is wrong with an ext2, ext3 or ext4: copies that differ, bitmaps that do not tell what the inodes do.

It is no e2fsck: times, owners, hashes and checksums are not looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from rumpbundle.errors import ImageError
from rumpbundle.images.budget import TooMuchError
from rumpbundle.images.filesystem import not_all
from rumpbundle.images.filesystems.ext2 import superblock
from rumpbundle.images.problem import Problem, Severity

if TYPE_CHECKING:
    from rumpbundle.images.filesystems.ext2 import Ext2

_MAX_BLOCKS = 1 << 26
"""Blocks (a bit and a byte of memory each) up to which the bitmaps are compared."""
_MAX_INODES = 1 << 22
_MAX_GROUPS = 1 << 17
_MAX_TOLD = 16
"""Findings of one kind."""
_BAD, _RESIZE = 1, 7
_INODE_UNINIT, _BLOCK_UNINIT = 1, 2
_STABLE = ((0, 8), (20, 44), (56, 58), (76, 80), (84, 90), (92, 120), (254, 256))
"""The parts of a superblock that do not change with use, but for ..."""
_SET_IN_USE = ((92, 0x8), (96, 0x44), (100, 0x1_0062))
"""... these bits: features that the kernel marks in the first only (e2fsck, super.c): extended attributes; a journal
to be replayed, extents; large files, many links, large inodes, orphans."""
_TOUCHED = ((12, 20), (48, 52), (64, 68))
"""Free blocks and inodes, times of the last write and check: they differ once a program has changed or checked it."""
_META_BG, _MMP, _BIG_CLUSTERS, _INLINE = 0x10, 0x100, 0x200, 0x10000000
_GROUP, _CHECKSUM = slice(90, 92), slice(1020, 1024)
_STATE = slice(58, 60)
"""Clean in the first; mke2fs leaves it at 0 in the others."""
_JOURNAL_COPY = slice(268, 336)
"""A copy of the journal's inode, which only the first superblock is sure to have."""


def problems(volume: Ext2) -> Iterator[Problem]:
    """Yield what is wrong with *volume*, with offsets of the file system."""
    yield from _copies(volume)
    try:
        yield from _bitmaps(volume)
    except TooMuchError as error:
        yield not_all("/", error)
    except ImageError as error:
        yield _problem(None, error.problem, "the bitmaps cannot be compared with the inodes")


def _problem(offset: int | None, what: str, consequence: str, severity: Severity = "damage") -> Problem:
    return Problem(where="ext2", offset=offset, what=what, consequence=consequence, severity=severity)


def _copies(volume: Ext2) -> Iterator[Problem]:
    """Compare the copies of the superblock and of the descriptors with the first."""
    sb, block = volume.superblock, volume.superblock.block_size
    mounted = sb.raw[44:48] != bytes(4)
    length = sb.groups * sb.descriptor_size
    first = sb.descriptor(0)
    compared = not sb.incompatible & _META_BG and length <= 1 << 20
    descriptors = volume.medium.read(first, length) if compared else b""
    told = 0
    for group in range(1, min(sb.groups, _MAX_GROUPS)):
        if not sb.has_copy(group) or told > _MAX_TOLD:
            continue
        at = (sb.first_block + group * sb.blocks_per_group) * block
        what = ""
        try:
            copy = volume.medium.read(at, superblock.SIZE)
            # Then all of it is as its maker left it.
            fresh = not mounted and all(sb.raw[low:high] == copy[low:high] for low, high in _TOUCHED)
            if not _same(sb.raw, copy, fresh):
                what = "a copy of the superblock differs from the first"
            elif compared and fresh and volume.medium.read(at + block, length) != descriptors:
                at += block
                what = "a copy of the group descriptors differs from the first"
        except ImageError:
            what = "a copy of the superblock is missing: the image ends before"
        if what:
            told += 1
            yield _problem(at, what, "a repair that starts from this copy destroys files")


def _same(first: bytes, copy: bytes, fresh: bool) -> bool:
    parts = [bytearray(first), bytearray(copy)]
    if not fresh:
        for part in parts:
            for at, bits in _SET_IN_USE:
                part[at : at + 4] = (int.from_bytes(part[at : at + 4], "little") & ~bits).to_bytes(4, "little")
        return all(parts[0][low:high] == parts[1][low:high] for low, high in _STABLE)
    for part in parts:
        for field in (_GROUP, _CHECKSUM, _JOURNAL_COPY, *((_STATE,) if copy[_STATE] == bytes(2) else ())):
            part[field] = bytes(field.stop - field.start)
    return parts[0] == parts[1]


def _bitmaps(volume: Ext2) -> Iterator[Problem]:
    """Compare what the bitmaps say with what the inodes take."""
    sb = volume.superblock
    large = sb.blocks > _MAX_BLOCKS or sb.inodes > _MAX_INODES or sb.groups > _MAX_GROUPS
    if sb.read_only & _BIG_CLUSTERS or large or sb.incompatible & superblock.RECOVER:
        return  # what the journal has to say of them comes first
    volume.budget = volume.fund()
    taken = bytearray(sb.blocks)
    for group in range(sb.groups):
        _take_structures(volume, group, taken)
    yield from islice(_crossed(volume, taken), _MAX_TOLD)
    yield from _compared(volume, taken)


def _crossed(volume: Ext2, taken: bytearray) -> Iterator[Problem]:
    """Note the blocks of every inode; yield what is wrong with them."""
    for number, inode in _inodes(volume):
        try:
            double = _take_inode(volume, number, inode, taken)
        except TooMuchError:
            raise
        except ImageError as error:
            yield _problem(volume.place_of_inode(number), f"inode {number}: {error.problem}", "it cannot be read")
            continue
        if double is not None:
            what = f"block {double} belongs to inode {number} and to something else"
            yield _problem(double * volume.superblock.block_size, what, "who writes to one damages the other")


def _take_structures(volume: Ext2, group: int, taken: bytearray) -> None:
    """Note the blocks that the structures of *group* take."""
    sb = volume.superblock
    first = sb.first_block + group * sb.blocks_per_group
    bitmap, inodes, table, _ = _descriptor(volume, group)
    if sb.has_copy(group):
        count = 1 if sb.incompatible & _META_BG else 1 + -(-sb.groups * sb.descriptor_size // sb.block_size)
        count += int.from_bytes(sb.raw[206:208], "little")
        _take(taken, first, count + (1 if sb.block_size == 1024 and not sb.first_block and not group else 0))
    if sb.incompatible & _META_BG:
        _take(taken, sb.descriptor(group) // sb.block_size, 1)
        per = sb.block_size // sb.descriptor_size
        for near in (group // per * per + 1, group // per * per + per - 1):
            if near == group:
                _take(taken, first + sb.has_copy(group), 1)
    if sb.incompatible & _MMP:
        _take(taken, int.from_bytes(sb.raw[360:368], "little"), 1)
    for start, count in ((bitmap, 1), (inodes, 1), (table, -(-sb.inodes_per_group * sb.inode_size // sb.block_size))):
        _take(taken, start, count)


def _descriptor(volume: Ext2, group: int) -> tuple[int, int, int, int]:
    """Return the block of the block bitmap, of the inode bitmap and of the inode table of *group*, and its flags."""
    sb = volume.superblock
    raw = volume.medium.read(sb.descriptor(group), sb.descriptor_size)
    low = struct.unpack_from("<III", raw)
    high = struct.unpack_from("<III", raw, 32) if sb.descriptor_size >= 64 else (0, 0, 0)
    flags = int.from_bytes(raw[18:20], "little") if sb.read_only & 0x410 else 0  # gdt_csum, metadata_csum
    bitmap, inodes, table = (h << 32 | w for w, h in zip(low, high, strict=True))
    return bitmap, inodes, table, flags


def _inodes(volume: Ext2) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the inodes in use."""
    sb = volume.superblock
    for group in range(sb.groups):
        _, bitmap, _, flags = _descriptor(volume, group)
        if flags & _INODE_UNINIT:
            continue
        used = volume.medium.read(bitmap * sb.block_size, -(-sb.inodes_per_group // 8))
        for index in range(sb.inodes_per_group):
            if used[index >> 3] >> (index & 7) & 1:
                number = group * sb.inodes_per_group + index + 1
                inode = volume.inode(number)
                if any(inode[:2]) or number < 11:
                    yield number, inode


def _take_inode(volume: Ext2, number: int, inode: bytes, taken: bytearray) -> int | None:
    """Note the blocks of *inode*; return one that is taken already."""
    sb = volume.superblock
    double = None
    attributes = int.from_bytes(inode[104:108], "little") | int.from_bytes(inode[118:120], "little") << 32
    if attributes and attributes < len(taken):
        taken[attributes] = 1  # shared by all inodes with the same attributes
    flags = int.from_bytes(inode[32:36], "little")
    mode = int.from_bytes(inode[:2], "little") & 0o170000
    short = mode == 0o120000 and volume.size_of(inode) < 60 and not flags & 0x80000
    kept = mode in (0o100000, 0o040000, 0o120000) or number == _BAD  # which holds the blocks that are bad
    if not kept or short or flags & _INLINE or not any(inode[40:100]):
        return None
    if number == _RESIZE:  # it maps blocks that are kept for descriptors, through one that is its own
        _take(taken, int.from_bytes(inode[92:96], "little"), 1)
        return None
    spans, others = volume.mapped(inode)
    runs = [(span.offset // sb.block_size, span.length // sb.block_size) for span in spans if span.offset is not None]
    for start, count in (*runs, *others):
        if number != _BAD and any(taken[start : start + count]):
            double = start + taken[start : start + count].index(1)
        _take(taken, start, count)
    return double


def _take(taken: bytearray, start: int, count: int) -> None:
    end = min(start + count, len(taken))
    if start < end:
        taken[start:end] = b"\1" * (end - start)


def _compared(volume: Ext2, taken: bytearray) -> Iterator[Problem]:
    sb = volume.superblock
    told = 0
    for group in range(sb.groups):
        bitmap, _, _, flags = _descriptor(volume, group)
        first = sb.first_block + group * sb.blocks_per_group
        mine = taken[first : first + sb.blocks_per_group]
        if flags & _BLOCK_UNINIT or not mine:
            continue
        at = bitmap * sb.block_size
        bits = volume.medium.read(at, -(-len(mine) // 8))
        says = b"".join(_SPREAD[byte] for byte in bits)[: len(mine)]
        if says == mine or told > _MAX_TOLD:
            continue
        told += 1
        index = next(n for n, (one, other) in enumerate(zip(says, mine, strict=True)) if one != other)
        if mine[index]:
            what, consequence = "is in use and marked as free", "whoever writes to the volume overwrites it"
        else:
            what, consequence = "is marked as used and belongs to no file", "the room is lost until e2fsck runs"
        yield _problem(at + index // 8, f"block {first + index} {what}", consequence)


_SPREAD = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))
"""The bits of each byte, a byte each."""
