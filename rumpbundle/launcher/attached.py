"""Directories as disks of their own, beside the one that boots: made for one run, and gone after it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence

from rumpbundle import guests, volume
from rumpbundle.disk.flat import disk_errors, write_content
from rumpbundle.disk.layout import SECTOR
from rumpbundle.host import environment
from rumpbundle.launcher.backend import Drive

Tree = guests.Data | guests.Writable
"""Data becomes an ISO 9660 file system, what is writable an ext2 one; both are labelled after their mount point."""


def attached(trees: Sequence[Tree], stack: contextlib.ExitStack, directory: str | None = None) -> tuple[Drive, ...]:
    """Return a disk for each of *trees*: files without a name that vanish with *stack*, or named ones in *directory*.

    Raises:
        InputError: a file system cannot express one of them, or a file changed meanwhile.
        HostError: there is no space for it.
    """
    labels: set[str] = set()
    disks = []
    for tree, name in zip(trees, _names(trees), strict=True):
        if isinstance(tree, guests.Data):
            made = tree.as_iso9660(labels, environment.epoch())
        else:
            made, _ = tree.as_ext2(labels, environment.epoch())
        with disk_errors():
            if directory is None:
                fd = stack.enter_context(tempfile.TemporaryFile(prefix="rumpbundle-")).fileno()  # noqa: SIM115 (it does)
                disks.append(Drive(path=f"/dev/fd/{fd}", fd=fd, persist=True))
            else:
                path = os.path.join(directory, name)
                fd = stack.enter_context(open(path, "xb")).fileno()  # noqa: SIM115
                disks.append(Drive(path=path, persist=True))
            write_content(made.content, fd, align=SECTOR)
    return tuple(disks)


def named(trees: Sequence[Tree]) -> tuple[Drive, ...]:
    """Return the disks with names in the current directory instead, for commands that are shown."""
    return tuple(
        Drive(path=name, persist=isinstance(tree, guests.Writable))
        for tree, name in zip(trees, _names(trees), strict=True)
    )


def _names(trees: Sequence[Tree]) -> list[str]:
    """Return a file name for each of *trees*: its label and what it is."""
    labels: set[str] = set()
    return [
        f"{volume.label_for(tree.mount, labels)}.{'iso' if isinstance(tree, guests.Data) else 'ext2'}"
        for tree in trees
    ]
