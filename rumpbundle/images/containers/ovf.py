"""Read what an OVF says of its disks: their files, which is first, and what is done to them (DMTF, DSP0243)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.records.ovf import parse

MAX_BYTES = 4 << 20
_DISK = "17"
_CONTROLLERS = {"5", "6", "20"}
_HOST = re.compile("/(disk|file)/([^/]*)$")
"""What an item is on: a disk of the list, or a file without one (DSP0243 1.1.0, 8.1)."""


@dataclass(frozen=True, slots=True)
class DiskFile:
    """A file of the archive with a disk."""

    name: str
    compression: str
    """``gzip`` or the like; empty where the file is as it is."""
    chunked: bool
    """It is split into several members of the archive."""
    parent: bool
    """The disk holds only what differs from another."""


def disks(text: bytes) -> tuple[DiskFile, ...]:
    """Return the files with disks that the OVF *text* names, in the order in which its machines have them.

    Raises:
        ImageError: it is no XML, or not such as an OVF is.
    """
    found = _Reader().read(text)
    files = {each.get("id", ""): each for each in found.files}
    by_disk = {each.get("diskId", ""): each for each in found.disks}
    # A disk that is attached comes twice, and counts where it is first: searching such lists may have no end.
    attached = ({"fileRef": name} if kind == "file" else by_disk.get(name) for kind, name in found.attached())
    wanted = [disk for disk in attached if disk is not None] + found.disks
    result: dict[str, DiskFile] = {}
    for disk in wanted:
        file = files.get(disk.get("fileRef", ""))
        if file is not None:  # else the disk is empty, and made when the machine is
            name = file.get("href", "")
            compression = file.get("compression", "")
            result.setdefault(
                name,
                DiskFile(
                    name, "" if compression == "identity" else compression, "chunkSize" in file, "parentRef" in disk
                ),
            )
    return tuple(result.values())


class _Reader:
    """Collects attributes and texts; names are taken without their namespaces."""

    def __init__(self) -> None:
        self.files: list[Mapping[str, str]] = []
        self.disks: list[Mapping[str, str]] = []
        self._items: list[dict[str, str]] = []
        self._machines: list[int] = []
        """Of each item, how many machines were described before."""
        self._machine = 0
        self._path: list[str] = []
        self._text = ""

    def read(self, text: bytes) -> _Reader:
        try:
            parse(text, start=self._start, end=self._end, characters=self._characters)
        except ValueError as error:
            raise ImageError(f"OVF: is no XML that we read: {error}") from None
        return self

    def attached(self) -> list[tuple[str, str]]:
        """Return ``disk`` or ``file`` and its id for all in the machines, by controller and place on it."""
        items = tuple(zip(self._machines, self._items, strict=True))
        controllers: dict[tuple[int, str | None], int] = {}  # each machine counts them anew
        for machine, item in items:
            if item.get("ResourceType") in _CONTROLLERS:
                controllers.setdefault((machine, item.get("InstanceID")), len(controllers))
        found = []
        for number, (machine, item) in enumerate(items):
            named = _HOST.search(item.get("HostResource", ""))
            if item.get("ResourceType") == _DISK and named is not None:
                place = item.get("AddressOnParent", "")
                on = controllers.get((machine, item.get("Parent")), len(controllers))
                at = int(place) if place.isascii() and place.isdigit() and len(place) < 9 else 1 << 30
                found.append((machine, on, at, number, named.groups()))
        return [(kind, name) for *_, (kind, name) in sorted(found)]

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        plain = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        if name == "File" and self._path[-1:] == ["References"]:
            self.files.append(plain)
        elif name == "Disk" and self._path[-1:] in (["DiskSection"], ["Section"]):
            self.disks.append(plain)
        elif name in ("Item", "StorageItem"):
            self._items.append({})
            self._machines.append(self._machine)
        elif name in ("VirtualSystem", "Content"):
            self._machine += 1
        self._path.append(name)
        self._text = ""

    def _end(self, name: str) -> None:
        del name
        if len(self._path) > 1 and self._path[-2] in ("Item", "StorageItem") and self._items:
            self._items[-1].setdefault(self._path[-1], self._text.strip())
        self._path.pop()
        self._text = ""

    def _characters(self, text: str) -> None:
        self._text = (self._text + text)[:4096]
