"""The text descriptor of a VMDK: its facts, its parent, and the files it stands in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError, one_line
from rumpbundle.images.disk import Fact

_SHOWN = {"createType", "CID", "ddb.adapterType", "ddb.uuid.image", "ddb.virtualHWVersion"}
# A blank here is none that ends a line: what may run over lines is tried anew from each of them.
_PAIR = re.compile(r'^[ \t]*([A-Za-z.]+)[ \t]*=[ \t]*"?([^"\n\r]*)"?', re.MULTILINE)
_ACCESS = re.compile(r"^[ \t]*(?:RW|RDONLY|NOACCESS)[ \t].*$", re.MULTILINE | re.IGNORECASE)
_EXTENT = re.compile(r'\s*(\w+)\s+([0-9]{1,18})\s+(\w+)(?:\s+"([^"]*)"(?:\s+([0-9]{1,18})\b)?)?.*')
_PARENT = re.compile(
    r'^[ \t]*(?:parentFileNameHint[ \t]*=[ \t]*"?([^"\n\r]+)|parentCID[ \t]*=[ \t]*"?([0-9a-f]+))', re.I | re.M
)
_NO_PARENT = 0xFFFFFFFF
MISLEADS = "the file is damaged, or made to mislead"


@dataclass(frozen=True, slots=True)
class ExtentLine:
    """*sectors* of the disk in the file *name*, from its sector *start* on where it is flat."""

    access: str
    sectors: int
    type: str
    name: str
    start: int


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a descriptor says."""

    values: Mapping[str, str]
    extents: tuple[ExtentLine, ...] = field(repr=False)
    parents: tuple[str, ...]
    """The files whose changes the disk holds, as far as they have names; empty for a disk on its own."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        return {key: one_line(value) for key, value in self.values.items() if key in _SHOWN}

    def check_parent(self) -> None:
        """Raise :class:`ImageError` if the disk holds only what differs from a parent."""
        if self.parents:
            named = "".join(f", {one_line(name)}" for name in self.parents if name)
            raise ImageError(
                f"VMDK: differs from a parent disk{named}",
                hint="if that is the file it should have, qemu-img convert makes one of both",
            )

    def check_alone(self) -> None:
        """Raise :class:`ImageError` if this, inside a sparse extent, says that the disk is not all in that."""
        for extent in self.extents:
            if len(self.extents) > 1 or extent.type != "SPARSE" or set(extent.name) & set("/\\"):
                named = one_line(f"{extent.type} {extent.name}")
                raise ImageError(f"VMDK: its descriptor names another file ({named})", hint=MISLEADS)


def parse(text: str) -> Descriptor:
    """Return what the descriptor *text* says; of a key that it says twice, the first."""
    values: dict[str, str] = {}
    for key, value in _PAIR.findall(text):
        values.setdefault(key, value)
    extents = [_extent(line) for line in _ACCESS.findall(text)]
    parents = (name for name, cid in _PARENT.findall(text) if name or int(cid, 16) != _NO_PARENT)
    return Descriptor(values, tuple(extents), tuple(parents))


def _extent(line: str) -> ExtentLine:
    found = _EXTENT.fullmatch(line)
    if found is None:
        raise ImageError(f"VMDK: its descriptor has a line that cannot be read: {one_line(line)[:80]}")
    access, sectors, kind, name, start = found.groups()
    return ExtentLine(access.upper(), int(sectors), kind.upper(), name or "", int(start or 0))
