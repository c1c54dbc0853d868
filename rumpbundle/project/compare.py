"""Whether the outputs of a project file are what it describes: each is made again, out of sight, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from rumpbundle.bundling.batch import Target, files_of
from rumpbundle.bundling.writing import Artifact, write
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.events import Report, silent
from rumpbundle.host.staging import scratch_directory
from rumpbundle.project.entry import ProjectEntry
from rumpbundle.project.maker import Maker
from rumpbundle.project.record import DIRECTORY


@dataclass(frozen=True, slots=True)
class Compared:
    """An output, and in what it differs from what the file describes."""

    entry: ProjectEntry
    path: Path
    difference: str
    """Empty if it is as described."""


def compared(entry: ProjectEntry, maker: Maker, report: Report = silent) -> Iterator[Compared]:
    """Yield how each output of *entry* compares with what *maker* would make.

    Raises:
        RumpbundleError: nothing of it could be made.
    """
    planned, targets = maker.plan(entry, report)
    for target in targets:
        with scratch_directory(Path(entry.at(DIRECTORY), target.output.name)) as scratch:
            output = scratch / target.output.name
            made, _ = write(
                planned,
                target.format,
                output,
                subformat=target.subformat,
                options=target.options,
                sync=False,
                report=report,
            )
            yield Compared(entry, target.output, _difference(made, target))
    if maker.beside is not None:
        standing = [Artifact(target.format.name, target.output) for target in targets if target.output.exists()]
        for path, difference in maker.beside.differences(entry, planned.bundle, standing):
            yield Compared(entry, path, difference)


def _difference(made: Artifact, target: Target) -> str:
    """Return in what *target*'s output differs from *made*."""
    there = Artifact(target.format.name, target.output)
    for file in target.format.files(target.output):
        if not file.exists():
            return "is missing"
        if not file.is_file() and not file.is_dir():
            return "is no file"
    ours = {file.relative_to(made.path.parent): file for file in files_of(made)}
    theirs = {file.relative_to(there.path.parent): file for file in files_of(there)}
    for name in sorted({*ours, *theirs}):
        if name not in theirs:
            return f"lacks {name.name}"
        if name not in ours:
            return f"holds {name.name}, which is not part of it"
        at = _first_difference(ours[name], theirs[name])
        if at is not None:
            inside = f" of {name.name}" if len(ours) > 1 else ""
            return f"differs from byte {at}{inside} on"
    return ""


def _first_difference(one: Path, other: Path) -> int | None:
    """Return the first byte at which two files differ; None if they are the same."""
    position = 0
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            a, b = first.read(CHUNK), second.read(CHUNK)
            if a != b:
                pairs = enumerate(zip_longest(a, b))
                return position + next(at for at, (x, y) in pairs if x != y)
            if not a:
                return None
            position += len(a)
