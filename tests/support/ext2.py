"""Readers of ext2 that are not ours: e2fsck and debugfs."""

from __future__ import annotations

import os
from pathlib import Path

from rumpbundle.disk.content import Content, Zeros
from rumpbundle.filesystems.ext2 import Ext2Volume
from support.tools import output_of


def write(content: Content, path: Path) -> Path:
    """Write *content* to *path*, sparse."""
    with open(path, "wb") as file:
        for source in content.sources:
            if isinstance(source, Zeros):
                file.seek(source.length, os.SEEK_CUR)
            else:
                for chunk in Content((source,)).chunks():
                    file.write(chunk)
        file.truncate(content.size)
    return path


def check(volume: Ext2Volume, path: Path) -> Path:
    """Write *volume* to *path* and let e2fsck look at it; it must find nothing."""
    content = volume.content()
    assert content.size == volume.size
    write(content, path)
    said = output_of("e2fsck", "-fn", str(path))
    assert "Pass 5" in said
    assert len(said.splitlines()) == 7, said  # version, five passes, summary: nothing to complain about
    return path


def unpacked(image: Path, directory: Path) -> Path:
    """Read all files of *image* into *directory* with debugfs."""
    directory.mkdir()
    said = output_of("debugfs", "-R", f"rdump / {directory}", str(image))
    # Who is not root cannot give files away, of which it complains; the files' bytes tell the rest.
    assert len(said.splitlines()) == 1 or os.getuid() != 0, said
    (directory / "lost+found").rmdir()
    return directory


def debugfs(image: Path, command: str) -> str:
    return output_of("debugfs", "-R", command, str(image))
