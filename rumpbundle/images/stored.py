"""Where each part of a disk is stored in the file of its image, as the tables of the container have it.

Holes of the file play no part here: the same image has the same map wherever it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import SECTOR
from rumpbundle.images.disk import Disk
from rumpbundle.images.medium import FdMedium, Medium, Patchwork, Window, place_of

MOST = 20
"""Parts a map has at most: more are made fewer, those first that are next to each other."""
_KEPT = 4096
"""Parts kept while a map is made."""
_STEPS = 1 << 20
"""Steps through the tables of a disk, so that none of petabytes takes longer than some seconds."""
_FAR = 1 << 80
"""Between what is compressed and what is not: they are made one last of all."""


@dataclass(frozen=True, slots=True)
class Stored:
    """*length* bytes of a disk from *offset* stand in *size* bytes of the file from *position*.

    In one that was made of *parts* there may be other bytes between them, on the disk and in the file.
    """

    offset: int
    length: int
    position: int
    size: int
    packed: bool = False
    parts: int = 1

    @property
    def end(self) -> int:
        """Where it ends in the file."""
        return self.position + self.size


def stored(disk: Disk) -> tuple[Stored, ...]:
    """Return where the parts of *disk* are stored in the image's file, in the order of the disk; zeros are nowhere.

    A disk in several files has no map.

    Raises:
        ImageError: a table is damaged.
    """
    if disk.others or disk.outermost is None:
        return ()
    if disk.around and disk.around[0] != "tar":
        return (Stored(0, disk.size, 0, disk.outermost.size, packed=True),)
    kept: list[Stored] = []
    for part in _joined(_of(disk, 0, disk.size, 0)):
        kept.append(part)
        if len(kept) >= 2 * _KEPT:
            kept = _fewer(kept, _KEPT)
    return tuple(_fewer(kept, MOST))


def _of(medium: Medium, start: int, length: int, at: int) -> Iterator[Stored]:
    """Yield where *length* bytes of *medium* from *start* on are stored, which stand at byte *at* of the disk."""
    match medium:
        case FdMedium():
            yield Stored(at, length, start, length)
        case Window() | Patchwork():
            for piece in medium.pieces(start, length):
                yield from _of(piece.medium, piece.start, piece.length, at + piece.offset - start)
        case Disk():
            for offset, (position, run, packed) in islice(medium.places(start, start + length), _STEPS):
                if packed and position is not None:
                    yield _packed(medium, position, run, at + offset - start)
                elif position is not None:
                    yield from _of(medium.medium, position, run, at + offset - start)


def _packed(disk: Disk, position: int, length: int, at: int) -> Stored:
    """Return where the compressed bytes are that :meth:`~rumpbundle.images.disk.Disk.locate` finds at *position*."""
    place = place_of(disk.medium)
    base = place[1] if place is not None else 0
    start, size = disk.packed_place(position)
    return Stored(at, length, base + start, size, packed=True)


def _joined(parts: Iterable[Stored]) -> Iterator[Stored]:
    """Yield *parts* with those made one that follow each other, on the disk and in the file."""
    last: Stored | None = None
    for part in parts:
        if last is not None and not _distance(last, part):
            last = _together(last, part, last.parts)
            continue
        if last is not None:
            yield last
        last = part
    if last is not None:
        yield last


def _distance(one: Stored, two: Stored) -> int:
    """Return how far *two* is from *one*, on the disk and in the file."""
    gap = abs(two.position - one.end)
    if one.packed and two.packed and gap < SECTOR:
        gap = 0  # the last sector of compressed data is filled, or shared
    return two.offset - one.offset - one.length + gap + (_FAR if one.packed != two.packed else 0)


def _together(one: Stored, two: Stored, parts: int) -> Stored:
    start, end = min(one.position, two.position), max(one.end, two.end)
    length = two.offset + two.length - one.offset
    return Stored(one.offset, length, start, end - start, one.packed or two.packed, parts)


def _fewer(parts: list[Stored], most: int) -> list[Stored]:
    """Return *parts*, those nearest to each other made one until there are no more than *most*."""
    order = sorted(range(1, len(parts)), key=lambda index: (_distance(parts[index - 1], parts[index]), index))
    near = set(order[: max(len(parts) - most, 0)])
    found: list[Stored] = []
    for index, part in enumerate(parts):
        if index in near:
            found[-1] = _together(found[-1], part, found[-1].parts + part.parts)
        else:
            found.append(part)
    return found
