"""Disks inside archives: the VMDK of an OVA (tar), Google's ``disk.raw`` (tar in gzip).

Tar is read here, not with :mod:`tarfile`: an image is hostile, and this much of it needs only plain headers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.medium import Medium, Window

_BLOCK = 512
_MOST_MEMBERS = 10_000
_FURTHEST = 32 << 30
"""Bytes inflated at most to reach something: half a minute. Who wants to look further unpacks the file."""
_CHECKPOINTS = 128


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file of an archive; *offset* and *size* in bytes."""

    name: str
    offset: int
    size: int


def is_tar(head: bytes) -> bool:
    """Return whether *head*, the first block of a file, begins a ustar or GNU archive."""
    return head[257:262] == b"ustar"


def members(medium: Medium) -> Iterator[Member]:
    """Yield the regular files of a tar archive.

    Raises:
        ImageError: a header is damaged, or there are too many.
    """
    offset = 0
    for _ in range(_MOST_MEMBERS):
        if offset + _BLOCK > medium.size:
            return
        head = medium.read(offset, _BLOCK)
        if head == bytes(_BLOCK):
            return
        if not is_tar(head) or _octal(head[148:156]) != sum(head) - sum(head[148:156]) + 8 * 0x20:
            raise ImageError(f"tar: the header at {offset} is damaged")
        size = int.from_bytes(head[125:136], "big") if head[124] == 0x80 else _octal(head[124:136])
        if head[156:157] in (b"0", b"\0"):
            yield Member(head[:100].split(b"\0")[0].decode("utf-8", "replace"), offset + _BLOCK, size)
        offset += _BLOCK + -(-size // _BLOCK) * _BLOCK
    raise ImageError(f"tar: more than {_MOST_MEMBERS} members")


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    if text.strip(b"01234567"):
        raise ImageError("tar: a number is none")
    return int(text or b"0", 8)


def disk_member(medium: Medium, suffix: str) -> Medium:
    """Return the first member of the tar archive *medium* whose name ends in *suffix*.

    Raises:
        ImageError: there is none, or it is cut off.
    """
    for member in members(medium):
        if member.name.lower().endswith(suffix):
            return Window(medium, member.offset, member.size, member.name)
    raise ImageError(f"the archive holds no {suffix}")


class Inflated:
    """What a gzip member inflates to, at any offset.

    Going back continues from a checkpoint, of which there are never more than a fixed number, so memory stays bounded
    whatever the size, which is not known before the end and counts as endless.
    """

    size = 1 << 62
    _STEP = 64 << 10

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self._spacing = 4 << 20
        # Each: position in the inflated data, position in the file, the inflater's state there.
        self._checkpoints = [(0, 0, zlib.decompressobj(31))]
        self._last: tuple[int, bytes] = (0, b"")
        self._restart(0)

    def _restart(self, offset: int) -> None:
        self._position, self._source, state = max(
            (c for c in self._checkpoints if c[0] <= offset), key=lambda checkpoint: checkpoint[0]
        )
        self._inflater = state.copy()
        self._last = (self._position, b"")

    def read(self, offset: int, length: int) -> bytes:
        if offset < 0 or offset + length > _FURTHEST:
            raise ImageError(
                f"byte {offset} lies too deep in a compressed image", hint="unpack it and look into that"
            )
        if offset < self._last[0]:
            self._restart(offset)
        parts: list[bytes] = []
        while length:
            start, data = self._last
            if offset < start + len(data):
                part = data[offset - start : offset - start + length]
                parts.append(part)
                offset += len(part)
                length -= len(part)
            else:
                self._advance()
        return b"".join(parts)

    def _advance(self) -> None:
        """Inflate the next piece."""
        data = b""
        while not data:
            if self._inflater.eof:
                raise ImageError(f"the compressed image ends at byte {self._position}")
            packed = self._medium.read(self._source, min(self._STEP, self._medium.size - self._source))
            if not packed:
                raise ImageError("the compressed image is cut off")
            try:
                data = self._inflater.decompress(packed, 1 << 20)
            except zlib.error as error:
                raise ImageError(f"does not decompress: {error}") from None
            self._source += len(packed) - len(self._inflater.unconsumed_tail) - len(self._inflater.unused_data)
        self._last = (self._position, data)
        self._position += len(data)
        if self._position - self._checkpoints[-1][0] >= self._spacing:
            if len(self._checkpoints) >= _CHECKPOINTS:
                self._checkpoints = self._checkpoints[::2]
                self._spacing *= 2
            self._checkpoints.append((self._position, self._source, self._inflater.copy()))
