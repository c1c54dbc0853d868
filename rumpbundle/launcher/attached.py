"""Directories as disks of their own, beside the one that boots: made for one run, and gone after it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence

from rumpbundle import guests, host, volume
from rumpbundle.flat import disk_errors, write_extents
from rumpbundle.launcher.backend import Disk
from rumpbundle.layout import SECTOR, content_extents, round_up

Tree = guests.Data | guests.Writable
"""Data becomes an ISO 9660 file system, what is writable an ext2 one; both are labelled after their mount point."""


def attached(trees: Sequence[Tree], stack: contextlib.ExitStack) -> tuple[Disk, ...]:
    """Return a disk for each of *trees*; they vanish with *stack*.

    Raises:
        InputError: a file system cannot express one of them, or a file changed meanwhile.
        HostError: there is no space for it.
    """
    labels: set[str] = set()
    disks = []
    for tree in trees:
        if isinstance(tree, guests.Data):
            made = tree.as_iso9660(labels, host.epoch())
        else:
            made, _ = tree.as_ext2(labels, host.epoch())
        file = stack.enter_context(tempfile.TemporaryFile(prefix="rumpbundle-"))  # noqa: SIM115 (the stack closes it)
        fd = file.fileno()
        with disk_errors():
            write_extents(content_extents(made.content, 0, made.label), fd)
            os.ftruncate(fd, round_up(made.content.size, SECTOR))
        disks.append(Disk(path=f"/dev/fd/{fd}", fd=fd, persist=True))
    return tuple(disks)


def named(trees: Sequence[Tree]) -> tuple[Disk, ...]:
    """Return the disks with names in the current directory instead, for commands that are shown."""
    labels: set[str] = set()
    return tuple(
        Disk(
            path=f"{volume.label_for(tree.mount, labels)}.{'iso' if isinstance(tree, guests.Data) else 'ext2'}",
            persist=isinstance(tree, guests.Writable),
        )
        for tree in trees
    )
