"""No output takes the place of an input or of another output, or grows inside of an input, whatever the names are."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from rumpbundle.errors import UsageError

Inode = tuple[int, int]
"""Device and inode number."""


def inode(path: str | os.PathLike[str]) -> Inode | None:
    """Return the file or directory that *path* names, links followed; None if it names none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def check_apart(outputs: Iterable[Path], inputs: Iterable[Inode | None], *, inside: bool = True) -> None:
    """Raise unless *outputs*, files or directories that need not exist yet, leave all *inputs* alone.

    *inside* says whether one may not lie in a directory that is an input either: it would grow with each run.

    Raises:
        UsageError: one is an input, is a directory that holds one, or would lie in a directory that is one.
    """
    written: dict[Inode, Path] = {}
    around: dict[Inode, Path] = {}
    for output in outputs:
        written |= dict.fromkeys(replaced(output), output)
        parent = Path(os.path.realpath(output.parent))
        found = (inode(each) for each in (parent, *parent.parents) if os.path.isdir(each))
        around |= {each: output for each in found if each is not None}
    for each in inputs:
        if each is None:
            continue
        if each in written:
            raise UsageError(
                "is an input and cannot be the output too", where=written[each], hint="give another name"
            )
        if inside and each in around:
            raise UsageError(
                "would lie in a directory that is an input",
                where=around[each],
                hint="give a name outside of that directory",
            )


def check_distinct(outputs: Iterable[Path]) -> None:
    """Raise :class:`UsageError` if two of the files that one command writes have one name."""
    places: set[Path] = set()
    for output in outputs:
        place = Path(os.path.realpath(output.parent), output.name)
        if place in places:
            raise UsageError("would be written twice, the one over the other", where=output, hint="give another name")
        places.add(place)


def replaced(output: Path) -> Iterator[Inode]:
    """Yield what is lost if *output* is written: itself and, if it is a directory, what it holds."""
    own = inode(output)
    if own is None:
        return
    yield own
    try:
        if stat.S_ISDIR(os.lstat(output).st_mode):
            with os.scandir(output) as entries:
                yield from ((own[0], entry.inode()) for entry in entries)
    except OSError:
        return
