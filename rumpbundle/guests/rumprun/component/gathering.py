"""What a component holds: the names and contents of directories, as the guest will see them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.layout import MIB, round_up
from rumpbundle.disk.tree import MAX_DEPTH, Directory, File, Node, Symlink, scan
from rumpbundle.errors import InputError, UsageError
from rumpbundle.events import Note, Report, Warned, silent
from rumpbundle.units import shown_size

BASE_FILES = frozenset(
    f"/etc/{name}"
    for name in (
        "group",
        "hosts",
        "master.passwd",
        "passwd",
        "protocols",
        "pwd.db",
        "resolv.conf",
        "services",
        "spwd.db",
    )
)
"""What librumprunfs_base bakes in already; a second one of a name is a panic (``platefs: open``).

Source: rumprun lib/librumprunfs_base/rootfs.
"""
MAX_PATH = 1023
"""Bytes of a path without its NUL: NetBSD's PATH_MAX is 1024."""
MAX_DATA = 1 << 30
"""Bytes of one component: the code model of the unikernel reaches 2 GiB, its own code and data included."""
MAX_NAMES = 100_000
"""Names of one component: followed links to directories could make them without end."""
ALIGN = 16
"""Of every file's data, in bytes."""


@dataclass(frozen=True)
class Component:
    """Directories (parents first) and files, by absolute path, as the guest will see them."""

    directories: tuple[str, ...]
    files: tuple[tuple[str, Content], ...]

    @cached_property
    def memory(self) -> int:
        """Bytes of guest memory the files take: data (hard links once) and names."""
        contents = {id(content): content.size for _, content in self.files}
        names = sum(len(os.fsencode(path)) + 1 for path in (*self.directories, *(path for path, _ in self.files)))
        return sum(round_up(size, ALIGN) for size in contents.values()) + names


def split_source(text: str) -> tuple[str, str]:
    """Return the directory and the guest's path of ``DIR`` or ``DIR:PREFIX``; the last ``:/`` begins a PREFIX."""
    directory, found, prefix = text.rpartition(":/")
    return (directory, f"/{prefix}") if found else (text, "/")


def collect(
    sources: Sequence[tuple[str | os.PathLike[str], str]],
    *,
    follow: bool = False,
    replace_base: bool = False,
    report: Report = silent,
) -> Component:
    """Read directories, each with the absolute path it gets in the guest, into one component.

    *follow* puts what a symbolic link names in its place, as long as that lies in the same directory;
    otherwise a link is refused, for the guest has none. *replace_base* allows the names of ``BASE_FILES``.

    Raises:
        InputError: unreadable; a link; two files for one name; what the guest would panic on.
        UsageError: a prefix that is no absolute path.
    """
    directories: set[str] = set()
    files: dict[str, Content] = {}
    for path, prefix in sources:
        above = _prefix_parts(prefix)
        for depth in range(1, len(above) + 1):
            directories.add("/" + "/".join(above[:depth]))
        top = _scanned(os.fspath(path))
        _Gathering(os.fspath(path), top, follow, directories, files, report).add(
            top, (), "".join(f"/{part}" for part in above), 0
        )
    component = Component(
        tuple(sorted(directories, key=os.fsencode)),
        tuple(sorted(files.items(), key=lambda item: os.fsencode(item[0]))),
    )
    _check(component, replace_base=replace_base)
    files_take = "1 file takes" if len(files) == 1 else f"{len(files)} files take"
    taken = f"{files_take} {shown_size(component.memory)} of the guest's memory"
    if component.memory > MIB:
        report(Warned(f"{taken}; for more than 1 MiB a data file system (--data) is the better place"))
    else:
        report(Note(taken))
    return component


def _scanned(path: str) -> Directory:
    try:
        return scan(path)
    except InputError as error:
        if ":" in path and error.where == path:
            error.hint = "a PREFIX begins with a slash: DIR:/PREFIX"
        raise


def _prefix_parts(prefix: str) -> list[str]:
    parts = [part for part in prefix.split("/") if part]
    if not prefix.startswith("/") or "\0" in prefix or any(part in (".", "..") for part in parts):
        raise UsageError(f"expected an absolute path without . and .., got {prefix!r}", where="PREFIX")
    return parts


