"""Directories as file systems: the volumes of an image, and disks of their own (``rumpbundle volume``)."""

from __future__ import annotations

import re
import uuid
from itertools import chain
from pathlib import Path
from typing import Literal as OneOf

from rumpbundle.disk.content import Content, Literal, Source, Zeros
from rumpbundle.disk.flat import write_content
from rumpbundle.disk.tree import Directory
from rumpbundle.events import Finished, Report, Started, silent
from rumpbundle.filesystems.ext2 import Ext2Volume
from rumpbundle.filesystems.ext2 import check_label as ext2_label
from rumpbundle.filesystems.ext2.records import SuperBlock
from rumpbundle.filesystems.identifiers import check_label as iso9660_label
from rumpbundle.filesystems.iso9660 import SYSTEM_AREA, Iso9660Volume
from rumpbundle.host.staging import staged_file
from rumpbundle.manifest import HEAD_ROOM, Volume

FileSystem = OneOf["iso9660", "ext2"]


def ext2(
    root: Directory, *, label: str, epoch: int, size: int | None = None, free: int = HEAD_ROOM
) -> tuple[Volume, str]:
    """Return *root* as a writable file system of *size* bytes (or with *free* bytes of head room), and its UUID.

    Raises:
        InputError: it does not fit, or ext2 cannot express it.
    """
    volume = Ext2Volume(root, label=label, epoch=epoch, size=size, free=free)
    return Volume(label, "ext2", volume.content()), volume.uuid


def uuid_of(content: Content) -> str:
    """Return the UUID of the ext2 file system *content*."""
    superblock = SuperBlock.unpack(content.part(1024, 1024 + SuperBlock.SIZE).read())
    return str(uuid.UUID(bytes=superblock.uuid))


def iso9660(root: Directory, *, label: str, epoch: int) -> Volume:
    """Return *root* as a read-only file system.

    Raises:
        InputError: ISO 9660 cannot express it.
    """
    volume = Iso9660Volume(root, label=label, epoch=epoch)
    metadata: tuple[int, Source] = SYSTEM_AREA, Literal(volume.metadata())
    pieces = (piece for offset, content, _ in volume.files for piece in content.stored(offset))
    return Volume(label, "iso9660", Content.spread(chain((metadata,), pieces), volume.end))


def label_for(mount: str, taken: set[str]) -> str:
    """Return a label for the file system mounted at *mount* that is not in *taken*, and enter it there.

    At most 16 characters, which is what ext2 has room for.
    """
    stem = re.sub(r"[^a-z0-9_]+", "_", mount.rpartition("/")[2].lower()).strip("_")[:14] or "root"
    label, number = stem, 1
    while label in taken:
        number += 1
        label = f"{stem[: 15 - len(str(number))]}_{number}"
    taken.add(label)
    return label


def check_label(label: str, kind: FileSystem) -> None:
    """Raise :class:`InputError` if no file system of that *kind* can have exactly this *label*."""
    (ext2_label if kind == "ext2" else iso9660_label)(label)


def save(volume: Volume, output: Path, *, force: bool = False, sync: bool = True, report: Report = silent) -> None:
    """Write *volume* as a disk of its own to *output*: whole, or not at all.

    Raises:
        UsageError: *output* exists and *force* is not given.
        HostError: it cannot be written; InputError: a file changed meanwhile.
    """
    payload = sum(source.length for source in volume.content.sources if not isinstance(source, Zeros))
    report(Started(output.name, payload))
    with staged_file(output, force=force, sync=sync) as staged:
        write_content(volume.content, staged.fd, report, output.name)
    report(Finished(output.name))
