"""Where bytes come from: literals, slices of input files, and what is only known at the end.

A *source* has a ``length`` in bytes and can be read at any offset. Sources are placed on the disk by
:mod:`rumpbundle.disk.layout` as extents and nothing is read before a writer asks, so memory stays flat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field
from functools import lru_cache

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.digest import BlockHash, WholeHash
from rumpbundle.disk.inputfile import InputFile, close
from rumpbundle.errors import Interrupted

CHUNK = 1 << 20
"""Bytes read at once: large enough for full disk speed, small enough to stay in the cache."""


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are known."""

    data: bytes = field(repr=False)

    @property
    def length(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


@dataclass(frozen=True, slots=True)
class FileSlice:
    """*length* bytes of *file* from *start*."""

    file: InputFile
    start: int
    length: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.length < 0 or self.start + self.length > self.file.size:
            raise ValueError(f"slice {self.start}+{self.length} leaves {self.file!r}")

    def read(self, offset: int, length: int) -> bytes:
        return self.file.read(self.start + offset, length)


class Late:
    """*length* bytes that depend on the bundle's digest, and so on every payload byte.

    Their place is known when the disk is planned, their value only when all payload has been hashed. That
    lets a writer copy and hash the payload at the same time and write these last.
    """

    __slots__ = ("_data", "_lock", "_render", "length")

    def __init__(self, length: int, render: Callable[[], bytes]) -> None:
        self.length = length
        self._render = render
        self._data: bytes | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Late({self.length})"

    def settle(self) -> Literal:
        """Return the bytes; the first call waits until the payload is hashed."""
        with self._lock:
            if self._data is None:
                data = self._render()
                if len(data) != self.length:
                    raise AssertionError(f"{len(data)} bytes rendered where {self.length} were planned")
                self._data = data
            return Literal(self._data)

    def read(self, offset: int, length: int) -> bytes:
        return self.settle().read(offset, length)


@dataclass(frozen=True, slots=True)
class Zeros:
    """*length* zero bytes: a gap inside a content, which takes no room in memory or in a sparse output."""

    length: int

    def read(self, offset: int, length: int) -> bytes:
        return bytes(length)


@dataclass(frozen=True, slots=True)
class Computed:
    """*length* bytes that a reader gives, as those of a compressed image: ``reader(offset, count)``."""

    length: int
    reader: Callable[[int, int], bytes]

    def read(self, offset: int, length: int) -> bytes:
        return self.reader(offset, length)

    def part(self, start: int, length: int) -> Computed:
        """Return *length* bytes of it from *start*, without reading them."""
        return Computed(length, lambda offset, count: self.reader(start + offset, count))


_zeros = lru_cache(1 << 13)(Zeros)
"""Gaps behind small files are many and of few lengths."""
Stored = Literal | FileSlice | Late | Computed
"""What takes room on a disk."""
Source = Stored | Zeros


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of one file inside an image: sources, and gaps between them, laid end to end."""

    sources: tuple[Source, ...]
    sparse: bool = False
    """Whether it is mostly zeros, and so hashed by its blocks (:class:`~rumpbundle.disk.digest.BlockHash`)."""
    size: int = field(init=False, compare=False)
    """Bytes in all."""
    _digest: str | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        sources = self.sources
        object.__setattr__(self, "size", sources[0].length if len(sources) == 1 else sum(s.length for s in sources))
        object.__setattr__(self, "_digest", None)

    @classmethod
    def of_bytes(cls, data: bytes) -> Content:
        return cls((Literal(data),) if data else ())

    @classmethod
    def of_file(cls, file: InputFile) -> Content:
        return cls((FileSlice(file, 0, file.size),) if file.size else ())

    @classmethod
    def spread(cls, pieces: Iterable[tuple[int, Source]], size: int) -> Content:
        """Return *size* bytes, sparse, with each source of *pieces* at its offset, and zeros between them.

        Raises:
            ValueError: two of them overlap or are not in order, or one leaves the *size* bytes.
        """
        sources: list[Source] = []
        position = 0
        for offset, source in pieces:
            if offset < position or offset + source.length > size:
                raise ValueError(f"a piece at {offset} of {source.length} bytes overlaps another or leaves {size}")
            if offset > position:
                sources.append(_zeros(offset - position))
            sources.append(source)
            position = offset + source.length
        if position < size:
            sources.append(Zeros(size - position))
        return cls(tuple(sources), sparse=True)

    def stored(self, offset: int = 0) -> Iterator[tuple[int, Stored]]:
        """Yield its sources but for zeros, each with its place if this content begins at *offset*."""
        for source in self.sources:
            if not isinstance(source, Zeros):
                yield offset, source
            offset += source.length

    def origins(self) -> Iterator[tuple[int, int]]:
        """Yield device and inode number of the files it is made of."""
        return (source.file.origin for source in self.sources if isinstance(source, FileSlice))

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes in order, at most ``CHUNK`` at a time."""
        for source in self.sources:
            yield from _chunks(source)

    def read(self) -> bytes:
        """Return all bytes: for content known to be small."""
        return b"".join(self.chunks())

    @property
    def hashed(self) -> bool:
        """Whether :meth:`digest` costs nothing."""
        return self._digest is not None

    def remember(self, digest: str) -> None:
        """Keep a digest that a writer computed from these bytes as they stand in its output."""
        object.__setattr__(self, "_digest", digest)

    def hasher(self) -> WholeHash | BlockHash:
        """Return what :meth:`digest` is computed with."""
        return BlockHash() if self.sparse else WholeHash()

    def digest(self, stop: threading.Event | None = None) -> str:
        """Return the hex BLAKE3 of all bytes, by blocks if it is sparse; computed once.

        Raises:
            Interrupted: *stop* was set meanwhile: hashing a big file must not outlive a Ctrl-C.
            InputError: a file changed or cannot be read.
        """
        if self._digest is None:
            hasher = self.hasher()
            for source in self.sources:
                if isinstance(source, Zeros):
                    hasher.add_zeros(source.length)
                    continue
                for chunk in _chunks(source):
                    if stop is not None and stop.is_set():
                        raise Interrupted
                    hasher.add(chunk)
            self.remember(hasher.hexdigest())
        assert self._digest is not None
        return self._digest

    def patched(self, offset: int, data: bytes) -> Content:
        """Return this content with *data* in the place of as many bytes at *offset*."""
        return Content((*self._cut(0, offset), Literal(data), *self._cut(offset + len(data), self.size)))

    def part(self, start: int, end: int) -> Content:
        """Return the bytes *start*..*end* of this content, without reading them."""
        if start == 0 and end == self.size:
            return self
        return Content(tuple(self._cut(start, end)))

    def _cut(self, start: int, end: int) -> Iterator[Source]:
        """Yield the sources of the range *start*..*end*."""
        position = 0
        for source in self.sources:
            low, high = max(start - position, 0), min(end - position, source.length)
            position += source.length
            if low >= high:
                continue
            if isinstance(source, FileSlice):
                yield FileSlice(source.file, source.start + low, high - low)
            elif isinstance(source, Computed):
                yield source.part(low, high - low)
            elif isinstance(source, Zeros):
                yield Zeros(high - low)
            else:
                yield Literal(source.read(low, high - low))


def _chunks(source: Source) -> Iterator[bytes]:
    """Yield the bytes of *source* in order, at most ``CHUNK`` at a time; a file is opened once."""
    if not isinstance(source, FileSlice) or source.length <= CHUNK:
        for offset in range(0, source.length, CHUNK):
            yield source.read(offset, min(CHUNK, source.length - offset))
        return
    fd = source.file.open()
    try:
        for offset in range(0, source.length, CHUNK):
            yield source.file.read_from(fd, source.start + offset, min(CHUNK, source.length - offset))
        source.file.check(fd)
    finally:
        close(fd)
