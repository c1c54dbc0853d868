"""The files of an image against those its manifest lists: why it cannot be planned again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rumpbundle.errors import ImageError
from rumpbundle.finished import manifest as records
from rumpbundle.finished.manifest import Manifest
from rumpbundle.images.detect import file_system
from rumpbundle.images.disk import Disk
from rumpbundle.images.filesystem import Entry
from rumpbundle.images.filesystems.iso9660 import Iso9660
from rumpbundle.images.partitions import tables
from rumpbundle.images.problem import Problem
from rumpbundle.manifest import PATH

_OWN = (PATH, "/boot", "/EFI")
_MARKERS = "/boot/rumpbundle/"
_CONSEQUENCE = "the guest finds something else than was bundled"


def problems(disk: Disk, manifest: Manifest) -> Iterator[Problem]:
    """Yield where the files on *disk* are not those that *manifest* lists."""
    files = file_system(disk)
    if not isinstance(files, Iso9660):
        return
    found = {_written(entry.path): entry for entry in files.entries()}
    wanted = {each.path: each for each in manifest.files}
    for path, described in wanted.items():
        entry = found.get(path)
        if entry is None:
            yield _problem(path, None, f"{PATH} lists it, and it is not there")
        else:
            yield from _compared(path, entry, described)
    for path, entry in found.items():
        own = path in _OWN or path.startswith(("/boot/", "/EFI/")) or (path == "/json.cfg" and manifest.config)
        if path not in wanted and not own:
            yield _problem(path, _place(entry), f"{PATH} does not list it")
    named: dict[str, records.Described] = {"/boot/kernel/" + manifest.kernel.name: manifest.kernel}
    named |= {f"/boot/modules/{number}/{module.name}": module for number, module in enumerate(manifest.modules)}
    yield from _bundled(found, named)


def _bundled(found: Mapping[str, Entry], named: Mapping[str, records.Described]) -> Iterator[Problem]:
    """Yield where kernel and modules are not as the manifest has them."""
    for path, described in named.items():
        entry = found.get(path)
        if entry is None or entry.kind != "file":
            yield _problem(path, None, f"{PATH} names it, and it is not there")
        elif entry.size != described.size:
            yield _problem(path, _place(entry), f"it has {entry.size} bytes, {PATH} says {described.size}")


def _compared(path: str, entry: Entry, described: records.File) -> Iterator[Problem]:
    kind = "symlink" if described.target is not None else "file" if described.size is not None else "directory"
    place = _place(entry)
    if entry.kind != kind:
        yield _problem(path, place, f"it is a {entry.kind}, {PATH} says a {kind}")
        return
    if described.mode and f"{entry.mode:04o}" != described.mode:
        yield _problem(path, place, f"its mode is {entry.mode:04o}, {PATH} says {described.mode}")
    if kind == "file" and entry.size != described.size:
        yield _problem(path, place, f"it has {entry.size} bytes, {PATH} says {described.size}")
    if kind == "symlink" and _written(entry.target) != described.target:
        yield _problem(path, place, f"it leads to {entry.target!r}, {PATH} says {described.target!r}")


def _written(path: str) -> str:
    """Return *path* as a manifest has it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _place(entry: Entry) -> int | None:
    try:
        return entry.spans[0].offset if entry.kind == "file" and entry.spans else None
    except ImageError:
        return None


def _problem(path: str, offset: int | None, what: str) -> Problem:
    return Problem(where=path, offset=offset, what=what, consequence=_CONSEQUENCE)


def marker(disk: Disk) -> str:
    """Return the name of the file by which GRUB knows an image of ours; empty if there is none."""
    files = file_system(disk)
    if not isinstance(files, Iso9660):
        return ""
    inside = (entry.path for entry in files.entries("/boot/rumpbundle") if entry.path.startswith(_MARKERS))
    return next(inside, "").removeprefix(_MARKERS)


def traces(disk: Disk) -> Iterator[Problem]:
    """Yield what tells that *disk*, on which no manifest is found, is one of ours all the same."""
    try:
        files = file_system(disk)
    except ImageError:
        files = None
    if isinstance(files, Iso9660):
        names = {entry.path.lower() for entry in files.entries()}
        ours = [name for name in names if name == PATH or name.startswith(_MARKERS)]
        if ours:
            what = f"it holds {min(ours)} as an image of rumpbundle does, and its {PATH} cannot be found"
            yield Problem(
                where=PATH, offset=None, what=what, consequence="it cannot be compared with what was bundled"
            )
        return
    for table in tables(disk):
        for slot in table.slots:
            if slot.name == "ISO9660":
                what = "the partition is to hold an ISO 9660 file system from the start of the disk on; there is none"
                consequence = "the kernel and all files of the guest are lost"
                yield Problem(
                    where=f"partition {slot.number}", offset=slot.offset, what=what, consequence=consequence
                )
