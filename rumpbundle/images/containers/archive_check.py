"""What is wrong with an archive: sums of its headers, digests in an OVA's manifest, files that its OVF names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from rumpbundle.errors import ImageError, one_line
from rumpbundle.images.containers import ovf
from rumpbundle.images.containers.archive import spellings, straight
from rumpbundle.images.containers.tar import BLOCK, Member, members
from rumpbundle.images.medium import Medium
from rumpbundle.images.problem import Problem

_CHUNK = 1 << 20
_LINE = re.compile(r"(SHA1|SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)")
_MOST_MANIFEST = 1 << 20
_EITHER = "some programs take the one, some the other"


def _problem(where: str, offset: int | None, what: str, consequence: str) -> Problem:
    return Problem(where=where, offset=offset, what=what, consequence=consequence)


def _remark(offset: int, what: str, consequence: str) -> Problem:
    """Return a problem of an archive whose disk is whole all the same; in one of ours it is damage."""
    return Problem(where="tar", offset=offset, what=what, consequence=consequence, severity="remark")


def problems(archive: Medium) -> Iterator[Problem]:
    """Yield what is wrong with the tar *archive*, with offsets of it."""
    found: dict[str, Member] = {}
    described = ""
    try:
        for member in members(archive):
            name = straight(member.name)
            if name in found:
                what = f"a second file is called {one_line(member.name)}"
                yield _remark(member.offset, what, _EITHER)
            elif member.name.lower().endswith(".ovf"):
                if described:
                    what = f"{one_line(member.name)} describes a second machine, beside {one_line(described)}"
                    yield _remark(member.offset, what, _EITHER)
                described = described or member.name
            found.setdefault(name, member)
    except ImageError as error:
        yield _problem("tar", None, error.problem, "what follows in the archive is not found")
        return
    yield from _ends(archive, list(found.values()))
    yield from _digests(archive, found)
    yield from _named(archive, found)


def _ends(archive: Medium, found: list[Member]) -> Iterator[Problem]:
    """Check what fills the last block of each member, and what follows the last one."""
    last = 0
    for member in found:
        if member.pieces is not None:
            return  # a sparse one has headers of its own; nothing of ours has
        end = member.offset + member.size
        last = max(last, end + -end % BLOCK)
        if end > archive.size:
            yield _problem("tar", member.offset, f"{one_line(member.name)} is cut off", "its end is missing")
        elif archive.read(end, min(-end % BLOCK, archive.size - end)).strip(b"\0"):
            what = f"the last block of {one_line(member.name)} is not filled with zeros"
            yield _remark(end, what, "nobody reads it")
    rest = archive.size - last
    if rest < 2 * BLOCK:
        yield _problem("tar", last, "the archive has no end of two empty blocks", "tools warn of it, or refuse it")
    for at in range(last, archive.size, _CHUNK):
        data = archive.read(at, min(_CHUNK, archive.size - at))
        if data.count(0) != len(data):
            place = at + len(data) - len(data.lstrip(b"\0"))
            if data[:BLOCK].strip(b"\0") and at == last:
                return  # something that is no file follows, a directory perhaps
            yield _remark(place, "something follows the end of the archive", "nobody reads it")
            return


def _digests(archive: Medium, found: dict[str, Member]) -> Iterator[Problem]:
    """Compare the files of an OVA with the digests in its manifest."""
    for member in [each for name, each in found.items() if name.lower().endswith(".mf")]:
        if member.size > _MOST_MANIFEST:
            yield _problem(member.name, member.offset, f"a manifest of {member.size} bytes", "it was not read")
            continue
        text = member.within(archive).read(0, member.size).decode("utf-8", "replace")
        named = set()
        for line in filter(None, map(str.strip, text.splitlines())):
            match = _LINE.fullmatch(line)
            if match is None:
                what = f"a line that is no digest: {one_line(line[:40])!r}"
                yield _problem(member.name, member.offset, what, "importers refuse the machine")
                continue
            kind, name, digest = match[1], straight(match[2]), match[3]
            named.add(name)
            if name not in found:
                what = f"it names {one_line(name)}, which is not in the archive"
                yield _problem(member.name, member.offset, what, "importers refuse the machine")
            elif _digest(archive, found[name], kind) != digest.lower():
                what = f"its {kind} is not the one in {one_line(member.name)}"
                yield _problem(name, found[name].offset, what, "importers refuse the machine")
        for name in found:
            if name not in named and name.lower().endswith((".ovf", ".vmdk")):
                what = f"it has no digest of {one_line(name)}"
                yield _problem(member.name, member.offset, what, "damage to that file is not noticed")


def _digest(archive: Medium, member: Member, kind: str) -> str:
    digest = hashlib.new(kind.lower(), usedforsecurity=False)
    inside = member.within(archive)
    for at in range(0, member.size, _CHUNK):
        digest.update(inside.read(at, min(_CHUNK, member.size - at)))
    return digest.hexdigest()


def _named(archive: Medium, found: dict[str, Member]) -> Iterator[Problem]:
    """Check that the files an OVF names are there."""
    for member in [each for name, each in found.items() if name.lower().endswith(".ovf")]:
        if member.size > ovf.MAX_BYTES:
            continue
        try:
            named = ovf.disks(member.within(archive).read(0, member.size))
        except ImageError as error:
            yield _problem(member.name, member.offset, error.problem, "importers refuse the machine")
            continue
        for disk in named:
            if not disk.chunked and not any(name in found for name in spellings(disk.name)):
                what = f"it names {one_line(disk.name)}, which is not in the archive"
                yield _problem(member.name, member.offset, what, "importers refuse the machine")
