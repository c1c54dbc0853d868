"""The file systems of a disk: the one that begins with it (ISO 9660 on a hybrid), and those of its partitions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError, InputError
from rumpbundle.events import Note, Report, Warned, silent
from rumpbundle.images.budget import Budget, TooMuchError
from rumpbundle.images.detect import NoImageError, file_system
from rumpbundle.images.disk import Disk, RawDisk
from rumpbundle.images.filesystem import Entry, FileSystem
from rumpbundle.images.filesystems.iso9660 import Iso9660
from rumpbundle.images.filesystems.raid import striped
from rumpbundle.images.filesystems.unread import Unread
from rumpbundle.images.medium import Medium, Window
from rumpbundle.images.partitions import Table, tables
from rumpbundle.images.partitions.mbr import has_boot_code
from rumpbundle.images.problem import Problem

MOST = 256
"""Places looked at on one disk: more than a table has as a rule (128), or than we write."""
_CUT = "what stands behind the end cannot be read"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file system may begin: *size* bytes at *offset* of a disk."""

    where: str
    """``whole disk``, ``partition 2``, ``boot entry (uefi)``."""
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class MountedVolume:
    """A file system and what we call it: its kind, numbered from the second of a kind on (``ext2-2``)."""

    name: str
    place: Place
    files: FileSystem

    @property
    def offset(self) -> int:
        """Of its first byte on the disk."""
        return self.place.offset


def check_is_disk(disk: Disk, path: str | os.PathLike[str]) -> None:
    """Raise :class:`NoImageError` for a file that passes for a plain disk only because it is nothing else."""
    if type(disk) is not RawDisk or tables(disk) or has_boot_code(disk):
        return
    if not any(True for _ in mounted(disk, ())):
        raise NoImageError("is no disk image: it has neither a partition table nor a file system", where=path)


def places(disk: Medium, found: tuple[Table, ...]) -> tuple[Place, ...]:
    """Return where *disk*, with the partition tables *found*, may hold file systems: ``MOST`` at most, in order."""
    by_offset = {0: Place("whole disk", 0, disk.size)}
    for table in found:  # GPT comes after MBR and knows better
        by_offset |= {
            slot.offset: Place(f"partition {slot.number}", slot.offset, min(slot.size, disk.size - slot.offset))
            for slot in table.slots
            if 0 < slot.offset < disk.size and not slot.is_container
        }
    return tuple(by_offset[offset] for offset in sorted(by_offset))[:MOST]


def _passed_over(found: tuple[Table, ...]) -> str:
    """Return what to say if the tables *found* have more partitions than are looked at."""
    number = max((len(table.slots) for table in found), default=0)
    return f"of its {number} partitions the first {MOST - 1} are looked at" if number >= MOST else ""


def mounted(disk: Medium, found: tuple[Table, ...]) -> Iterator[MountedVolume]:
    """Yield what stands on *disk* with the tables *found*, each once: as a whole, in partitions, where CDs boot.

    What cannot be read is there, too, as an :class:`Unread` that says why.
    """
    seen: set[int] = set()
    counts: dict[str, int] = {}
    waiting = list(places(disk, found))
    while waiting and len(seen) < MOST:
        place = waiting.pop(0)
        if place.offset in seen:
            continue
        files = _file_system(disk, place)
        past = isinstance(files, Unread) and not files.member and not place.offset
        if files is None or (past and any(table.slots for table in found)):
            continue  # what a partitioned disk once was as a whole is of no interest
        seen.add(place.offset)
        kind = "fat" if files.kind.startswith("fat") else files.kind
        counts[kind] = count = counts.get(kind, 0) + 1
        yield MountedVolume(kind if count == 1 else f"{kind}-{count}", place, files)
        waiting += _boot_places(disk, files, place.offset)


def only_from_cd(disk: Medium) -> bool:
    """Whether a BIOS starts *disk* from a CD drive alone: by El Torito, without boot code in its first sector."""
    try:
        files = None if has_boot_code(disk) else file_system(disk)
        entries = files.boot_entries if isinstance(files, Iso9660) else ()
    except ImageError:
        return False
    return any(entry.bootable and entry.platform == "bios" for entry in entries)


