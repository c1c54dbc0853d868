"""A finished image of ours as the bundle it was made from, so that its disk can be planned again.

The manifest says what was asked for and what was made; kernel, modules, files and volumes are where they stand in
the image, and so are the boot images. Nothing is copied, and no payload is read: digests are what the manifest says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from rumpbundle import hybrid
from rumpbundle.bootloader import bootimages
from rumpbundle.bootloader.bootimages import BootImages
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Computed, Content, Source
from rumpbundle.disk.gpt import LINUX_GUID, LINUX_MBR
from rumpbundle.disk.layout import DiskLayout
from rumpbundle.disk.tree import Directory, File, Node, Symlink
from rumpbundle.errors import ImageError, KernelError
from rumpbundle.finished import manifest as records
from rumpbundle.finished.manifest import Manifest
from rumpbundle.images.detect import file_system
from rumpbundle.images.disk import Disk
from rumpbundle.images.filesystem import Entry
from rumpbundle.images.filesystems.fat import Fat
from rumpbundle.images.filesystems.iso9660 import Iso9660
from rumpbundle.images.medium import Window
from rumpbundle.images.partitions import Slot, tables
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel, examine
from rumpbundle.kernels.view import View
from rumpbundle.manifest import (
    LAYOUT,
    MAX_MANIFEST,
    PATH,
    SCHEMA,
    Asked,
    Bundle,
    Choice,
    Module,
    Mounted,
    Volume,
    place_of,
)


class NotOursError(ImageError):
    """An image that cannot be planned again: not made by rumpbundle, or by one that made them otherwise."""


class ContradictionError(NotOursError):
    """An image of ours whose manifest does not describe the files beside it."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an image was made from."""

    manifest: Manifest
    raw: bytes
    """The manifest's own bytes."""
    bundle: Bundle
    images: BootImages | None
    """The boot images in it; those it does not hold are empty."""

    def plan(self) -> DiskLayout:
        """Return the disk of the bundle, as small as it can be, as :func:`rumpbundle.hybrid.plan` does."""
        return self._planned

    @cached_property
    def _planned(self) -> DiskLayout:
        return hybrid.plan(self.bundle, self.images)


def manifest_of(disk: Disk) -> bytes:
    """Return the bytes of the manifest on *disk*.

    Raises:
        NotOursError: there is none.
        ImageError: the file system is damaged.
    """
    files = file_system(disk)
    entry = files.find(PATH) if isinstance(files, Iso9660) else None
    if files is None or entry is None or entry.kind != "file":
        raise NotOursError("was not made by rumpbundle: it holds no /rumpbundle.json")
    if entry.size > MAX_MANIFEST:
        raise ImageError(f"{PATH} has {entry.size} bytes")
    return b"".join(files.chunks(entry))


def origin(disk: Disk) -> Origin:
    """Return what the image that holds *disk* was made from.

    Raises:
        NotOursError: it cannot be planned again; the message says why.
        ImageError: it is damaged.
    """
    return planned_from(manifest_of(disk), lambda manifest, raw: _Image(disk, manifest).origin(raw))


def planned_from(raw: bytes, read: Callable[[Manifest, bytes], Origin]) -> Origin:
    """Return what *read* makes of the manifest *raw*, if that is what *raw* describes.

    Raises:
        NotOursError, ImageError: as :func:`origin`.
    """
    _check_schema(raw)
    manifest = records.parse(raw)
    try:
        made = read(manifest, raw)
    except ValueError as error:  # a firmware or a protocol there is not
        raise ImageError(f"{PATH}: {error}") from None
    if made.bundle.manifest() != raw:
        raise ContradictionError(f"{PATH} does not describe the files beside it, so the disk cannot be planned again")
    return made


def described(manifest: Manifest, kernel: Unikernel) -> Bundle:
    """Return the bundle of *kernel* that *manifest* describes, without what stands in files of its own."""
    return Bundle(
        name=manifest.name,
        kernel=kernel,
        firmware=manifest.firmware,
        boot=manifest.boot,
        cmdline=manifest.cmdline,
        table=manifest.table,
        bus=manifest.bus,
        console=manifest.console,
        epoch=manifest.epoch,
        grub=manifest.grub,
        asked=_asked(manifest),
        version=manifest.rumpbundle,
    )


def kernel_of(name: str, content: Content, repairs: tuple[str, ...]) -> Unikernel:
    """Return the kernel that was bundled as *name*, with *repairs*.

    Raises:
        ImageError: *content* is none.
    """
    view = View(content.size, lambda offset, length: content.part(offset, offset + length).read())
    try:
        kernel = examine(name, view, content)
    except KernelError as error:
        raise ImageError(f"its kernel {error.problem}") from None
    return replace(kernel, content=content, repairs=repairs)


