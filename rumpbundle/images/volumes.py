"""The file systems of a disk: the one that begins with it (ISO 9660 on a hybrid), and those of its partitions."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError, InputError
from rumpbundle.images.detect import file_system
from rumpbundle.images.filesystem import Entry, FileSystem
from rumpbundle.images.medium import Medium, Window
from rumpbundle.images.partitions import Table, tables

MOST = 64
"""File systems looked at on one disk."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A file system and what we call it: its kind, numbered from the second of a kind on (``ext2-2``)."""

    name: str
    offset: int
    """Of its first byte on the disk."""
    files: FileSystem


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file system may begin: *size* bytes at *offset* of a disk."""

    where: str
    """``whole disk`` or ``partition 2``."""
    offset: int
    size: int


def places(disk: Medium, found: tuple[Table, ...]) -> tuple[Place, ...]:
    """Return where *disk*, with the partition tables *found*, may hold file systems: ``MOST`` at most, in order."""
    by_offset = {0: Place("whole disk", 0, disk.size)}
    for table in found:  # GPT comes after MBR and knows better
        by_offset |= {
            slot.offset: Place(f"partition {slot.number}", slot.offset, min(slot.size, disk.size - slot.offset))
            for slot in table.slots
            if 0 < slot.offset < disk.size
        }
    return tuple(by_offset[offset] for offset in sorted(by_offset))[:MOST]


def volumes(disk: Medium) -> tuple[Volume, ...]:
    """Return the file systems on *disk* that we can read, in the order of the disk.

    Raises:
        ImageError: there is none, or one is damaged at its root.
    """
    found: list[Volume] = []
    for place in places(disk, tables(disk, thorough=False)):
        files = file_system(Window(disk, place.offset, place.size, place.where))
        if files is not None:
            kind = "fat" if files.kind.startswith("fat") else files.kind
            before = sum(volume.name.partition("-")[0] == kind for volume in found)
            found.append(Volume(kind + (f"-{before + 1}" if before else ""), place.offset, files))
    if not found:
        raise ImageError("holds no file system we can read")
    return tuple(found)


def select(found: tuple[Volume, ...], path: str) -> Iterator[tuple[Volume, Entry]]:
    """Yield what *path* names, and all below it: ``/boot`` in every volume, ``fat:/EFI`` in one, empty for all.

    Raises:
        InputError: there is nothing of that name.
    """
    name, colon, inside = path.partition(":")
    named = [volume for volume in found if colon and volume.name == name]
    wanted = "/" + (inside if named else path).strip("/")
    any_found = wanted == "/"
    for volume in named or found:
        for entry in volume.files.entries():
            if wanted == "/" or entry.path == wanted or entry.path.startswith(f"{wanted}/"):
                any_found = True
                yield volume, entry
    if not any_found:
        raise InputError("no such file in the image", where=path, hint="rumpbundle ls IMAGE lists them")


def cat(disk: Medium, path: str) -> Iterator[bytes]:
    """Yield the bytes of the file *path* (see :func:`select`; of several the first), in pieces.

    Raises:
        InputError: there is none, or it is no regular file.
        ImageError: the image is damaged, also after some pieces.
    """
    volume, entry = next(select(volumes(disk), path), (None, None))
    if volume is None or entry is None:
        raise InputError("is empty", where=path)
    if entry.kind == "symlink":
        raise InputError(f"is a symbolic link to {entry.target}", where=path)
    if entry.kind != "file" or path.rpartition(":")[2].strip("/") == "":
        raise InputError(f"is a {entry.kind if entry.kind != 'special' else 'device'}, no file", where=path)
    yield from volume.files.chunks(entry)


_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK, "special": stat.S_IFCHR}


def mode_text(entry: Entry) -> str:
    """Return the entry's kind and permissions as ``ls -l`` writes them; FAT has no permissions."""
    text = stat.filemode(_KINDS[entry.kind] | entry.mode)
    return text if entry.mode else text[0] + 9 * "?"
