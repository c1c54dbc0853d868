"""A tree of files for a file system inside the image, and how a directory of the user's becomes one.

Nodes are immutable and sorted by name, so directory order on the host reaches no output. Names are what the host's
bytes are in UTF-8, whatever its locale. Owners and times are not kept: every file system we write shows root and the
bundle's epoch. Modes are (the twelve permission bits), and so are symbolic links, empty directories, and hard links
within the tree (they share one content).
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import field
from functools import lru_cache

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content, FileSlice
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError

MAX_DEPTH = 128
"""Directories nested deeper than this are refused: no guest needs them and every walk here recurses."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file. Two files with the same *content* object are hard links of each other.

    *room* is how many bytes an ISO 9660 volume keeps for it at least, so that another content of its fits there.
    """

    name: str
    content: Content
    mode: int = 0o644
    room: int = 0


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link; *target* is kept as it is."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory; *children* are sorted by name and have different names."""

    name: str
    children: tuple[Node, ...] = ()
    mode: int = 0o755
    origin: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    """Device and inode number of the directory of the user's that was scanned."""

    @classmethod
    def of(
        cls, name: str, children: list[Node], mode: int = 0o755, origin: tuple[int, int] | None = None
    ) -> Directory:
        """Make a directory from *children* in any order.

        Raises:
            InputError: two of them have the same name.
        """
        ordered = sorted(children, key=lambda node: name_bytes(node.name))
        for one, two in itertools.pairwise(ordered):
            if one.name == two.name:
                raise InputError("two files want this name in the image", where=f"{name}/{one.name}")
        return cls(name, tuple(ordered), mode, origin)

    def child(self, name: str) -> Node | None:
        return next((node for node in self.children if node.name == name), None)


Node = File | Symlink | Directory


def name_bytes(name: str) -> bytes:
    """Return the bytes of a node's *name* or link target."""
    return name.encode("utf-8", "surrogateescape")


def _name(host: str) -> str:
    """Return the name that the *host* gives, by its bytes: in another locale Python decodes them differently."""
    return host if host.isascii() else os.fsencode(host).decode("utf-8", "surrogateescape")


_shared = lru_cache(4096)(int)
"""Modes of files are many and of few values."""


def walk(directory: Directory, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Yield ``(path, node)`` of everything below *directory*, parents first, sorted."""
    for node in directory.children:
        path = f"{prefix}/{node.name}"
        yield path, node
        if isinstance(node, Directory):
            yield from walk(node, path)


def origins(directory: Directory) -> Iterator[tuple[int, int]]:
    """Yield device and inode number of all of the user's directories and files that *directory* is made of."""
    waiting = [directory]
    while waiting:
        directory = waiting.pop()
        if directory.origin is not None:
            yield directory.origin
        for node in directory.children:
            if isinstance(node, File):
                for source in node.content.sources:
                    if isinstance(source, FileSlice):
                        yield source.file.origin
            elif isinstance(node, Directory):
                waiting.append(node)


def scan(path: str | os.PathLike[str], name: str = "") -> Directory:
    """Read the directory *path* (contents stay on disk until written).

    Symbolic links are kept as links, never followed.

    Raises:
        InputError: it is no directory, is unreadable, nested too deep, or holds a device, FIFO or socket.
    """
    top = os.fspath(path)
    try:
        if not stat.S_ISDIR(os.stat(top).st_mode):
            raise InputError("is not a directory", where=top)
    except FileNotFoundError:
        raise InputError("no such directory", where=top) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', error)}", where=top) from None
    return _scan(top, name, {}, 0)


def _scan(path: str, name: str, linked: dict[tuple[int, int], Content], depth: int) -> Directory:
    if depth > MAX_DEPTH:
        raise InputError(f"directories are nested deeper than {MAX_DEPTH}", where=path)
    children: list[Node] = []
    try:
        status = os.stat(path, follow_symlinks=depth == 0)
        mode, origin = stat.S_IMODE(status.st_mode), (status.st_dev, status.st_ino)
        above = os.path.join(path, "")
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False):
                    children.append(_file(entry, above, linked))
                elif entry.is_symlink():
                    children.append(Symlink(_name(entry.name), _name(os.readlink(entry.path))))
                elif entry.is_dir(follow_symlinks=False):
                    children.append(_scan(entry.path, _name(entry.name), linked, depth + 1))
                else:
                    children.append(_file(entry, above, linked))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=error.filename or path) from None
    return Directory.of(name, children, mode, origin)


def _file(entry: os.DirEntry[str], above: str, linked: dict[tuple[int, int], Content]) -> File:
    status = entry.stat(follow_symlinks=False)
    name, mode = _name(entry.name), _shared(stat.S_IMODE(status.st_mode))
    if status.st_nlink == 1:
        return File(name, Content.of_file(InputFile(entry.name, status, above)), mode)
    key = (status.st_dev, status.st_ino)
    content = linked.get(key)
    if content is None:
        content = linked[key] = Content.of_file(InputFile(entry.name, status, above))
    return File(name, content, mode)
