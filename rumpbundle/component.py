"""A directory as an object file that links into a rumprun unikernel ("baked-in files").

The object holds the files and a constructor that hands them to the guest, as the guest expects it
(``facts/guests.md``, Baked-in files)::

    rumprun_platefs(const char **dirs, size_t ndirs, struct rumprun_extfile *files, size_t nfiles)

    struct rumprun_extfile { const char *name; void *data; size_t length; int flags; }

It goes in with ``rumprun-bake -m "add /absolute/data.o" hw_virtio out.bin app``. The guest gives every file the
mode 0755 and its boot time, and keeps them in memory as long as it runs; what it writes to them is lost.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rumpbundle.content import Content, Source
from rumpbundle.errors import InputError, UsageError
from rumpbundle.events import Note, Report, Warned, silent
from rumpbundle.flat import disk_error
from rumpbundle.layout import MIB, round_up
from rumpbundle.output import staged_file
from rumpbundle.relocatable import (
    ALLOC,
    EXECUTE,
    FUNCTION,
    INIT_ARRAY,
    OBJECT,
    WRITE,
    Relocation,
    Section,
    Symbol,
    Target,
    relocatable,
)
from rumpbundle.tree import MAX_DEPTH, Directory, File, Node, Symlink, scan
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
_ALIGN = 16
_PLATEFS = "rumprun_platefs"

MACHINES = {
    "x86_64": Target(name="x86_64", number=62, bits=64, rela=True),
    "i386": Target(name="i386", number=3, bits=32, rela=False),
    "aarch64": Target(name="aarch64", number=183, bits=64, rela=True),
}


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
        return sum(round_up(size, _ALIGN) for size in contents.values()) + names


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


def write_object(component: Component, machine: str) -> Content:
    """Return the object file for *machine* (a key of ``MACHINES``); file data is read when it is written."""
    target = MACHINES[machine]
    names = bytearray()
    name_places: list[int] = []
    for path in (*component.directories, *(path for path, _ in component.files)):
        name_places.append(len(names))
        names += os.fsencode(path) + b"\0"
    word = target.word
    record = 4 * word  # three words and an int, padded to words
    files_at = round_up(len(component.directories) * word, _ALIGN)
    payload_at = round_up(files_at + len(component.files) * record, _ALIGN)
    table = bytearray(payload_at)
    pointer = 1 if target.bits == 32 or machine == "x86_64" else 257  # R_386_32, R_X86_64_64, R_AARCH64_ABS64
    relocations = [
        Relocation(index * word, pointer, ".rodata", name_places[index])
        for index in range(len(component.directories))
    ]
    payload: list[Source] = []
    places: dict[int, int] = {}
    position = payload_at
    for index, (_, content) in enumerate(component.files):
        at = files_at + index * record
        place = places.get(id(content))
        if place is None:
            place = places[id(content)] = position
            gap = round_up(content.size, _ALIGN) - content.size
            payload += (*content.sources, *Content.of_bytes(bytes(gap)).sources)
            position += content.size + gap
        relocations.append(Relocation(at, pointer, ".rodata", name_places[len(component.directories) + index]))
        relocations.append(Relocation(at + word, pointer, ".data", place))
        table[at + 2 * word : at + 3 * word] = content.size.to_bytes(word, "little")
    code, calls = _constructor(machine, len(component.directories), files_at, len(component.files))
    sections = (
        Section(name=".text", flags=ALLOC | EXECUTE, align=_ALIGN, data=code, relocations=calls),
        Section(
            name=".init_array",
            type=INIT_ARRAY,
            flags=ALLOC | WRITE,
            align=word,
            data=bytes(word),
            relocations=(Relocation(0, pointer, ".text"),),
            entry_size=word,
        ),
        Section(name=".rodata", flags=ALLOC, data=bytes(names)),
        # Writable: the guest opens these files for writing, and writes where the data lies.
        Section(
            name=".data",
            flags=ALLOC | WRITE,
            align=_ALIGN,
            data=bytes(table),
            payload=Content(tuple(payload)),
            relocations=tuple(relocations),
        ),
        Section(name=".note.GNU-stack"),
    )
    symbols = (
        Symbol(name="rumpbundle_component", section=".text", size=len(code), kind=FUNCTION),
        Symbol(name="rumpbundle_directories", section=".data", size=len(component.directories) * word, kind=OBJECT),
        Symbol(
            name="rumpbundle_files", section=".data", value=files_at, size=len(component.files) * record, kind=OBJECT
        ),
        Symbol(name=_PLATEFS),
    )
    return relocatable(target, sections, symbols)


def save(component: Component, machine: str, output: Path, *, force: bool = False) -> None:
    """Write the object file for *machine* to *output*: whole, or not at all.

    Raises:
        RumpbundleError: see :func:`rumpbundle.output.staged_file`; an input changed; the disk is full.
    """
    with staged_file(output, force=force) as staged:
        try:
            for chunk in write_object(component, machine).chunks():
                view = memoryview(chunk)
                while view:
                    view = view[os.write(staged.fd, view) :]
        except OSError as error:
            raise disk_error(error) from None


def _constructor(machine: str, directories: int, files_at: int, files: int) -> tuple[bytes, tuple[Relocation, ...]]:
    """Return the code that calls ``rumprun_platefs(.data, directories, .data + files_at, files)``."""
    match machine:
        case "x86_64":
            code = (
                b"\x48\x8d\x3d\0\0\0\0"  # lea rdi, [rip + .data]
                + struct.pack("<BI", 0xBE, directories)  # mov esi, directories
                + b"\x48\x8d\x15\0\0\0\0"  # lea rdx, [rip + .data + files_at]
                + struct.pack("<BI", 0xB9, files)  # mov ecx, files
                + b"\xe9\0\0\0\0"  # jmp rumprun_platefs
            )
            return code, (
                Relocation(3, 2, ".data", -4),  # R_X86_64_PC32, relative to the instruction's end
                Relocation(15, 2, ".data", files_at - 4),
                Relocation(25, 4, _PLATEFS, -4),  # R_X86_64_PLT32
            )
        case "i386":
            code = (
                b"\x83\xec\x0c"  # sub esp, 12: with the four arguments the stack is aligned to 16 at the call
                + struct.pack("<BI", 0x68, files)  # push files
                + b"\x68\0\0\0\0"  # push .data + files_at
                + struct.pack("<BI", 0x68, directories)  # push directories
                + b"\x68\0\0\0\0"  # push .data
                + b"\xe8\0\0\0\0"  # call rumprun_platefs
                + b"\x83\xc4\x1c\xc3"  # add esp, 28; ret
            )
            return code, (
                Relocation(9, 1, ".data", files_at),  # R_386_32
                Relocation(19, 1, ".data"),
                Relocation(24, 2, _PLATEFS, -4),  # R_386_PC32
            )
        case _:
            code = struct.pack(
                "<9I",
                0x90000000,  # adrp x0, .data
                0x91000000,  # add x0, x0, :lo12:.data
                0xD2800001 | (directories & 0xFFFF) << 5,  # movz x1, directories
                0xF2A00001 | (directories >> 16) << 5,  # movk x1, directories >> 16, lsl 16
                0x90000002,  # adrp x2, .data + files_at
                0x91000042,  # add x2, x2, :lo12:.data + files_at
                0xD2800003 | (files & 0xFFFF) << 5,  # movz x3, files
                0xF2A00003 | (files >> 16) << 5,  # movk x3, files >> 16, lsl 16
                0x14000000,  # b rumprun_platefs
            )
            return code, (
                Relocation(0, 275, ".data"),  # R_AARCH64_ADR_PREL_PG_HI21
                Relocation(4, 277, ".data"),  # R_AARCH64_ADD_ABS_LO12_NC
                Relocation(16, 275, ".data", files_at),
                Relocation(20, 277, ".data", files_at),
                Relocation(32, 282, _PLATEFS),  # R_AARCH64_JUMP26
            )
