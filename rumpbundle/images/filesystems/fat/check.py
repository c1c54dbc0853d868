"""What is wrong with a FAT volume: tables that differ, chains that cross or end early, clusters that nobody owns."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rumpbundle.disk.content import CHUNK
from rumpbundle.errors import ImageError
from rumpbundle.images.budget import Budget, TooMuchError
from rumpbundle.images.filesystem import not_all
from rumpbundle.images.problem import Problem, Severity

if TYPE_CHECKING:
    from rumpbundle.images.filesystems.fat import Fat

_MAX_CLUSTERS = 1 << 24
"""Clusters up to which all chains are followed."""
_USED = slice(65, 82)
"""What Linux (whether it is mounted) and mlabel (serial number, label) change in the first boot sector alone."""
_SHORT = 1 << 20
"""Clusters that the chains of a small volume may have more together than it has."""


def problems(volume: Fat) -> Iterator[Problem]:
    """Yield what is wrong with *volume*, with offsets of the file system."""
    yield from _boot(volume)
    try:
        yield from _copies(volume)
        if volume.boot.clusters <= _MAX_CLUSTERS:
            yield from _chains(volume)
    except TooMuchError as error:
        yield not_all("/", error)
    except ImageError as error:
        yield _problem(None, error.problem, "the table cannot be checked")


def _problem(offset: int | None, what: str, consequence: str, severity: Severity = "damage") -> Problem:
    return Problem(where="FAT", offset=offset, what=what, consequence=consequence, severity=severity)


def _boot(volume: Fat) -> Iterator[Problem]:
    boot, medium = volume.boot, volume.medium
    needed = -(-(boot.claimed + 2) * boot.bits // 8)
    if needed > boot.table_size:
        yield _problem(0, f"{boot.claimed} clusters do not fit its tables", "files in the last ones cannot be found")
    media = medium.read(boot.table, 1)[0]
    if media != boot.raw[21]:
        yield _problem(boot.table, "the table begins with another medium byte", "some systems take it for damaged")
    if boot.bits != 32:
        return
    backup = int.from_bytes(boot.raw[50:52], "little") * boot.sector
    if 0 < backup < boot.table and (copy := medium.read(backup, 512)) != boot.raw:
        used = copy[: _USED.start] + boot.raw[_USED] + copy[_USED.stop :] == boot.raw
        what, ends = ("has another state or label", "a repair that starts from it brings that back") if used else (
            "differs", "a repair that starts from it destroys files")  # fmt: skip
        yield _problem(backup, f"the backup of the boot sector {what}", ends, "remark" if used else "damage")
    info = int.from_bytes(boot.raw[48:50], "little") * boot.sector
    if 0 < info < boot.table:
        raw = medium.read(info, 512)
        if raw[:4] != b"RRaA" or raw[484:488] != b"rrAa" or raw[508:] != b"\0\0\x55\xaa":
            yield _problem(
                info, "the information sector has no signature", "free space is counted anew at each mount"
            )


def _copies(volume: Fat) -> Iterator[Problem]:
    """Compare the tables with the first, where they are to be the same."""
    boot = volume.boot
    for number in range(1, boot.tables if boot.mirrored else 1):
        start = boot.table + number * boot.table_size
        for at in range(0, boot.table_size, CHUNK):
            length = min(CHUNK, boot.table_size - at)
            one, other = volume.medium.read(boot.table + at, length), volume.medium.read(start + at, length)
            if one != other:
                differs = next(n for n in range(length) if one[n] != other[n])
                what = f"table {number + 1} differs from the first"
                yield _problem(start + at + differs, what, "a repair may take the wrong one, and files with it")
                break


def _chains(volume: Fat) -> Iterator[Problem]:
    """Follow every chain: no cluster in two, each as long as its file, and no other cluster in use."""
    boot = volume.boot
    volume.fund().pointers -= boot.clusters // 2  # a look at each of them, below
    owned = bytearray(boot.clusters + 2)
    starts: list[tuple[str, int, int | None]] = [("/", boot.root_cluster, None)] if boot.root_cluster else []
    starts += [(path, cluster, size) for path, cluster, size in volume.starts() if cluster or size]
    budget = Budget(pointers=4 * (boot.clusters + _SHORT))
    for path, cluster, size in starts:
        length = 0
        crossed = 0
        try:
            for first, count in volume.table.runs(cluster, boot.clusters, budget):
                piece = owned[first : first + count]
                crossed = crossed or (first + piece.index(1) if 1 in piece else 0)
                owned[first : first + count] = b"\1" * count
                length += count * boot.cluster
        except ImageError as error:
            if budget.pointers < 0:
                what = "its files share so many clusters that not all are followed"
                yield _problem(None, what, "what is wrong with the others was not looked at")
                return
            yield Problem(where=path, offset=None, what=error.problem, consequence="it cannot be read whole")
            continue
        at = boot.data + (cluster - 2) * boot.cluster if cluster else None
        if crossed:
            what = f"cluster {crossed} belongs to another file, too"
            place = boot.data + (crossed - 2) * boot.cluster
            yield Problem(where=path, offset=place, what=what, consequence="one of them holds the other's bytes")
        if size is not None and length != -(-size // boot.cluster) * boot.cluster:
            what = f"its {size} bytes have clusters for {length}"
            consequence = "it cannot be read whole" if length < size else "the room behind it is lost"
            yield Problem(where=path, offset=at, what=what, consequence=consequence)
    yield from _lost(volume, owned)


def _lost(volume: Fat, owned: bytearray) -> Iterator[Problem]:
    boot = volume.boot
    bad = {12: 0xFF7, 16: 0xFFF7, 32: 0xFFFFFF7}[boot.bits]
    lost = first_lost = used = 0
    step = 1 << 15
    for first in range(0, boot.clusters + 2, step):
        for cluster, value in enumerate(volume.table.numbers(first, step), first):
            if cluster >= 2 and value and value != bad:
                used += 1
                if not owned[cluster]:
                    lost += 1
                    first_lost = first_lost or cluster
    if lost:
        place = boot.table + first_lost * boot.bits // 8
        yield _problem(place, f"{lost} clusters are in use and belong to no file", "their room is lost")
    info = int.from_bytes(boot.raw[48:50], "little") * boot.sector if boot.bits == 32 else 0
    if 0 < info < boot.table:
        free = struct.unpack("<I", volume.medium.read(info + 488, 4))[0]
        if free not in (0xFFFFFFFF, boot.clusters - used):
            what = f"it says that {free} clusters are free; {boot.clusters - used} are"
            yield _problem(info + 488, what, "systems that believe it show the wrong free space", "remark")
