"""What our readers of file systems find, and what they should."""

from __future__ import annotations

import os
from pathlib import Path

from rumpbundle.images.filesystem import FileSystem
from rumpbundle.images.medium import check_bounds


class Bytes:
    """A medium in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        check_bounds(self, offset, length)
        return self.data[offset : offset + length]


def listed(volume: FileSystem) -> dict[str, object]:
    """Return the bytes of every file, the target of every link, and the kind of all else, by path."""
    found: dict[str, object] = {}
    for entry in volume.entries():
        assert entry.path not in found
        assert entry.path.rpartition("/")[0] in ("", *found), "parents come first"
        match entry.kind:
            case "file":
                found[entry.path] = b"".join(volume.chunks(entry))
            case "symlink":
                found[entry.path] = entry.target
            case _:
                found[entry.path] = entry.kind
    return found


def expected(top: Path) -> dict[str, object]:
    """Return the same of the host's directory *top*."""
    found: dict[str, object] = {}
    for path in top.rglob("*"):
        name = f"/{path.relative_to(top)}"
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = "directory" if path.is_dir() else path.read_bytes()
    return found
