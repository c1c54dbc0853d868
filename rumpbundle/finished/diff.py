"""Whether two finished images hold the same disk, whatever the containers; if not, what differs, from the top."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from rumpbundle.arguments import reporter
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK, Zeros
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.events import Report, silent
from rumpbundle.finished.origin import manifest_of, origin
from rumpbundle.images.budget import Budget
from rumpbundle.images.detect import open_disk
from rumpbundle.images.disk import Disk
from rumpbundle.images.filesystem import Entry, Span
from rumpbundle.images.filesystems.unread import Unread
from rumpbundle.images.partitions import tables
from rumpbundle.images.volumes import MountedVolume, mounted, places, warn_of_cut_off
from rumpbundle.manifest import PATH

_MOST = 40
"""Differences of a kind that are told; then how many more there are."""
_MOST_RANGES = 1 << 16
_FREE = "free space"
_WORDS = {
    "rumpbundle": "version of rumpbundle", "cmdline": "command line", "asked": "what was asked for",
    "grub": "boot loader", "config": "configuration", "epoch": "date of everything dated", "kernel": "kernel",
}  # fmt: skip
_LISTS = ("modules", "volumes", "files", "esp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs, in the words of people."""

    kind: str
    """``manifest``, ``file``, ``partition``, ``size`` or ``bytes``, in this order."""
    where: str
    offset: int | None
    """Of the disk, where there is a single place."""
    what: str

    def __str__(self) -> str:
        place = "" if self.offset is None else f" at byte {self.offset}"
        return f"{self.where}{place}: {self.what}"


def diff(
    one: str | os.PathLike[str], other: str | os.PathLike[str], *, report: Report = silent
) -> tuple[Difference, ...]:
    """Return what differs between the disks of two images, from the top (command line, files) down to bytes.

    The same disk in two containers does not differ: then there is nothing.

    Raises:
        InputError: one cannot be read, or is no image.
        ImageError: one is damaged.
    """
    reporter(report)
    with open_disk(one, report, whole=True) as first, open_disk(other, report, whole=True) as second:
        for disk, path in ((first, one), (second, other)):
            warn_of_cut_off(disk, path, report)
        ranges = list(_ranges(first, second))
        if not ranges and first.size == second.size:
            return ()
        found = [*_manifests(first, second), *_files(first, second, ranges), *_partitions(first, second)]
        if first.size != second.size:
            what = f"{first.size} bytes, {second.size} bytes"
            found.append(Difference(kind="size", where="the disk", offset=None, what=what))
        return (*found, *_bytes(first, ranges))


# -- bytes -------------------------------------------------------------------------------------------------


def _ranges(one: Disk, other: Disk) -> Iterator[tuple[int, int]]:
    """Yield start and end of what differs, in whole sectors; what is a hole in both is not read."""
    size = min(one.size, other.size)
    start = end = count = 0
    for low, high in _to_compare(one, other, size):
        for at in range(low, high, CHUNK):
            length = min(CHUNK, high - at)
            a, b = one.read(at, length), other.read(at, length)
            if a == b:
                continue
            for sector in range(0, length, SECTOR):
                if a[sector : sector + SECTOR] != b[sector : sector + SECTOR]:
                    place = at + sector
                    if place != end:
                        if end > start:
                            yield start, end
                            count += 1
                        start = place
                    end = min(place + SECTOR, size)
            if count >= _MOST_RANGES:
                yield start, size
                return
    if end > start:
        yield start, end


