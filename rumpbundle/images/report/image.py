"""The layers of a finished image: container, partition tables, boot catalog, file systems, boot configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.digest import hexdigest
from rumpbundle.disk.inputfile import InputFile, close
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.events import Note, Report, silent
from rumpbundle.images.budget import Budget
from rumpbundle.images.containers.tar import Member, is_tar, members
from rumpbundle.images.detect import open_disk
from rumpbundle.images.disk import Disk, Fact
from rumpbundle.images.filesystem import Entry, FileSystem, Span
from rumpbundle.images.filesystems.iso9660 import BootEntry, Iso9660
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.partitions import Table, tables
from rumpbundle.images.stored import Stored
from rumpbundle.images.stored import stored as stored_parts
from rumpbundle.images.volumes import Place, mounted
from rumpbundle.manifest import MAX_MANIFEST
from rumpbundle.manifest import PATH as MANIFEST

MAX_TEXT = 256 << 10
"""Bytes shown of a configuration."""

_MAX_DAMAGED = 8
"""Files without a sound place after which a listing ends."""

_BOOT_CONFIGS = (
    "/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/efi/boot/grub.cfg", "/boot/grub/menu.lst",
    "/isolinux/isolinux.cfg", "/syslinux/syslinux.cfg", "/syslinux.cfg", "/boot/extlinux/extlinux.conf",
    "/loader/loader.conf", "/limine.conf",
)  # fmt: skip
_GUEST_CONFIGS = ("/json.cfg", "/cfg.json")

Kind = OneOf["table", "structure", "boot", "kernel", "file", "partition", "stored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A part of the disk, or of the image's file, and what stands there."""

    offset: int
    length: int
    label: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReport:
    """A file system found on the disk."""

    where: str
    """``whole disk``, ``partition 2``, ``boot entry (uefi)``."""
    offset: int
    kind: str
    label: str
    size: int
    facts: Mapping[str, Fact]
    entries: tuple[Entry, ...]
    boot_entries: tuple[BootEntry, ...] = ()
    structures: tuple[Span, ...] = ()
    """Where what belongs to no file stands in it, by place."""
    flaws: tuple[str, ...] = ()

    @property
    def regions(self) -> tuple[Region, ...]:
        """What it holds, by place on the disk: structures and files."""
        starts = {self.offset + entry.offset for entry in self.boot_entries}
        own = (
            Region(offset=self.offset + start, length=length, label=f"{self.kind} structures", kind="structure")
            for start, length in _joined(self.structures)
        )
        files = (region for entry in self.entries for region in _regions(entry, self.offset, starts))
        return _inside([*own, *files], self.offset + self.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A configuration found inside, whole or its beginning."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """A finished image, ours or not."""

    name: str
    file_size: int
    container: str
    facts: Mapping[str, Fact]
    members: tuple[Member, ...]
    """The files of the archive the container stands in (OVA); offsets in the file."""
    disk_size: int
    tables: tuple[Table, ...]
    volumes: tuple[VolumeReport, ...]
    boot_configs: tuple[Text, ...]
    guest_configs: tuple[Text, ...]
    """What the guest is told, where it is a file or the module of a rumprun guest."""
    manifest: Mapping[str, Any] | None
    """``/rumpbundle.json``, if the image is ours."""
    digest: str
    """The BLAKE3 of exactly those bytes, which names the bundle; empty without a manifest."""
    flaws: tuple[str, ...]
    stored: tuple[Stored, ...] = ()
    """Where the file has the parts of the disk, if that was asked for and they do not stand there as they are."""

    @property
    def table_regions(self) -> tuple[Region, ...]:
        """The partition tables and the partitions, by place."""
        regions = []
        last = self.tables[-1] if self.tables else None
        for start, end, label in () if last is None else last.regions:
            regions.append(Region(offset=start, length=end - start, label=label, kind="table"))
        for slot in self.tables[-1].slots if self.tables else ():
            name = slot.name or slot.meaning or f"type {slot.type}"
            regions.append(
                Region(offset=slot.offset, length=slot.size, label=f"{slot.number} {name}", kind="partition")
            )
        return _inside(regions, self.disk_size)


def look_into(path: str | os.PathLike[str], report: Report = silent, *, stored: bool = False) -> ImageReport:
    """Return the layers of the image at *path*, with *stored* also where its file has the disk.

    Damage below the container is told in ``flaws``.

    Raises:
        InputError: it cannot be read.
        ImageError: its container is damaged.
    """
    # What a note says of an archive stands among the flaws.
    with open_disk(path, lambda event: None if isinstance(event, Note) else report(event), whole=True) as disk:
        flaws: list[str] = []
        if disk.ambiguity:
            flaws.append(f"tar: {disk.ambiguity}")
        found = tables(disk)
        flaws += [f"{table.kind.upper()}: {flaw}" for table in found for flaw in table.flaws]
        described = list(_volumes(disk, found))
        volumes = tuple(volume for volume, _ in described)
        flaws += [f"{volume.kind}, {volume.where}: {flaw}" for volume in volumes for flaw in volume.flaws]
        manifest, digest = _manifest(described, flaws)
        name = os.path.basename(os.path.normpath(os.fspath(path)))
        places = _stored(disk, flaws) if stored and not os.path.isdir(path) else ()
        return ImageReport(
            name=name,
            file_size=_file_size(path),
            container=disk.container,
            facts=({"inside": " in ".join(reversed(disk.around))} if disk.around else {}) | dict(disk.facts),
            members=_members(path),
            disk_size=disk.size,
            tables=found,
            volumes=volumes,
            boot_configs=tuple(_texts(described, _BOOT_CONFIGS)),
            guest_configs=tuple(_texts(described, (*_GUEST_CONFIGS, *_config_modules(manifest)))),
            manifest=manifest,
            digest=digest,
            flaws=tuple(flaws),
            stored=places,
        )


def _stored(disk: Disk, flaws: list[str]) -> tuple[Stored, ...]:
    """Return where the file of *disk* has its parts; nothing of a plain disk, which is its file."""
    size = disk.outermost.size if disk.outermost is not None else 0
    try:
        found = stored_parts(disk)
    except ImageError as error:
        flaws.append(error.problem)
        return ()
    there = tuple(part for part in found if part.end <= size)
    if there != found:
        lost = next(part for part in found if part.end > size)
        flaws.append(
            f"{disk.container}: byte {lost.offset} of the disk, or one behind it, lies behind the end of the file"
        )
    return () if found == (Stored(0, size, 0, size),) else there


def _file_size(path: str | os.PathLike[str]) -> int:
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path) if entry.is_file())
    return InputFile(path).size


def _members(path: str | os.PathLike[str]) -> tuple[Member, ...]:
    """Return the members of the tar archive at *path*; of a compressed one only the disk matters."""
    if os.path.isdir(path):
        return ()
    file = InputFile(path)
    if not is_tar(file.read(0, min(file.size, SECTOR))):
        return ()
    fd = file.open()
    try:
        return tuple(members(FdMedium(fd)))
    finally:
        close(fd)


def _volumes(disk: Disk, found: tuple[Table, ...]) -> Iterator[tuple[VolumeReport, FileSystem]]:
    """Yield every file system, described; one budget serves all."""
    budget = Budget()
    for volume in mounted(disk, found):
        yield _described(volume.files, volume.place, budget), volume.files


def _described(volume: FileSystem, place: Place, budget: Budget) -> VolumeReport:
    """Return what *volume* is and holds, as far as the *budget* goes."""
    entries: list[Entry] = []
    boot: tuple[BootEntry, ...] = ()
    structures: tuple[Span, ...] = ()
    flaws = [*([volume.cut] if volume.cut else []), *volume.remarks]
    try:
        structures = volume.structures
        if isinstance(volume, Iso9660):
            boot = volume.boot_entries
    except ImageError as error:
        flaws.append(error.problem)
    try:
        entries += _placed(volume.entries("/", budget), flaws)
    except ImageError as error:
        flaws.append(error.problem)
    return VolumeReport(
        where=place.where,
        offset=place.offset,
        kind=volume.kind,
        label=volume.label,
        size=volume.size,
        facts=dict(volume.facts),
        entries=tuple(entries),
        boot_entries=boot,
        structures=(*structures, *volume.directories),
        flaws=tuple(flaws),
    )


def _placed(entries: Iterator[Entry], flaws: list[str]) -> Iterator[Entry]:
    """Yield *entries*, those whose place is damaged without one; what is wrong with them is added to *flaws*."""
    damaged = 0
    for entry in entries:
        try:
            _ = entry.spans
        except ImageError as error:
            flaws.append(f"{entry.path}: {error.problem}")
            damaged += 1
            yield replace(entry, place=())
            if damaged >= _MAX_DAMAGED:
                return
        else:
            yield entry


def _regions(entry: Entry, offset: int, starts: set[int]) -> Iterator[Region]:
    """Yield where the bytes of *entry* stand, in a volume at *offset*; firmware starts what stands at *starts*."""
    left = entry.size
    for span in entry.spans:
        if span.offset is not None:
            start = offset + span.offset
            kind = "boot" if start in starts else _kind(entry.path)
            yield Region(offset=start, length=min(span.length, left), label=entry.path, kind=kind)
        left -= span.length


def _joined(spans: tuple[Span, ...]) -> Iterator[tuple[int, int]]:
    """Yield offset and length of what *spans* cover, neighbours as one."""
    start = end = 0
    for low, length in sorted((span.offset, span.length) for span in spans if span.offset is not None):
        if low > end:
            if end > start:
                yield start, end - start
            start = low
        end = max(end, low + length)
    if end > start:
        yield start, end - start


def _kind(path: str) -> Kind:
    """Return what the file at *path* is for, as our images have it."""
    if path.startswith("/boot/kernel/"):
        return "kernel"
    return "boot" if path.lower() == "/efi/boot/bootx64.efi" else "file"


def _inside(regions: list[Region], end: int) -> tuple[Region, ...]:
    """Return *regions* by place, each once, without what reaches past *end* (a damaged table's)."""
    kept = {(r.offset, r.length): r for r in regions if r.length and r.offset >= 0 and r.offset + r.length <= end}
    return tuple(kept[place] for place in sorted(kept))


def _manifest(
    mounted: list[tuple[VolumeReport, FileSystem]], flaws: list[str]
) -> tuple[Mapping[str, Any] | None, str]:
    for volume, medium in mounted:
        entry = next((entry for entry in volume.entries if entry.path == MANIFEST and entry.kind == "file"), None)
        if entry is None:
            continue
        if entry.size > MAX_MANIFEST:
            flaws.append(f"{MANIFEST} has {entry.size} bytes")
            continue
        try:
            data = b"".join(medium.chunks(entry))
            value = json.loads(data)
        except (ValueError, ImageError, RecursionError):
            flaws.append(f"{MANIFEST} is no readable JSON")
            continue
        if isinstance(value, dict):
            return value, hexdigest(data)
    return None, ""


def _config_modules(manifest: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the paths of the boot modules that are rumprun's (docs/facts/guests.md#rumprun-configuration)."""
    if manifest is None or manifest.get("family") != "rumprun":
        return ()
    modules = manifest.get("modules")
    first = modules[0] if isinstance(modules, list) and modules else None
    return (f"/boot/modules/0/{first['name']}",) if isinstance(first, dict) and "name" in first else ()


def _texts(mounted: list[tuple[VolumeReport, FileSystem]], paths: tuple[str, ...]) -> Iterator[Text]:
    """Yield the texts at *paths*, letters of either case, of all volumes; equal ones once."""
    seen: set[tuple[str, str]] = set()
    wanted = {path.lower() for path in paths}
    for volume, medium in mounted:
        for entry in volume.entries:
            if entry.kind != "file" or entry.path.lower() not in wanted:
                continue
            data = b""
            try:
                for chunk in medium.chunks(entry):
                    data += chunk[: MAX_TEXT - len(data)]
                    if len(data) >= MAX_TEXT:
                        break
            except ImageError:
                continue
            text = data.decode("utf-8", "backslashreplace")
            if (entry.path.lower(), text) not in seen:
                seen.add((entry.path.lower(), text))
                yield Text(path=entry.path, text=text)
