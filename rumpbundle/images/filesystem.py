"""What every reader of a file system gives: its entries, and where their bytes stand.

An image is hostile: a reader visits a directory once, nests at most ``MAX_DEPTH`` deep, lists at most ``MAX_ENTRIES``
entries, and reads at most ``MAX_DIRECTORIES`` bytes of directories, ``MAX_DIRECTORY`` of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.errors import ImageError
from rumpbundle.images.disk import Fact
from rumpbundle.images.medium import Medium

MAX_ENTRIES = 200_000
MAX_DEPTH = 128
MAX_DIRECTORY = 16 << 20
MAX_DIRECTORIES = 128 << 20
MAX_PATH = 1 << 16
"""Characters of one path; names of 255 bytes 128 deep stay below it."""


@dataclass(frozen=True, slots=True)
class Span:
    """*length* bytes at *offset* of the file system; an offset of None is a hole, which reads as zeros."""

    offset: int | None
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file, directory, symbolic link or (``special``) device."""

    path: str
    """Absolute. Bytes that are no UTF-8 stand as surrogate escapes."""
    kind: OneOf["file", "directory", "symlink", "special"]
    size: int = 0
    mode: int = 0
    """The twelve permission bits; 0 where the file system has none."""
    target: str = ""
    """Of a symbolic link."""
    spans: tuple[Span, ...] = ()
    """Where a file's bytes stand, in order."""


class FileSystem:
    """A file system on a medium, at its byte 0."""

    kind: ClassVar[str]

    def __init__(self, medium: Medium, size: int, label: str) -> None:
        """*size*: bytes it says it takes, at most the medium's."""
        self.medium = medium
        self.size = min(size, medium.size)
        self.label = label
        self.directories: list[Span] = []
        """Where the directories stand that have been read so far."""
        self._charged = 0

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What it says about itself, for people."""
        return {}

    @property
    def structures(self) -> tuple[Span, ...]:
        """Where its own structures stand, as far as they are known without reading all of it."""
        return ()

    def entries(self) -> Iterator[Entry]:
        """Yield everything in it, parents before children.

        Raises:
            ImageError: it is damaged, or over the limits above.
        """
        self._charged = 0
        self.directories = []
        return limited(self._entries())

    def _enter(self, spans: tuple[Span, ...], path: str) -> None:
        """Note that the directory *path* stands at *spans*.

        Raises:
            ImageError: its bytes, or those of all directories so far, are over the limits.
        """
        length = sum(span.length for span in spans)
        self._charged += length
        if length > MAX_DIRECTORY or self._charged > MAX_DIRECTORIES:
            raise ImageError(f"directory {path or '/'} has {length} bytes, more than is sensible")
        self.directories.extend(spans)

    def _entries(self) -> Iterator[Entry]:
        raise NotImplementedError

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """Yield the bytes of a file, at most ``CHUNK`` at a time.

        Raises:
            ImageError: its spans leave the medium.
        """
        left = entry.size
        for span in entry.spans:
            length = min(span.length, left)
            left -= length
            for at in range(0, length, CHUNK):
                count = min(CHUNK, length - at)
                yield bytes(count) if span.offset is None else self.medium.read(span.offset + at, count)
        if left:
            raise ImageError(f"{entry.path}: {left} of its {entry.size} bytes have no place")

    def find(self, path: str) -> Entry | None:
        """Return the entry at the absolute *path*, or None."""
        wanted = "/" + path.strip("/")
        return next((entry for entry in self.entries() if entry.path == wanted), None)


def limited(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Yield *entries*; raise :class:`ImageError` past ``MAX_ENTRIES`` or for an endless path."""
    for count, entry in enumerate(entries):
        if count >= MAX_ENTRIES:
            raise ImageError(f"the file system has more than {MAX_ENTRIES} entries")
        if len(entry.path) > MAX_PATH:
            raise ImageError("a path in the file system is endless")
        yield entry
