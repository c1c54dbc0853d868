"""Read FAT12, FAT16 and FAT32 with long names (Microsoft, "FAT: General Overview of On-Disk Format" 1.03)."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

from rumpbundle.disk.bounds import MAX_DIRECTORY
from rumpbundle.errors import ImageError
from rumpbundle.images.filesystem import Entry, FileSystem, Span, Spans
from rumpbundle.images.filesystems.fat.boot import BootSector
from rumpbundle.images.filesystems.fat.names import LongName, short_name
from rumpbundle.images.filesystems.fat.table import FatTable
from rumpbundle.images.medium import Medium
from rumpbundle.images.problem import Problem

_DIRECTORY, _LABEL, _LONG = 0x10, 0x08, 0x0F
_FIXED_ROOT = 0
"""The number we give a root directory that is no chain of clusters."""


class Fat(FileSystem):
    """A volume whose first byte is the medium's."""

    def __init__(self, medium: Medium) -> None:
        self.boot = BootSector.read(medium.read(0, 512), medium.size)
        self.table = FatTable(medium, self.boot, self.boot.active)
        self._followed = 0
        super().__init__(medium, self.boot.size, self.boot.label)

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"fat{self.boot.bits}"

    @property
    def permissions(self) -> bool:
        return False

    @property
    def structures(self) -> Spans:
        return (Span(0, self.boot.data),)

    def _root(self) -> int:
        self._followed = 0
        return self.boot.root_cluster or _FIXED_ROOT

    def chain(self, cluster: int, limit: int) -> Spans:
        """Return where the clusters from *cluster* stand; at most *limit* bytes of them, whole clusters."""
        size = self.boot.cluster
        spans: list[Span] = []
        for first, count in self.table.runs(cluster, -(-limit // size), self.budget):
            # No sound volume has a cluster in two chains, so all chains together are no longer than it has clusters.
            self._followed += count
            if self._followed > self.boot.clusters:
                raise ImageError("FAT: files share clusters")
            self.budget.span()
            spans.append(Span(self.boot.data + (first - 2) * size, count * size))
        return tuple(spans)

    def problems(self) -> Iterator[Problem]:
        from rumpbundle.images.filesystems.fat.check import problems

        yield from super().problems()
        yield from problems(self)

    def _directory(self, path: str, number: int) -> Iterator[tuple[Entry, int | None]]:
        if number == _FIXED_ROOT:
            spans: Spans = (Span(self.boot.roots, self.boot.root_size),)
        else:
            spans = self.chain(number, MAX_DIRECTORY)
        self._enter(spans, path)
        for raw, name in self._records(spans):
            if "/" in name or "\0" in name or not name:
                raise ImageError(f"FAT: a file is called {name[:50]!r}")
            high, low, size = struct.unpack_from("<H4xHI", raw, 20)
            cluster = (high << 16 if self.boot.bits == 32 else 0) | low
            if raw[11] & _DIRECTORY:
                yield Entry(path=f"{path}/{name}", kind="directory"), cluster or None
            else:
                place = functools.partial(self.chain, cluster, size) if size else ()
                yield Entry(path=f"{path}/{name}", kind="file", size=size, place=place), None

    def starts(self) -> Iterator[tuple[str, int, int | None]]:
        """Yield path, first cluster and size of every file; directories have no size."""
        for entry, inside in self.walk("/", self.fund()):
            if isinstance(entry.place, functools.partial):
                yield entry.path, entry.place.args[0], entry.size
            elif inside is not None:
                yield entry.path, inside, None

    def _records(self, spans: Spans) -> Iterator[tuple[bytes, str]]:
        """Yield the 32 bytes and the name of everything in a directory, without ``.`` and ``..``."""
        long = LongName()
        for span in spans:
            assert span.offset is not None
            data = self.medium.read(span.offset, span.length)
            for at in range(0, len(data) - 31, 32):
                first, attributes = data[at], data[at + 11]
                if first == 0:
                    return
                if first == 0xE5:
                    long.forget()
                    continue
                raw = data[at : at + 32]
                if attributes & 0x3F == _LONG:
                    long.add(raw)
                    continue
                name = long.of(raw) or short_name(raw)
                if not attributes & _LABEL and name not in (".", ".."):
                    yield raw, name