def _check_schema(raw: bytes) -> None:
    try:
        said: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return  # told by whoever parses it
    if not isinstance(said, dict) or "schema" not in said:
        raise NotOursError("was made before 0.1.0", hint="bundle again")
    if said["schema"] != SCHEMA or said.get("layout") != LAYOUT:
        numbers = f"schema {said['schema']}, layout {said.get('layout')}"
        raise NotOursError(f"was made by a rumpbundle with another layout ({numbers})", hint="bundle again")


def content_at(disk: Disk, offset: int, length: int, *, sparse: bool = False) -> Content:
    """Return *length* bytes of *disk* from *offset*, without reading them."""
    sources: list[Source] = []
    for run in disk.runs(offset, length):
        sources.append(_Unpacked.of(disk, run.offset, run.length) if run.source is None else run.source)
    return Content(tuple(sources), sparse=sparse)


class _Unpacked:
    """Bytes of a disk that stand nowhere as they are: compressed ones."""

    @staticmethod
    def of(disk: Disk, start: int, length: int) -> Computed:
        return Computed(length, lambda offset, count: disk.read(start + offset, count))


class _Image:
    """The files of an image of ours, by their places."""

    def __init__(self, disk: Disk, manifest: Manifest) -> None:
        self._disk = disk
        self._manifest = manifest
        files = file_system(disk)
        assert isinstance(files, Iso9660)
        self._entries = {entry.path: entry for entry in files.entries()}
        self._shared: dict[tuple[int, int], Content] = {}
        """The contents given so far, by place and size: hard links share one."""
        self._slots = [slot for table in tables(disk, thorough=False)[-1:] for slot in table.slots]

    def origin(self, raw: bytes) -> Origin:
        manifest = self._manifest
        bundle = replace(
            described(manifest, self._kernel()),
            modules=tuple(self._modules()),
            root=self._root(),
            esp=self._esp(),
            volumes=tuple(self._volumes()),
            config=self._config(),
            choices=tuple(self._choices()),
        )
        return Origin(manifest=manifest, raw=raw, bundle=bundle, images=self._images() if manifest.firmware else None)

    def _file(self, path: str) -> Entry:
        entry = self._entries.get(path)
        if entry is None or entry.kind != "file":
            raise ImageError(f"{path} is missing, though {PATH} names it")
        return entry

    def _content(self, entry: Entry, described: records.Described | records.File) -> Content:
        """Return the bytes of *entry*, which the manifest describes."""
        if entry.size != described.size:
            raise ImageError(f"{entry.path} has {entry.size} bytes, {PATH} says {described.size}")
        start = entry.spans[0].offset or 0 if entry.size else 0
        key = (start, entry.size) if entry.size else (id(entry), 0)
        if key not in self._shared:
            sparse = described.blocks_blake3 is not None
            content = content_at(self._disk, start, entry.size, sparse=sparse)
            if digest := described.blocks_blake3 or described.blake3:
                content.remember(digest)
            self._shared[key] = content
        return self._shared[key]

    def _kernel(self) -> Unikernel:
        entry, said = self._below("/boot/kernel"), self._manifest.kernel
        return kernel_of(entry.path.rpartition("/")[2], self._content(entry, said), said.repairs)

    def _below(self, directory: str) -> Entry:
        """Return the one file in *directory*."""
        found = [entry for path, entry in self._entries.items() if path.rpartition("/")[0] == directory]
        if len(found) != 1 or found[0].kind != "file":
            raise ImageError(f"{directory} holds {len(found)} files, expected one")
        return found[0]

    def _modules(self) -> Iterator[Module]:
        for number, described in enumerate(self._manifest.modules):
            entry = self._below(f"/boot/modules/{number}")
            name = entry.path.rpartition("/")[2]
            yield Module(name, self._content(entry, described), described.text, described.room)

    def _choices(self) -> Iterator[Choice]:
        for number, said in enumerate(self._manifest.choices):
            choice = Choice(key=said.key, config=said.config, cmdline=said.cmdline, place=said.place)
            if said.place != "cmdline":
                choice = replace(choice, content=self._content(self._file(place_of(number)), said))
            yield choice

    def _root(self) -> Directory:
        """Return the guest's own files: what the manifest lists, in its order, which is that of a walk."""
        listed = [path for path in self._entries if not self._is_ours(path)]
        children: dict[str, list[Node]] = {"": []}
        ordered = sorted(listed, key=_as_walked)
        if len(ordered) != len(self._manifest.files):
            raise ImageError(f"it holds {len(ordered)} files for the guest, {PATH} lists {len(self._manifest.files)}")
        nodes: list[tuple[str, Entry, records.File]] = []
        for path, described in zip(ordered, self._manifest.files, strict=True):
            nodes.append((path, self._entries[path], described))
            if self._entries[path].kind == "directory":
                children[path] = []
        for path, entry, described in reversed(nodes):
            parent, _, name = path.rpartition("/")
            children[parent].append(self._node(name, path, entry, described, children))
        return Directory("", tuple(reversed(children[""])))

    def _node(
        self, name: str, path: str, entry: Entry, described: records.File, children: Mapping[str, list[Node]]
    ) -> Node:
        if entry.kind == "symlink":
            return Symlink(name, entry.target)
        if entry.kind == "directory":
            return Directory(name, tuple(reversed(children[path])), entry.mode)
        if described.size is None:
            raise ImageError(f"{path} is a {entry.kind}, {PATH} says otherwise")
        return File(name, self._content(entry, described), entry.mode, described.room)

    def _is_ours(self, path: str) -> bool:
        top = path.split("/", 2)[1]
        if top in (PATH[1:], "boot") or (top == "EFI" and Firmware.UEFI in self._manifest.firmware):
            return True
        return top == "json.cfg" and self._manifest.config is not None

    def _config(self) -> bytes:
        """Return the configuration that is handed over beside the disk; PV-GRUB's guests find it on it."""
        if self._manifest.config is None:
            return b""
        content = self._content(self._file("/json.cfg"), self._manifest.config)
        return content.read()

    def _esp_slot(self) -> Slot | None:
        return next((slot for slot in self._slots if slot.meaning == "EFI system partition"), None)

    def _esp(self) -> Directory:
        slot = self._esp_slot()
        if not self._manifest.esp or slot is None:
            return Directory("")
        files = Fat(Window(self._disk, slot.offset, slot.size, "the EFI system partition"))
        entries = {entry.path: entry for entry in files.entries()}
        children: dict[str, list[Node]] = {"": []}
        for described in self._manifest.esp:
            if described.size is None:
                children[described.path] = []
        for described in reversed(self._manifest.esp):
            parent, _, name = described.path.rpartition("/")
            entry = entries.get(described.path)
            if entry is None or parent not in children:
                raise ImageError(f"{described.path} is missing on the EFI system partition, though {PATH} names it")
            if described.size is None:
                children[parent].append(Directory(name, tuple(reversed(children[described.path]))))
                continue
            start = slot.offset + (entry.spans[0].offset or 0) if entry.size else 0
            content = content_at(self._disk, start, entry.size)
            content.remember(described.blake3 or "")
            children[parent].append(File(name, content))
        return Directory("", tuple(reversed(children[""])))

    def _volumes(self) -> Iterator[Volume]:
        ours = [slot for slot in self._slots if slot.type in (LINUX_GUID, f"{LINUX_MBR:02x}")]
        if len(ours) < len(self._manifest.volumes):
            raise ImageError(f"{len(ours)} partitions for {len(self._manifest.volumes)} volumes")
        for slot, described in zip(sorted(ours, key=lambda slot: slot.offset), self._manifest.volumes, strict=False):
            content = content_at(self._disk, slot.offset, described.size, sparse=described.blocks_blake3 is not None)
            content.remember(described.digest or "")
            yield Volume(described.label, described.filesystem, content, described.device)

    def _images(self) -> BootImages:
        """Return the boot images as they were before the layout wrote their places into them."""
        mbr = bootimages.blanked(self._disk.read(0, bootimages.MBR_ADDRESS.stop), bootimages.MBR_ADDRESS)
        bios = efi = b""
        found = None
        if Firmware.BIOS in self._manifest.firmware:
            image = self._loader("/boot/grub/eltorito.img").read()
            bios = bootimages.blanked(image, bootimages.BOOT_INFO, bootimages.NEXT_SECTOR)
        if Firmware.UEFI in self._manifest.firmware and self._manifest.boot.get(Firmware.UEFI) != Protocol.EFI:
            found = self._loader("/EFI/BOOT/BOOTX64.EFI")
            efi = found.read()
        return BootImages(self._manifest.grub.get("version", ""), mbr, bios, efi, found=found)

    def _loader(self, path: str) -> Content:
        entry = self._file(path)
        if entry.size > _MOST_LOADER:
            raise ImageError(f"{path} has {entry.size} bytes")
        return content_at(self._disk, entry.spans[0].offset or 0, entry.size)


_MOST_LOADER = 32 << 20
"""Bytes of a boot image that are read."""


def _as_walked(path: str) -> list[bytes]:
    """Return the key by which paths sort as a walk of their tree yields them."""
    return [part.encode("utf-8", "surrogateescape") for part in path.split("/")]


def _asked(manifest: Manifest) -> Asked:
    asked = manifest.asked
    return Asked(
        cmdline=asked.cmdline,
        argv0=asked.argv0,
        protocol=asked.protocol,
        config=asked.config,
        modules=asked.modules,
        mounts=tuple(Mounted(mount.mount, mount.place, mount.writable) for mount in asked.mounts),
        size=manifest.size,
        room=manifest.room,
        default=asked.default,
    )


__all__ = [
    "ContradictionError",
    "NotOursError",
    "Origin",
    "content_at",
    "described",
    "kernel_of",
    "manifest_of",
    "origin",
    "planned_from",
]
