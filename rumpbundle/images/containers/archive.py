"""Which file of an archive is the disk: an OVA's OVF says it, Google's is ``disk.raw``, or there is only one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

from rumpbundle.errors import ImageError, one_line
from rumpbundle.images.containers import ovf
from rumpbundle.images.containers.tar import Member, members
from rumpbundle.images.medium import Medium
from rumpbundle.images.records.kitfiles import GCE_DISK

_SUFFIXES = (".vmdk", ".raw", ".img", ".qcow2", ".vhd", ".vhdx", ".vdi", ".iso")
"""Names under which a disk stands in an archive that does not say which it is."""
_UNPACK = "unpack the archive and name the disk"
_WITHOUT = "export the machine anew without its snapshots"


def choose(archive: Medium) -> Member:
    """Return which member of the tar *archive* is the disk, the machine's first; look no further than it takes.

    Raises:
        ImageError: there is none, or nobody says which it is.
    """
    found: dict[str, Member] = {}
    wanted = ""
    links: set[str] = set()
    for member in _plain(members(archive, links)):
        if member.name == "ova.xml" and not found:
            raise ImageError("is a XenServer export (XVA), which is not read", hint="xe vdi-export gives its disk")
        found.setdefault(member.name, member)
        if member.name.lower().endswith(".ovf") and not wanted:
            wanted = _described(archive, member)
        if wanted and (named := next((name for name in spellings(wanted) if name in found), "")):
            return found[named]
        if member.name == GCE_DISK:
            return member
    if led := next((name for name in links if straight(name) in (GCE_DISK, *spellings(wanted))), ""):
        what = f"the archive holds a symbolic link in the place of the disk {one_line(led)}"
        raise ImageError(what, hint="pack the file that it leads to: tar --dereference")
    if wanted:
        raise ImageError(f"OVF: its disk {one_line(wanted)} is not in the archive")
    likely = [name for name in found if name.lower().endswith(_SUFFIXES)]
    if not likely:
        what = f"the archive holds no disk: no .ovf, no {GCE_DISK}, no {', '.join(_SUFFIXES)}"
        raise ImageError(what, hint="a disk under another name: unpack it")
    if len(likely) > 1:
        raise ImageError(f"the archive holds several disks and no .ovf: {_listed(likely)}", hint=_UNPACK)
    return found[likely[0]]


def ambiguity(archive: Medium, read: Member) -> str:
    """Return what to say if more in *archive* may be meant than *read*, which is read; empty if nothing else may."""
    copies = 0
    descriptions: list[str] = []
    disks: dict[int, str] = {}  # a hard link begins where the file begins that it is one to
    with contextlib.suppress(ImageError):  # what is damaged behind the disk, verify tells
        for member in _plain(members(archive)):
            copies += member.name == read.name
            if member.name.lower().endswith(".ovf"):
                descriptions.append(member.name)
            elif member.name == read.name or member.name.lower().endswith(_SUFFIXES):
                disks.setdefault(member.offset, member.name)
    name = one_line(read.name)
    said = []
    if len(descriptions) > 1:
        said.append(f"the archive holds {len(descriptions)} machines ({_listed(descriptions)}): the first is read")
    if copies > 1:
        said.append(f"the archive holds {copies} files called {name}: the first is read, and tar -x keeps the last")
    elif len(disks) > 1:
        said.append(f"the archive holds {len(disks)} disks ({_listed(list(disks.values()))}): {name} is read")
    return "; ".join(said)


def _listed(names: list[str]) -> str:
    return ", ".join([*map(one_line, names[:4]), *(["…"] if len(names) > 4 else [])])


def _plain(found: Iterable[Member]) -> Iterator[Member]:
    """Yield the members that may matter, without ``./``: none that leaves the archive, no second files of a Mac's."""
    for member in found:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        outside = member.name.startswith("/") or ".." in parts
        if parts and not outside and not parts[-1].startswith("._") and parts[0] != "__MACOSX":
            yield Member("/".join(parts), member.offset, member.size, member.pieces)


def straight(name: str) -> str:
    """Return *name* without ``./``; one that leaves the archive as it is."""
    return name if name.startswith("/") else "/".join(part for part in name.split("/") if part not in ("", "."))


def spellings(wanted: str) -> tuple[str, ...]:
    """Return the names by which the disk that an OVF calls *wanted* may stand in the archive."""
    return tuple(straight(name) for name in (wanted, _unquoted(wanted)) if name)


def _unquoted(reference: str) -> str:
    """Return the name that the URI *reference* of an OVF stands for: some write a blank as it is, some as %20."""
    raw = reference.encode("utf-8", "surrogateescape")
    named = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), raw)
    return named.decode("utf-8", "surrogateescape")


def _described(archive: Medium, description: Member) -> str:
    """Return the file of the machine's first disk, as the OVF *description* has it."""
    if description.size > ovf.MAX_BYTES:
        what = f"OVF: its description {one_line(description.name)} has {description.size} bytes"
        raise ImageError(f"{what}, more than the {ovf.MAX_BYTES} that are read", hint=_UNPACK)
    named = ovf.disks(description.within(archive).read(0, description.size))
    if not named:
        raise ImageError("OVF: it describes no disk that has a file")
    first = named[0]
    shown = one_line(first.name)
    if first.compression or first.chunked:
        how = f"compressed ({one_line(first.compression)})" if first.compression else "cut into chunks"
        raise ImageError(f"OVF: its disk {shown} is {how}, which is not read", hint=_UNPACK)
    if first.parent:
        raise ImageError(f"OVF: its disk {shown} holds only what differs from a parent disk", hint=_WITHOUT)
    return first.name