def _file_system(disk: Medium, place: Place) -> FileSystem | None:
    medium = Window(disk, place.offset, place.size, place.where)
    try:
        far = bool(getattr(disk, "around", ()))  # the end of what is compressed
        return (None if far else striped(medium, whole=not place.offset)) or file_system(medium)
    except ImageError as error:
        return Unread(medium, "damaged", error.problem)


def _boot_places(disk: Medium, files: FileSystem, offset: int) -> Iterator[Place]:
    """Yield where the boot catalog of *files*, at *offset*, says that something starts: on a CD, often only there."""
    if not isinstance(files, Iso9660):
        return
    try:
        entries = files.boot_entries
    except ImageError:
        return
    for entry in entries:
        start = offset + entry.offset
        if start < disk.size:
            # The size is often 1 or 4 sectors for what is a whole floppy; a file system knows its own.
            yield Place(f"boot entry ({entry.platform})", start, disk.size - start)


def problems(disk: Medium) -> Iterator[Problem]:
    """Yield all that is wrong with the partition tables and the file systems of *disk*, with offsets of the disk."""
    found = tables(disk)
    there = tuple(mounted(disk, found))
    for problem in (problem for table in found for problem in table.problems):
        # Of a RAID's disks the first alone has a table, which is of all of them.
        yield replace(problem, severity="remark") if any(map(_is_member, there)) else problem
    if passed := _passed_over(found):
        yield _unlooked("the disk", passed)
    spent = 0.0
    for volume in there:
        where = f"{volume.files.kind}, {volume.place.where}"
        if spent > Budget.LISTINGS:
            yield _unlooked(where, "the file systems before it have more files than are looked at on one disk")
            continue
        if isinstance(volume.files, Unread):
            damaged = volume.files.kind == "damaged"
            yield Problem(
                where=volume.place.where,
                offset=volume.offset,
                what=volume.files.problem,
                consequence="no file in it can be read" if damaged else "nothing in it was looked at",
                severity="damage" if damaged else "remark",
            )
            if volume.files.cut:
                yield Problem(where=where, offset=volume.offset, what=volume.files.cut, consequence=_CUT)
            continue
        for remark in volume.files.remarks:
            yield Problem(
                where=where, offset=None, what=remark, consequence="that was not looked at", severity="remark"
            )
        if volume.files.cut:
            yield Problem(where=where, offset=volume.offset, what=volume.files.cut, consequence=_CUT)
        for problem in volume.files.problems():
            inside = problem.where if problem.where.startswith("/") and len(problem.where) > 1 else ""
            offset = None if problem.offset is None else volume.offset + problem.offset
            yield replace(problem, where=f"{where}: {inside}" if inside else where, offset=offset)
        spent += sum(fund.spent for fund in volume.files.funds)


def _unlooked(where: str, what: str) -> Problem:
    ends = "what is wrong behind that was not looked at"
    return Problem(where=where, offset=None, what=what, consequence=ends, severity="remark")


def _is_member(volume: MountedVolume) -> bool:
    """Whether *volume* is a whole disk of several over which a RAID spreads its data."""
    return isinstance(volume.files, Unread) and volume.files.member and not volume.offset


def cut_off(disk: Medium) -> Iterator[str]:
    """Yield what reaches behind the end of *disk*, as of an image that is not all there."""
    found = tuple(mounted(disk, tables(disk, thorough=False)))
    for volume in filter(_is_member, found):
        assert isinstance(volume.files, Unread)
        yield f"it {volume.files.problem}"
        return
    yield from _behind(disk)
    for volume in found:
        if volume.files.cut:
            yield f"{volume.files.kind}, {volume.place.where}: {volume.files.cut}"


def warn_of_cut_off(disk: Medium, path: str | os.PathLike[str], report: Report) -> None:
    """Say what the image at *path*, which holds *disk*, has not all of."""
    for what in cut_off(disk):
        report(Warned(f"{os.path.basename(os.fspath(path))} is not all there: {what}"))


def _behind(disk: Medium) -> Iterator[str]:
    """Yield what to say of each partition of which *disk* does not hold all."""
    for table in tables(disk, thorough=False)[-1:]:
        for slot in table.slots:
            if slot.end > disk.size and slot.type != "ee":
                yield f"partition {slot.number} {'begins' if slot.offset >= disk.size else 'ends'} behind the disk"


