"""What is wrong with an ISO 9660: numbers that differ by byte order, path tables that miss the directories."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.bounds import MAX_DIRECTORY
from rumpbundle.errors import ImageError
from rumpbundle.images.budget import MAX_UNPACKED, TooMuchError
from rumpbundle.images.filesystem import not_all
from rumpbundle.images.problem import Problem, Severity

if TYPE_CHECKING:
    from rumpbundle.images.filesystems.iso9660 import Iso9660

_SECTOR = 2048
_BOTH32, _BOTH16 = (80, 132, 158, 166), (120, 124, 128)
"""Offsets in the primary volume descriptor of numbers in both byte orders."""
_DIRECTORY = 2
_MAX_TOLD = 16
_MAX_TABLE = 1 << 22


@dataclass(frozen=True, slots=True)
class _Found:
    """A directory as its records have it: its name there, its block, and its parent's."""

    name: bytes
    block: int
    parent: int


def problems(volume: Iso9660) -> Iterator[Problem]:
    """Yield what is wrong with *volume*, with offsets of the file system."""
    at, primary = 16 * _SECTOR, volume.primary
    yield from _both_orders(primary, at, _BOTH32, _BOTH16)
    if primary[6] != 1:
        yield _problem(at + 6, f"a volume descriptor of version {primary[6]}", "readers may refuse it")
    if volume.boot_record:
        yield from _boot(volume)
    told: list[Problem] = []
    try:
        found = list(_directories(volume, told))
    except TooMuchError as error:
        yield not_all("/", error)
        return
    except ImageError as error:
        yield _problem(None, error.problem, "its path tables cannot be compared with its directories")
        return
    yield from told
    yield from _tables(volume, found)


def unpacked_in_part() -> Problem:
    """Return what to say where compressed files hold more than is unpacked."""
    what = f"its compressed files hold more than the {MAX_UNPACKED >> 20} MiB that are unpacked to check them"
    ends = "whether the others are whole was not looked at"
    return _problem(None, what, ends, "remark")


def _problem(offset: int | None, what: str, consequence: str, severity: Severity = "damage") -> Problem:
    return Problem(where="ISO 9660", offset=offset, what=what, consequence=consequence, severity=severity)


def _both_orders(data: bytes, at: int, longs: tuple[int, ...], shorts: tuple[int, ...]) -> Iterator[Problem]:
    for width, places in ((4, longs), (2, shorts)):
        for place in places:
            little = int.from_bytes(data[place : place + width], "little")
            big = int.from_bytes(data[place + width : place + 2 * width], "big")
            if little != big:
                what = f"a number is {little} in little-endian and {big} in big-endian order"
                yield _problem(at + place, what, "systems that read the other one find something else")


def _boot(volume: Iso9660) -> Iterator[Problem]:
    at = int.from_bytes(volume.boot_record[71:75], "little") * _SECTOR
    try:
        entries = volume.boot_entries
    except ImageError as error:
        yield _problem(at, error.problem, "firmware does not start from this CD")
        return
    for entry in entries:
        if entry.offset + entry.size > volume.medium.size:
            yield _problem(
                at, f"a {entry.platform} boot entry leaves the disk", "firmware does not start from this CD"
            )


def _directories(volume: Iso9660, told: list[Problem]) -> Iterator[_Found]:
    """Yield all directories as ISO 9660 itself has them; what is wrong with their records is added to *told*."""
    block, length = struct.unpack_from("<I4xI", volume.primary, 158)
    stack = [_Found(b"\0", block, block)]
    lengths = {block: length}
    budget = volume.fund()
    while stack:
        here = stack.pop()
        yield here
        length = lengths[here.block]
        if length > MAX_DIRECTORY:
            larger = length > volume.medium.size
            raise (ImageError if larger else TooMuchError)(f"the directory at block {here.block} has {length} bytes")
        budget.directory(length)
        data = volume.medium.read(here.block * volume.block, length)
        for number, (at, record) in enumerate(_records(data)):
            place = here.block * volume.block + at
            if len(told) < _MAX_TOLD:
                told += _both_orders(record, place, (2, 10), (28,))
            child, size = struct.unpack_from("<I4xI", record, 2)
            if number < 2:
                wanted = here.block if number == 0 else here.parent
                if child != wanted and len(told) < _MAX_TOLD:
                    what = f"a directory's record of {'itself' if number == 0 else 'its parent'} names block {child}"
                    # genisoimage relocates deep directories so; nobody goes by it, as the path tables are right.
                    severity: Severity = "damage" if number == 0 else "remark"
                    lost = "who goes up from there gets lost"
                    told.append(_problem(place + 2, f"{what}, not {wanted}", lost, severity))
            elif record[25] & _DIRECTORY and child not in lengths:
                lengths[child] = size
                stack.append(_Found(record[33 : 33 + record[32]], child, here.block))


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        size = data[at]
        whole = size >= 34 and at + size <= len(data)
        if whole:
            yield at, data[at : at + size]
        at = at + size if whole else (at // _SECTOR + 1) * _SECTOR


def _tables(volume: Iso9660, found: list[_Found]) -> Iterator[Problem]:
    """Compare both path tables with the directories *found*."""
    size = min(int.from_bytes(volume.primary[132:136], "little"), _MAX_TABLE)
    wanted = {(each.name, each.block, each.parent) for each in found}
    for order, place in (("<", 140), (">", 148)):
        kind = "little-endian" if order == "<" else "big-endian"
        block = struct.unpack_from(f"{order}I", volume.primary, place)[0]
        if not block:
            yield _problem(16 * _SECTOR + place, f"there is no {kind} path table", "some systems find no directories")
            continue
        at = block * volume.block
        try:
            said = _table(volume.medium.read(at, size), order)
        except (ImageError, IndexError, struct.error):
            yield _problem(at, f"the {kind} path table is damaged", "some systems find no directories")
            continue
        if said != wanted:
            what = f"the {kind} path table and the directories name different ones"
            yield _problem(at, what, "systems that go by the table miss files")


def _table(data: bytes, order: str) -> set[tuple[bytes, int, int]]:
    """Return name, block and parent's block of every directory in a path table."""
    blocks: list[int] = []
    found = set()
    at = 0
    while at + 8 <= len(data):
        length = data[at]
        block, parent = struct.unpack_from(f"{order}IH", data, at + 2)
        block += data[at + 1]
        blocks.append(block)
        found.add((data[at + 8 : at + 8 + length], block, blocks[parent - 1]))
        at += 8 + length + length % 2
    return found
