"""Read what an OVF says of its disks: their files, which is first, and what is done to them (DMTF, DSP0243)."""

from __future__ import annotations

from collections.abc import Mapping

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.records.ovf import parse

MAX_BYTES = 4 << 20
_DISK = "17"
_CONTROLLERS = {"5", "6", "20"}


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
    """Return the files with disks that the OVF *text* names, in the order in which the machine has them.

    Raises:
        ImageError: it is no XML, or not such as an OVF is.
    """
    found = _Reader().read(text)
    files = {each.get("id", ""): each for each in found.files}
    by_disk = {each.get("diskId", ""): each for each in found.disks}
    # A disk that is attached comes twice, and counts where it is first: searching such lists may have no end.
    wanted = [disk for disk in map(by_disk.get, found.attached()) if disk is not None] + found.disks
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
        self._path: list[str] = []
        self._text = ""

    def read(self, text: bytes) -> _Reader:
        try:
            parse(text, start=self._start, end=self._end, characters=self._characters)
        except ValueError as error:
            raise ImageError(f"OVF: is no XML that we read: {error}") from None
        return self

    def attached(self) -> list[str]:
        """Return the ids of the disks in the machine, by controller and place on it."""
        controllers: dict[str | None, int] = {}
        for item in self._items:
            if item.get("ResourceType") in _CONTROLLERS:
                controllers.setdefault(item.get("InstanceID"), len(controllers))
        found = []
        for number, item in enumerate(self._items):
            host = item.get("HostResource", "")
            if item.get("ResourceType") == _DISK and "/disk/" in host:
                parent, place = item.get("Parent"), item.get("AddressOnParent", "")
                on = controllers.get(parent, len(controllers))
                at = int(place) if place.isascii() and place.isdigit() and len(place) < 9 else 1 << 30
                found.append((on, at, number, host.rpartition("/")[2]))
        return [identifier for *_, identifier in sorted(found)]

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        plain = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        if name == "File" and self._path[-1:] == ["References"]:
            self.files.append(plain)
        elif name == "Disk" and self._path[-1:] == ["DiskSection"]:
            self.disks.append(plain)
        elif name in ("Item", "StorageItem"):
            self._items.append({})
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
