"""What qemu-img wrote, compared with what it was to write: it may end with status 0 and have failed all the same.

Covered are, by our own reader of the format and before anything is sealed:

- the container's structure: all its reader finds wrong with it, and that the file ends where its tables say;
- the map: every stretch that is not zero has a place in the file, nothing outside the planned has one, and no two
  share one;
- the content: all of a disk with up to :data:`WHOLE` bytes of payload. Of a larger one everything that is not a part
  of an input file, all that is to be zero in a place, and of every 64 KiB of the input files one page; what is wrong
  elsewhere in them shows when the image is verified by the digests in its manifest.
"""

from __future__ import annotations

from collections.abc import Iterator

from rumpbundle.disk.content import FileSlice
from rumpbundle.disk.layout import MIB, DiskLayout, LayoutReader, held
from rumpbundle.formats._seal import expect
from rumpbundle.images.disk import Disk

WHOLE = 64 * MIB
"""Bytes of payload up to which all of it is compared."""
_STEP = 64 << 10
_PAGE = 4096
_STRIDE = 7
"""From step to step another page is looked at; prime to the number of pages, so that every one has its turn."""


def compare(layout: DiskLayout, disk: Disk, *, unit: int, least: int = 0, behind: int = 0) -> None:
    """Raise :class:`ToolError` unless *disk* is *layout*, with 0xFF for what is late.

    Its tables give places to *unit* bytes each and end at byte *least* of the file (0 if that depends on the version
    of qemu-img); *behind* bytes follow the last unit.
    """
    for problem in disk.problems():
        expect(problem.severity != "damage", str(problem))
    placed = list(_placed(disk))
    ends = max((position - offset % unit + unit for offset, position, _ in placed), default=0)
    wanted, found = max(ends, least) + behind, disk.medium.size
    expect(found == wanted or not (placed or least), f"the file has {found} bytes, and by its tables {wanted}")
    _check_apart(placed)
    _check_planned(layout, placed, unit)
    _check_content(held(layout), disk, placed)


def _placed(disk: Disk) -> Iterator[tuple[int, int, int]]:
    """Yield place on the disk, place in the file and length of all that is in the file."""
    offset = 0
    while offset < disk.size:
        position, length, _ = disk.locate(offset)
        if position is not None:
            yield offset, position, length
        offset += length


def _check_apart(placed: list[tuple[int, int, int]]) -> None:
    before = 0
    for offset, position, length in sorted(placed, key=lambda each: each[1]):
        expect(position >= before, f"byte {offset} of the disk shares its place with another")
        before = position + length


def _check_planned(layout: DiskLayout, placed: list[tuple[int, int, int]], unit: int) -> None:
    ranges = layout.ranges(unit)
    low = high = 0
    for offset, _, length in placed:
        while high < offset + length:
            following = next(ranges, None)
            if following is None:
                break
            low, high = following
        expect(low <= offset and offset + length <= high, f"byte {offset} of the disk has a place, and is zero")


def _check_content(layout: DiskLayout, disk: Disk, placed: list[tuple[int, int, int]]) -> None:
    whole = _compared_whole(layout)
    with LayoutReader(layout) as reader:
        used = reader.used(_STEP)
        following = next(used, None)
        for offset, _, length in placed:
            for start in range(offset // _STEP * _STEP, offset + length, _STEP):
                expect(following is None or following * _STEP >= start, _lacks(following))
                size = min(_STEP, layout.size - start)
                at = 0
                if following is None or following * _STEP != start:
                    expect(
                        disk.read(start, size) == bytes(size),
                        f"byte {start} of the disk, or one soon after it, is not zero",
                    )
                    continue
                if whole is not None and following not in whole:
                    at, size = _page(following, size)
                same = disk.read(start + at, size) == reader.read(start + at, size)
                expect(same, f"byte {start + at} of the disk, or one soon after it, is not what it should be")
                following = next(used, None)
        expect(following is None, _lacks(following))


def _lacks(step: int | None) -> str:
    return f"byte {(step or 0) * _STEP} of the disk, or one soon after it, has no place"


def _page(step: int, size: int) -> tuple[int, int]:
    """Return start and length of the page to look at in a *step* of *size* bytes."""
    at = step * _STRIDE * _PAGE % _STEP
    return (at, min(_PAGE, size - at)) if at < size else (0, min(_PAGE, size))


def _compared_whole(layout: DiskLayout) -> set[int] | None:
    """Return the steps to compare byte for byte; None for all."""
    if layout.payload <= WHOLE:
        return None
    steps: set[int] = set()
    for extent in layout.extents:
        if not isinstance(extent.source, FileSlice):
            steps.update(range(extent.offset // _STEP, -(-extent.end // _STEP)))
    return steps
