"""A finished image, as QEMU opens it, and what it says about its guest."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK, InputFile
from rumpbundle.disk.flat import disk_error
from rumpbundle.errors import ImageError, RumpbundleError, UsageError
from rumpbundle.images import detect
from rumpbundle.images.containers import archive
from rumpbundle.images.detect import file_system
from rumpbundle.images.medium import FdMedium, Medium
from rumpbundle.kernels.unikernel import Device
from rumpbundle.launcher.backend import Disk

MOST = 16 << 20
"""Bytes of a manifest that we are ready to read."""

_QEMU_FORMATS = {"vhd": "vpc"}
"""What QEMU calls the containers it has other names for."""
_VHD_FOOTER = 512


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image: the disk in it and, if we made it, its manifest."""

    disk: Disk
    manifest: Mapping[str, Any]

    @property
    def drivers(self) -> frozenset[str]:
        """The driver of the bus on which the guest looks for this image, if it does."""
        bus = self.manifest.get("bus")
        return frozenset([bus]) if isinstance(bus, str) else frozenset()

    @property
    def devices(self) -> tuple[Device, ...] | None:
        """What a Solo5 unikernel's manifest asks for; None for other guests."""
        found = self.manifest.get("devices")
        if not isinstance(found, list):
            return None
        words = [each.partition(" ") for each in found if isinstance(each, str)]
        return tuple(Device(name, kind) for kind, _, name in words if kind in ("block", "net"))


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], *, persist: bool) -> Iterator[Image]:
    """Give the image at *path*, of any format; what had to be unpacked for it lives until the block ends.

    Raises:
        InputError: it cannot be read.
        ImageError: it is damaged.
        UsageError: it cannot be booted, or not be written to as *persist* asks.
    """
    path = os.fspath(path)
    if os.path.isdir(path):
        path = _in_kit(path)
    file = InputFile(path)
    head = file.read(0, min(file.size, 512))
    with detect.open_disk(path) as disk:
        manifest = _manifest(disk)
        if head.startswith(b"\x1f\x8b"):
            _check_writable(path, persist)
            with tempfile.TemporaryFile(prefix="rumpbundle-") as unpacked:
                _copy(disk, unpacked.fileno())
                yield Image(Disk(path=f"/dev/fd/{unpacked.fileno()}", fd=unpacked.fileno(), persist=True), manifest)
            return
    if archive.is_tar(head):
        _check_writable(path, persist)
        yield Image(_in_archive(file), manifest)
    elif disk.container == "vhd (fixed)":
        # A fixed VHD is a raw disk with a footer; QEMU's vpc driver would round its size to whole cylinders.
        yield Image(Disk(path=path, length=file.size - _VHD_FOOTER, persist=persist), manifest)
    else:
        container = disk.container.split()[0]
        yield Image(Disk(path=path, format=_QEMU_FORMATS.get(container, container), persist=persist), manifest)


def unpacked(path: str | os.PathLike[str], to: str) -> Image:
    """Write the disk in the image at *path*, of any format, to the new raw file *to*, and return it.

    Raises:
        InputError: it cannot be read.
        ImageError: it is damaged.
        HostError: there is no space for it.
    """
    with detect.open_disk(path) as disk, open(to, "xb") as file:
        _copy(disk, file.fileno())
        return Image(Disk(path=to, persist=True), _manifest(disk))


def _check_writable(path: str, persist: bool) -> None:
    if persist:
        raise UsageError(
            "is an archive, which cannot be written to", where=path, hint="leave out --persist, or unpack the disk"
        )


def _in_kit(directory: str) -> str:
    if os.path.exists(os.path.join(directory, "volume.raw")):
        return os.path.join(directory, "volume.raw")
    if os.path.exists(os.path.join(directory, "xl.cfg")):
        raise UsageError("is a Xen kit; its xl.cfg is for `xl create`", where=directory)
    raise UsageError("is a directory without a disk image", where=directory)


def _in_archive(file: InputFile) -> Disk:
    """Return the disk that stands in an OVA; QEMU reads it where it is."""
    fd = file.open()
    try:
        for member in archive.members(FdMedium(fd)):
            if member.name.lower().endswith(".vmdk"):
                return Disk(path=file.path, format="vmdk", offset=member.offset, length=member.size)
    finally:
        os.close(fd)
    raise ImageError("holds no .vmdk disk", where=file.path)


def _copy(disk: Medium, fd: int) -> None:
    """Write *disk* to *fd*, sparse."""
    try:
        os.ftruncate(fd, disk.size)
        for offset in range(0, disk.size, CHUNK):
            data = disk.read(offset, min(CHUNK, disk.size - offset))
            if data.count(0) != len(data):
                os.pwrite(fd, data, offset)
    except OSError as error:
        raise disk_error(error) from None


def _manifest(disk: Medium) -> Mapping[str, Any]:
    """Return the manifest on *disk*, empty if it has none we can read."""
    with contextlib.suppress(RumpbundleError, ValueError, RecursionError):
        files = file_system(disk)
        entry = None if files is None else files.find("/rumpbundle.json")
        if files is not None and entry is not None and entry.size <= MOST:
            manifest = json.loads(b"".join(files.chunks(entry)))
            return manifest if isinstance(manifest, dict) else {}
    return {}
