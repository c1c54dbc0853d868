"""How many files, and how large directories, a file system has at most: none is written that would not be read.

A reader must have such bounds, because images are hostile (:mod:`rumpbundle.images.budget`); whoever plans a file
system asks here whether it stays within them.
"""

from __future__ import annotations

from rumpbundle.disk.tree import MAX_DEPTH, Directory, Symlink
from rumpbundle.errors import InputError

MAX_ENTRIES = 1 << 18
"""Files, directories and links of a file system."""
MAX_NAMES = 32 << 20
"""Bytes of memory that all paths and link targets take, see :func:`name_cost`."""
MAX_DIRECTORY = 16 << 20
"""Bytes of one directory."""
MAX_DIRECTORIES = 128 << 20
"""Bytes of all directories."""

_HINT = "put them into an archive, or spread them over several volumes"


def name_cost(path: str, target: str) -> int:
    """Return how many bytes the *path* of an entry takes, and the *target* of a link."""
    return (len(path) if path.isascii() else 4 * len(path)) + 4 * len(target)


def check_tree(root: Directory) -> None:
    """Raise :class:`InputError` if *root* nests too deep, or has more files or longer names than are read back."""
    entries = names = 0
    stack = [("", root, 0)]
    while stack:
        path, directory, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise InputError(f"directories are nested deeper than {MAX_DEPTH}, with those they stand in", where=path)
        entries += len(directory.children)
        above, plain = len(path) + 1, path.isascii()
        for node in directory.children:
            # What name_cost says, without a path for each of 200,000 files.
            length = above + len(node.name)
            names += length if plain and node.name.isascii() else 4 * length
            if isinstance(node, Symlink):
                names += name_cost("", node.target)
            elif isinstance(node, Directory):
                stack.append((f"{path}/{node.name}", node, depth + 1))
    if entries > MAX_ENTRIES:
        raise InputError(
            f"{entries} files and directories in one file system; there can be {MAX_ENTRIES}", hint=_HINT
        )
    if names > MAX_NAMES:
        raise InputError(
            f"the paths of all files take {names} bytes; they can take {MAX_NAMES >> 20} MiB in one file system",
            hint=_HINT,
        )


def check_directory(size: int, path: str) -> None:
    """Raise :class:`InputError` if a directory of *size* bytes is more than is read of one."""
    if size > MAX_DIRECTORY:
        raise InputError(
            f"so many files: the directory would take {size} bytes, more than the {MAX_DIRECTORY >> 20} MiB one can",
            where=path or "/",
            hint="spread its files over several directories",
        )


def check_directories(size: int) -> None:
    """Raise :class:`InputError` if all directories together, *size* bytes, are more than are read."""
    if size > MAX_DIRECTORIES:
        raise InputError(
            f"the directories would take {size} bytes; they can take {MAX_DIRECTORIES >> 20} MiB in one file system",
            hint=_HINT,
        )