@dataclass(frozen=True)
class _Gathering:
    """Adds one scanned directory to the names collected so far."""

    path: str
    top: Directory
    follow: bool
    directories: set[str]
    files: dict[str, Content]
    report: Report

    def add(self, directory: Directory, place: tuple[str, ...], into: str, depth: int) -> None:
        """Add what *directory*, at *place* of the tree, holds below the guest's path *into*."""
        if depth > MAX_DEPTH:
            raise InputError(f"directories are nested deeper than {MAX_DEPTH}", where=self._where(place))
        for child in directory.children:
            here, name = (*place, child.name), f"{into}/{child.name}"
            if len(self.directories) + len(self.files) > MAX_NAMES:
                raise InputError(f"more than {MAX_NAMES} names, links followed", where=self.path)
            node: Node = child
            if isinstance(child, Symlink):
                if not self.follow:
                    raise InputError(
                        "is a symbolic link, and the guest has none here",
                        where=self._where(here),
                        hint="give --follow to put what it names in its place, or leave it out",
                    )
                node, here = self._followed(child, here)
                self.report(Note(f"{name} is a copy of {'/'.join(here) or '.'}, which the link of that name names"))
            if isinstance(node, Directory):
                self.directories.add(name)
                self.add(node, here, name, depth + 1)
            elif isinstance(node, File):
                if name in self.files:
                    raise InputError("two files want this name in the guest", where=name)
                self.files[name] = node.content

    def _followed(self, link: Symlink, place: tuple[str, ...]) -> tuple[Node, tuple[str, ...]]:
        """Return what *link*, at *place*, names in the end, and where that is."""
        at = place[:-1]
        parts = link.target.split("/")[::-1]
        node: Node = self._at(at)
        if link.target.startswith("/") or not link.target:
            raise self._bad(place, f"names {link.target!r}, outside of the directory")
        left = 64
        while parts:
            part = parts.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    raise self._bad(place, f"names {link.target!r}, outside of the directory")
                at = at[:-1]
                node = self._at(at)
                continue
            found = next((child for child in getattr(node, "children", ()) if child.name == part), None)
            if found is None:
                raise self._bad(place, f"names {link.target!r}, which is not there")
            if isinstance(found, Symlink):
                left -= 1
                if not left or found.target.startswith("/"):
                    raise self._bad(place, "leads in a circle" if not left else "leads outside of the directory")
                parts += found.target.split("/")[::-1]
                continue
            node, at = found, (*at, part)
        if place[: len(at)] == at and isinstance(node, Directory):
            raise self._bad(place, "names a directory it lies in")
        return node, at

    def _at(self, place: tuple[str, ...]) -> Directory:
        node: Node = self.top
        for part in place:
            assert isinstance(node, Directory)
            node = next(child for child in node.children if child.name == part)
        assert isinstance(node, Directory)
        return node

    def _where(self, place: tuple[str, ...]) -> str:
        return os.path.join(self.path, *place)

    def _bad(self, place: tuple[str, ...], problem: str) -> InputError:
        return InputError(f"is a symbolic link that {problem}", where=self._where(place))


def _check(component: Component, *, replace_base: bool) -> None:
    """Refuse what the guest would panic on."""
    directories = set(component.directories)
    taken = BASE_FILES if not replace_base else frozenset()
    for path in (*component.directories, *(path for path, _ in component.files)):
        if len(os.fsencode(path)) > MAX_PATH:
            raise InputError(f"the path is longer than the guest's limit of {MAX_PATH} bytes", where=path)
        if path in taken:
            raise InputError(
                "librumprunfs_base has this file already, and the guest panics on a second one",
                where=path,
                hint='give --replace-base, and bake with -m "remove -lrumprunfs_base"',
            )
    for path, _ in component.files:
        if path in directories:
            raise InputError("is a file in one directory and a directory in another", where=path)
    if component.memory > MAX_DATA:
        raise InputError(f"the files take {component.memory} bytes, a component holds at most {MAX_DATA}")
