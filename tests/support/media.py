"""What our readers of file systems find, and what they should."""

from __future__ import annotations

import os
import struct
import zlib
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


def in_sectors_of(bytes_: int, data: bytes) -> bytes:
    """Return the GPT disk *data*, whose partitions begin at whole MiB, as one of other sectors would have it."""
    factor, size, length = bytes_ // 512, len(data) // bytes_, -(-16384 // bytes_)
    out = bytearray(data)
    out[: 40 << 9] = bytes(40 << 9)
    out[-33 << 9 :] = bytes(33 << 9)
    out[:512] = data[:512]
    out[446 + 8 : 446 + 16] = struct.pack("<II", 1, size - 1)
    entries = bytearray(data[1024 : 1024 + 16384])
    for at in range(0, 16384, 128):
        first, last = struct.unpack_from("<QQ", entries, at + 32)
        if last:
            struct.pack_into("<QQ", entries, at + 32, first // factor, (last + 1) // factor - 1)
    for lba, other, table in ((1, size - 1, 2), (size - 1, 1, size - 1 - length)):
        header = bytearray(data[512:604])
        struct.pack_into("<QQQQ", header, 24, lba, other, 2 + length, size - 2 - length)
        struct.pack_into("<Q", header, 72, table)
        struct.pack_into("<I", header, 88, zlib.crc32(entries))
        header[16:20] = bytes(4)
        struct.pack_into("<I", header, 16, zlib.crc32(header))
        out[lba * bytes_ : lba * bytes_ + 92] = header
        out[table * bytes_ : table * bytes_ + 16384] = entries
    return bytes(out)