def volumes(disk: Medium) -> tuple[MountedVolume, ...]:
    """Return the file systems on *disk*, in the order of the disk, also those that cannot be read.

    Raises:
        ImageError: there is none that can be read.
    """
    found = tuple(mounted(disk, tables(disk, thorough=False)))
    if any(not isinstance(volume.files, Unread) for volume in found):
        return found
    for volume in found:
        assert isinstance(volume.files, Unread)
        raise ImageError(volume.files.told("" if volume.place.where == "whole disk" else volume.place.where))
    raise ImageError("; ".join(["holds no file system we can read", *islice(_behind(disk), 1)]))


def select(found: tuple[MountedVolume, ...], path: str) -> Iterator[tuple[MountedVolume, Entry]]:
    """Yield what *path* names, and all below it: ``/boot`` in every volume, ``fat:/EFI`` in one, empty for all.

    Raises:
        InputError: there is nothing of that name.
        ImageError: a file system is damaged, or the one that *path* names cannot be read, or there are too many
            files.
    """
    name, colon, inside = path.partition(":")
    named = [volume for volume in found if colon and volume.name == name]
    wanted = "/" + (inside if named else path).strip("/")
    any_found = wanted == "/"
    spent = 0.0
    for volume in named or found:
        if isinstance(volume.files, Unread) and not named:
            continue
        if spent > Budget.LISTINGS:
            what = f"the file systems before {volume.name} have more files than are listed at once"
            raise TooMuchError(what, hint=f"name one: {volume.name}:{wanted}")
        budget = Budget()
        for entry in volume.files.entries(wanted, budget):
            if wanted == "/" or entry.path == wanted or entry.path.startswith(f"{wanted}/"):
                any_found = True
                yield volume, entry
        spent += budget.spent
    if not any_found:
        raise InputError("no such file in the image", where=path, hint=_where_else(found))


def listed(disk: Medium, path: str, report: Report = silent) -> Iterator[tuple[MountedVolume, Entry]]:
    """Yield what :func:`select` does of all file systems on *disk*; then *report* hears what is not listed, and why.

    Raises:
        InputError, ImageError: as :func:`volumes` and :func:`select`.
    """
    found = volumes(disk)
    yield from select(found, path)
    for what in (*_behind(disk), *filter(None, [_passed_over(tables(disk, thorough=False))])):
        report(Note(what))
    _tell(found, report)


def _tell(found: tuple[MountedVolume, ...], report: Report) -> None:
    """Report what whoever reads the files of *found* should know."""
    for volume in found:
        where = volume.name if volume.place.where == "whole disk" else f"{volume.name}, {volume.place.where}"
        if isinstance(volume.files, Unread):
            report(Note(volume.files.told(volume.place.where)))
        elif volume.files.cut:
            report(Note(f"{where}: {volume.files.cut}; {_CUT}"))
        for remark in volume.files.remarks:
            report(Note(f"{where}: {remark}"))


def _where_else(found: tuple[MountedVolume, ...]) -> str:
    hidden = [v.files.told(v.place.where) for v in found if isinstance(v.files, Unread)]
    return f"rumpbundle ls IMAGE lists them; {hidden[0]}" if hidden else "rumpbundle ls IMAGE lists them"


def cat(disk: Medium, path: str, report: Report = silent) -> Iterator[bytes]:
    """Yield the bytes of the file *path* (see :func:`select`; of several the first), in pieces.

    *report* hears what may be wrong with them: a journal that waits.

    Raises:
        InputError: there is none, or it is no regular file.
        ImageError: the image is damaged, also after some pieces.
    """
    volume, entry = next(select(volumes(disk), path), (None, None))
    if volume is None or entry is None:
        raise InputError("is empty", where=path)
    if entry.path != "/" + path.removeprefix(f"{volume.name}:").strip("/"):  # its root, of which that is the first
        raise InputError("is a directory, no file", where=path)
    if entry.kind == "symlink":
        raise InputError(f"is a symbolic link to {entry.target}", where=path)
    if entry.kind != "file":
        raise InputError(f"is a {entry.kind if entry.kind != 'special' else 'device'}, no file", where=path)
    _tell((volume,), report)
    yield from volume.files.chunks(entry)


_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "special": stat.S_IFCHR}


def mode_text(volume: MountedVolume, entry: Entry) -> str:
    """Return the kind and permissions of *entry* in *volume* as ``ls -l`` writes them, if the file system has any."""
    text = stat.filemode(_KINDS[entry.kind] | entry.mode)
    return text if volume.files.permissions else text[0] + 9 * "?"