def _to_compare(one: Disk, other: Disk, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of the first *size* bytes that are not holes in both."""
    streams = [disk.runs(0, size) for disk in (one, other)]
    runs = [next(stream, None) for stream in streams]
    position = 0
    while runs[0] is not None and runs[1] is not None:
        end = min(run.offset + run.length for run in runs if run is not None)
        if not all(run is not None and isinstance(run.source, Zeros) for run in runs):
            yield position, end
        position = end
        for index, run in enumerate(runs):
            if run is not None and run.offset + run.length == end:
                runs[index] = next(streams[index], None)


def _bytes(disk: Disk, ranges: list[tuple[int, int]]) -> Iterator[Difference]:
    labels = _labels(disk)
    areas = _areas(disk)
    starts = [start for start, _, _ in labels]
    merged: dict[tuple[str, int], list[int]] = {}
    for low, high in ranges:
        index = bisect_right(starts, low) - 1
        within = index >= 0 and low < labels[index][1]
        label = labels[index][2] if within else _area(areas, low)
        entry = merged.setdefault((label, index if within else -1 - low if label == _FREE else -1), [low, high, 0])
        entry[1] = high
        entry[2] += high - low
    for (label, _), (low, high, count) in list(merged.items())[:_MOST]:
        what = f"{count} bytes differ, in whole sectors, up to byte {high}"
        yield Difference(kind="bytes", where=label, offset=low, what=what)
    if len(merged) > _MOST:
        what = f"there are {len(merged) - _MOST} more places"
        yield Difference(kind="bytes", where="the disk", offset=None, what=what)


def _areas(disk: Disk) -> list[tuple[int, int, str]]:
    """Return size, start and name of the partitions and file systems of *disk*, the smallest first."""
    found = tables(disk)
    named = {place.offset: (place.size, place.offset, place.where) for place in places(disk, found) if place.offset}
    for volume in mounted(disk, found):
        named[volume.offset] = (volume.files.size, volume.offset, f"{volume.name}, {volume.place.where}")
    return sorted(named.values())


def _area(areas: list[tuple[int, int, str]], at: int) -> str:
    """Return the name of the smallest of *areas* around byte *at*: in it may stand what its reader does not place."""
    return next((name for size, start, name in areas if start <= at < start + size), _FREE)


def _labels(disk: Disk) -> list[tuple[int, int, str]]:
    """Return start, end and name of what stands on *disk*, by place: as it was planned, else as its files tell."""
    with suppress(ImageError):
        layout = origin(disk).plan()
        if layout.size <= disk.size:
            return [(e.offset, e.end, e.label) for e in layout.padded(least=disk.size).extents]
    # A file may have thousands of names, and stands on the disk once.
    found: dict[tuple[int, int], str] = {}
    for table in reversed(tables(disk)):
        found |= {(start, end): label for start, end, label in table.regions if table.kind == "gpt" or not found}
    budget = Budget()
    for volume in mounted(disk, tables(disk)):

        def keep(spans: Iterable[Span], label: str, first: int = volume.offset) -> None:
            for span in spans:
                if span.offset is not None:
                    found.setdefault((first + span.offset, first + span.offset + span.length), label)

        with suppress(ImageError):
            for entry in volume.files.entries("/", budget):
                if entry.kind == "file" and not entry.packed:
                    keep(entry.spans, entry.path)
            keep((*volume.files.structures, *volume.files.directories), f"{volume.name} structures")
    return sorted((*place, label) for place, label in found.items())


# -- manifests ---------------------------------------------------------------------------------------------


def _manifests(one: Disk, other: Disk) -> Iterator[Difference]:
    found: list[Mapping[str, Any] | None] = []
    for disk in (one, other):
        try:
            import json

            found.append(json.loads(manifest_of(disk)))
        except (ImageError, ValueError, RecursionError):
            found.append(None)
    if found[0] is None or found[1] is None:
        if found != [None, None]:
            which = "second" if found[1] is None else "first"
            what = f"the {which} was not made by rumpbundle"
            yield Difference(kind="manifest", where=PATH, offset=None, what=what)
        return
    yield from manifests(found[0], found[1])


def manifests(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what differs between two manifests, in words."""

    def told(where: str, what: str) -> Difference:
        return Difference(kind="manifest", where=where, offset=None, what=what)

    for key in [key for key in {**one, **other} if key not in _LISTS]:
        yield from (told(where, what) for where, what in _values(_WORDS.get(key, key), one.get(key), other.get(key)))
    for key in _LISTS:
        name = "path" if key in ("files", "esp") else "label" if key == "volumes" else "name"
        lists = [{str(each.get(name)): each for each in side.get(key, ()) if isinstance(each, dict)}
                 for side in (one, other)]  # fmt: skip
        lines = [
            (f"{key.removesuffix('s')} {each}", what)
            for each in {**lists[0], **lists[1]}
            for what in _entry(lists[0].get(each), lists[1].get(each))
        ]
        yield from (told(where, what) for where, what in lines[:_MOST])
        if len(lines) > _MOST:
            yield told(key, f"there are {len(lines) - _MOST} more differences")


def _entry(one: Any, other: Any) -> Iterator[str]:
    if one is None or other is None:
        yield "only in the second" if one is None else "only in the first"
        return
    parts = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if parts:
        yield ", ".join(_pair(key, one.get(key), other.get(key)) for key in parts)


def _pair(key: str, one: Any, other: Any) -> str:
    if key in ("blake3", "blocks_blake3"):
        return f"content {_short(one)}, {_short(other)}"
    return f"{key} {_short(one)}, {_short(other)}"


def _short(value: Any) -> str:
    text = "none" if value is None else str(value) if not isinstance(value, str) else value
    if len(text) == 64 and not text.strip("0123456789abcdef"):
        return f"{text[:16]}…"
    return repr(value) if isinstance(value, str) and len(text) <= 200 else text[:200]


def _values(where: str, one: Any, other: Any) -> Iterator[tuple[str, str]]:
    """Yield path and words of what differs between two JSON values."""
    if one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            yield from _values(f"{where}: {key}", one.get(key), other.get(key))
        return
    yield where, f"{_short(one)}, {_short(other)}"


# -- files and partitions ----------------------------------------------------------------------------------


def _files(one: Disk, other: Disk, ranges: list[tuple[int, int]]) -> Iterator[Difference]:
    """Compare the files of file systems of one kind in one place."""
    pairs = [
        {(volume.place.where, volume.name): volume for volume in mounted(disk, tables(disk))} for disk in (one, other)
    ]
    spent = 0.0
    for place, first in pairs[0].items():
        second = pairs[1].get(place)
        where = f"{first.name}, {first.place.where}"
        if second is None:
            what = "this file system is only in the first"
            yield Difference(kind="file", where=where, offset=first.offset, what=what)
            continue
        if spent > Budget.LISTINGS:
            what = "the file systems before it have more files than are compared"
            yield Difference(kind="file", where=where, offset=first.offset, what=what)
            break
        lines = list(_compared(first, second, ranges))
        spent += sum(fund.spent for volume in (first, second) for fund in volume.files.funds)
        for path, what in lines[:_MOST]:
            yield Difference(kind="file", where=f"{where}: {path}", offset=None, what=what)
        if len(lines) > _MOST:
            what = f"there are {len(lines) - _MOST} more files that differ"
            yield Difference(kind="file", where=where, offset=None, what=what)
    for place, second in pairs[1].items():
        if place not in pairs[0]:
            where = f"{second.name}, {second.place.where}"
            what = "this file system is only in the second"
            yield Difference(kind="file", where=where, offset=second.offset, what=what)


def _compared(one: MountedVolume, other: MountedVolume, ranges: list[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    lists: list[dict[str, Entry]] = []
    cut = ""
    for volume in (one, other):
        found: dict[str, Entry] = {}
        try:
            found.update((entry.path, entry) for entry in volume.files.entries())
        except ImageError as error:
            cut = cut if isinstance(volume.files, Unread) else error.problem
        lists.append(found)
    if cut:
        yield "/", f"not all files are compared: {cut}"
    for path in sorted({*lists[0], *lists[1]}):
        first, second = lists[0].get(path), lists[1].get(path)
        if first is None or second is None:
            if cut:
                continue  # it may be among those that were not listed
            yield path, "only in the second" if first is None else "only in the first"
            continue
        parts = [
            f"{word} {a}, {b}"
            for word, a, b in (
                ("kind", first.kind, second.kind),
                ("size", first.size, second.size),
                ("mode", f"{first.mode:04o}", f"{second.mode:04o}"),
                ("target", first.target, second.target),
            )
            if a != b
        ]
        if not parts and first.kind == "file" and _content_differs(one, first, other, second, ranges):
            parts = ["another content"]
        if parts:
            yield path, "; ".join(parts)


def _content_differs(
    one: MountedVolume, first: Entry, other: MountedVolume, second: Entry, ranges: list[tuple[int, int]]
) -> bool:
    """Whether two files of equal size differ; what stands in the same place where nothing differs is not read."""
    try:
        if one.offset == other.offset and first.spans == second.spans and not first.packed:
            return any(
                low < one.offset + span.offset + span.length and one.offset + span.offset < high
                for span in first.spans
                if span.offset is not None
                for low, high in _near(ranges, one.offset + span.offset)
            )
        pieces = (one.files.chunks(first), other.files.chunks(second))
        return b"".join(pieces[0]) != b"".join(pieces[1]) if first.size <= CHUNK else _streams_differ(*pieces)
    except ImageError:
        return True


def _near(ranges: list[tuple[int, int]], offset: int) -> list[tuple[int, int]]:
    """Return the differing ranges from the last that begins before *offset* on, up to those that may matter."""
    index = max(bisect_right(ranges, (offset, 0)) - 1, 0)
    return ranges[index : index + 2] if ranges else []


def _streams_differ(one: Iterator[bytes], other: Iterator[bytes]) -> bool:
    from blake3 import blake3

    digests = []
    for stream in (one, other):
        digest = blake3()
        for chunk in stream:
            digest.update(chunk)
        digests.append(digest.digest())
    return digests[0] != digests[1]


def _partitions(one: Disk, other: Disk) -> Iterator[Difference]:
    pair = [{table.kind: table for table in tables(disk)} for disk in (one, other)]
    for kind in sorted({*pair[0], *pair[1]}):
        facts = [
            None if table is None else {"id": table.id, "sectors of": table.sector}
            for table in (tables_of.get(kind) for tables_of in pair)
        ]
        for what in _entry(*facts) if facts[0] != facts[1] else ():
            yield Difference(kind="partition", where=f"{kind.upper()}", offset=None, what=what)
    found = [{(t.kind, s.number): s for t in each.values() for s in t.slots} for each in pair]
    for kind, number in sorted({*found[0], *found[1]}):
        first, second = found[0].get((kind, number)), found[1].get((kind, number))
        where = f"{kind.upper()} partition {number}"
        if first is None or second is None:
            which = "only in the second" if first is None else "only in the first"
            yield Difference(kind="partition", where=where, offset=None, what=which)
        elif first != second:
            parts = [
                f"{name} {getattr(first, name)}, {getattr(second, name)}"
                for name in ("type", "offset", "size", "name", "id", "active")
                if getattr(first, name) != getattr(second, name)
            ]
            yield Difference(kind="partition", where=where, offset=first.offset, what="; ".join(parts))


__all__ = ["Difference", "diff", "manifests"]
