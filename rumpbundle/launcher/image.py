"""A finished image, as QEMU opens it, and what it says about its guest."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK, Content, Zeros
from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import HostError, InputError, KernelError, RumpbundleError, UsageError
from rumpbundle.events import Report, silent
from rumpbundle.host.programs import shown
from rumpbundle.images import detect
from rumpbundle.images import disk as images
from rumpbundle.images.detect import NoImageError, file_system
from rumpbundle.images.filesystem import Entry, FileSystem, Span
from rumpbundle.images.medium import Medium
from rumpbundle.images.node import node_of
from rumpbundle.images.partitions import tables
from rumpbundle.images.volumes import only_from_cd, warn_of_cut_off
from rumpbundle.kernels.footprint import footprint
from rumpbundle.kernels.unikernel import Device, Family, Firmware, Unikernel, examine
from rumpbundle.kernels.view import View
from rumpbundle.launcher.backend import Drive
from rumpbundle.manifest import MAX_MANIFEST, PATH, said

_KERNEL = "/boot/kernel/"
_LOADED = (_KERNEL, "/boot/modules/")
"""Where :mod:`rumpbundle.hybrid` puts what a boot loader loads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootImage:
    """A finished image: the disk in it and, if we made it, its manifest and its kernel."""

    disk: Drive
    manifest: Mapping[str, Any]
    kernel: Unikernel | None = None
    modules: tuple[tuple[int, bytes], ...] = ()
    """Size and first bytes of its boot modules."""
    cd: bool = False
    """Whether it starts only from a CD drive."""

    @property
    def family(self) -> Family:
        found = self.manifest.get("family")
        return Family(found) if found in tuple(Family) else Family.PLAIN

    @property
    def firmware(self) -> Firmware:
        """What to boot it from: BIOS, unless it says that it cannot."""
        boot = self.manifest.get("boot")
        bios = not isinstance(boot, dict) or not boot or Firmware.BIOS in boot
        return Firmware.BIOS if bios else Firmware.UEFI

    @property
    def cmdline(self) -> str:
        found = self.manifest.get("cmdline")
        return found if isinstance(found, str) else ""

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

    @property
    def footprint(self) -> int:
        """Bytes of memory that its kernel and modules take once they are loaded; 0 if they are not known."""
        return 0 if self.kernel is None else footprint(self.kernel, self.modules)


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], report: Report = silent, *, persist: bool) -> Iterator[BootImage]:
    """Give the image at *path*, of any format; its file stays open, and what had to be unpacked lives, in the block.

    *report* hears how far it is unpacked, and which of several disks is read.

    Raises:
        InputError: it cannot be read.
        HostError: it cannot be written to as *persist* asks.
        ImageError: it is damaged, or other files belong to it.
        UsageError: it is no kind of image that can be written to, which *persist* asks for.
    """
    path = detect.disk_file(path)
    with _disk_in(path, report) as disk, contextlib.ExitStack() as stack:
        node = node_of(disk)
        found = _contents(disk)
        if not found["manifest"]:
            warn_of_cut_off(disk, path, report)
        if persist and (node is None or node.offset or disk.container == "vmdk (stream)"):
            raise UsageError(
                "is packed, and cannot be written to", where=path, hint="leave out --persist, or unpack the disk"
            )
        if node is None:
            yield BootImage(disk=replace(_unpacked(disk, stack), sector=_sector_of(disk)), **found)
            return
        fd = node.fd
        if persist:
            fd = _writable(path, fd)
            stack.callback(os.close, fd)
        yield BootImage(
            disk=Drive(
                path=path,
                format=node.driver,
                offset=node.offset,
                length=node.length,
                persist=persist,
                sector=_sector_of(disk),
                fd=fd,
            ),
            **found,
        )


def described(disk: images.Disk, path: str) -> BootImage:
    """Return what the image at *path* says of its guest, for who does not boot it; *disk* is opened from it."""
    return BootImage(disk=Drive(path=path), **_contents(disk))


def _sector_of(disk: images.Disk) -> int:
    """Return the bytes of the sectors in which the partitions of *disk* are counted."""
    with contextlib.suppress(RumpbundleError):  # what is damaged may boot all the same
        return next((table.sector for table in reversed(tables(disk, thorough=False)) if table.slots), SECTOR)
    return SECTOR


@contextlib.contextmanager
def _disk_in(path: str, report: Report) -> Iterator[images.Disk]:
    """Give the disk in the image at *path*; of a kernel, say what boots it."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(detect.open_disk(path, report, watch="no", whole=True))
        except NoImageError as error:
            error.hint = error.hint or (
                f"rumpbundle --boot qemu {shown([path])}" if "kernel" in error.problem else None
            )
            raise
        yield disk


def _writable(path: str, fd: int) -> int:
    """Return another descriptor of the open file *fd*, to write to; *path* is its name."""
    try:
        writable = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(
            f"cannot be written to: {os.strerror(error.errno or 0)}", where=path, hint="leave out --persist"
        ) from None
    if not os.path.sameopenfile(fd, writable):
        os.close(writable)
        raise InputError("changed while it was read", where=path)
    return writable


def _unpacked(disk: images.Disk, stack: contextlib.ExitStack) -> Drive:
    """Return *disk* as a file without a name, which lives as long as *stack*."""
    with disk_errors():
        fd = stack.enter_context(tempfile.TemporaryFile(prefix="rumpbundle-")).fileno()  # noqa: SIM115 (it does)
    _copy(disk, fd)
    return Drive(path=f"/dev/fd/{fd}", fd=fd, persist=True)


def unpacked(path: str | os.PathLike[str], to: str, report: Report = silent) -> BootImage:
    """Write the disk in the image at *path*, of any format, to the new raw file *to*, and return it.

    Raises:
        InputError: it cannot be read.
        ImageError: it is damaged, or other files belong to it.
        HostError: there is no space for it.
    """
    with detect.open_disk(path, report, watch="no", whole=True) as disk, open(to, "xb") as file:
        node_of(disk)
        _copy(disk, file.fileno())
        return BootImage(disk=Drive(path=to, persist=True), **_contents(disk))


def _copy(disk: images.Disk, fd: int) -> None:
    """Write *disk* to *fd*, sparse; what is known to be zero is not even read."""
    with disk_errors():
        os.ftruncate(fd, disk.size)
        for run in disk.runs():
            if isinstance(run.source, Zeros):
                continue
            for offset in range(run.offset, run.offset + run.length, CHUNK):
                data = disk.read(offset, min(CHUNK, run.offset + run.length - offset))
                if data.count(0) != len(data):
                    write_all(fd, data, offset)


def _contents(disk: Medium) -> dict[str, Any]:
    """Return what is known of the guest on *disk*, as fields of :class:`BootImage`: little, if we did not make it."""
    manifest: Mapping[str, Any] = {}
    loaded: list[Entry] = []
    with contextlib.suppress(RumpbundleError, ValueError, RecursionError):
        files = file_system(disk)
        for entry in () if files is None else files.entries():
            assert files is not None
            if entry.path == PATH and entry.size <= MAX_MANIFEST:
                manifest = said(b"".join(files.chunks(entry)))
            elif entry.kind == "file" and entry.path.startswith(_LOADED):
                loaded.append(entry)
            modules = manifest.get("modules")
            if manifest and isinstance(modules, list) and len(loaded) > len(modules):
                break
        if files is not None and manifest:
            return {"manifest": manifest} | _loaded(files, loaded)
    return {"manifest": manifest, "cd": only_from_cd(disk)}


def _loaded(files: FileSystem, loaded: list[Entry]) -> dict[str, Any]:
    """Return the kernel and the modules among the files a boot loader loads."""
    kernel = None
    modules = []
    for entry in loaded:
        view = _view(files, entry)
        if not entry.path.startswith(_KERNEL):
            modules.append((entry.size, view.read(0, 6)))
            continue
        with contextlib.suppress(KernelError):
            # Nobody reads its bytes any more, only how many they are.
            kernel = examine(os.path.basename(entry.path), view, Content((Zeros(entry.size),)))
    return {"kernel": kernel, "modules": tuple(modules)}


def _view(files: FileSystem, entry: Entry) -> View:
    """Return the bytes of a file; none of one that does not stand in one piece, as the kernels we place do."""
    (span, *others) = entry.spans or (Span(None, 0),)
    start = span.offset
    if start is None or others or span.length < entry.size:
        return View.of_bytes(b"")
    return View(entry.size, lambda offset, length: files.medium.read(start + offset, length))
