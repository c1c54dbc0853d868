"""Read FAT12, FAT16 and FAT32 with long names (Microsoft, "FAT: General Overview of On-Disk Format" 1.03)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rumpbundle.errors import ImageError
from rumpbundle.images.filesystem import MAX_DEPTH, MAX_DIRECTORY, Entry, FileSystem, Span
from rumpbundle.images.medium import Medium, Tables

_DIRECTORY, _LABEL, _LONG = 0x10, 0x08, 0x0F
_MAX_CLUSTERS = 1 << 22
"""Of one file; larger ones are not listed whole."""


class Fat(FileSystem):
    """A volume whose first byte is the medium's."""

    def __init__(self, medium: Medium) -> None:
        boot = medium.read(0, 512)
        sector, per_cluster, reserved, fats, roots, sectors16 = struct.unpack_from("<HBHBHH", boot, 11)
        fat16, sectors32, fat32 = struct.unpack_from("<H8xII", boot, 22)
        sectors, fat_sectors = sectors16 or sectors32, fat16 or fat32
        if sector not in (512, 1024, 2048, 4096) or per_cluster not in (1, 2, 4, 8, 16, 32, 64, 128) or not fats:
            raise ImageError("FAT: the boot sector is damaged")
        self._fat = reserved * sector
        self._roots = (reserved + fats * fat_sectors) * sector
        self._data = self._roots + -(-roots * 32 // sector) * sector
        self._cluster = per_cluster * sector
        clusters = (sectors * sector - self._data) // self._cluster
        if clusters < 1 or self._data > medium.size:
            raise ImageError("FAT: the boot sector is damaged")
        self._bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
        self._clusters = clusters
        self._root_size = roots * 32
        self._root_cluster = struct.unpack_from("<I", boot, 44)[0] if self._bits == 32 else 0
        self._tables = Tables(medium)
        self._followed = 0
        at = 71 if self._bits == 32 else 43
        super().__init__(medium, sectors * sector, boot[at : at + 11].decode("latin-1").rstrip(" \0"))

    @property
    def kind(self) -> str:  # type: ignore[override]
        return f"fat{self._bits}"

    @property
    def structures(self) -> tuple[Span, ...]:
        return (Span(0, self._data),)

    def _next(self, cluster: int) -> int:
        """Return the cluster after *cluster*, 0 at the end of the chain."""
        if self._bits == 12:
            pair = self._tables.number(self._fat + cluster * 3 // 2, 2, "little")
            number, last = pair >> 4 * (cluster & 1) & 0xFFF, 0xFF8
        elif self._bits == 16:
            number, last = self._tables.number(self._fat + cluster * 2, 2, "little"), 0xFFF8
        else:
            number, last = self._tables.number(self._fat + cluster * 4, 4, "little") & 0xFFFFFFF, 0xFFFFFF8
        return 0 if number >= last else number

    def _chain(self, cluster: int, limit: int) -> tuple[Span, ...]:
        """Return where the clusters from *cluster* stand; at most *limit* bytes of them."""
        spans: list[Span] = []
        # No sound volume has a cluster in two chains, so all chains together are no longer than it has clusters.
        most = min(-(-limit // self._cluster), self._clusters, _MAX_CLUSTERS)
        for _ in range(most):
            if not cluster:
                break
            self._followed += 1
            if self._followed > self._clusters:
                raise ImageError("FAT: files share clusters")
            if not 2 <= cluster < self._clusters + 2:
                raise ImageError(f"FAT: cluster {cluster} does not exist")
            offset = self._data + (cluster - 2) * self._cluster
            last = spans[-1] if spans else None
            if last is not None and last.offset is not None and last.offset + last.length == offset:
                spans[-1] = Span(last.offset, last.length + self._cluster)
            else:
                spans.append(Span(offset, self._cluster))
            cluster = self._next(cluster)
        return tuple(spans)

    def _entries(self) -> Iterator[Entry]:
        self._followed = 0
        seen: set[int] = set()
        root = (
            self._chain(self._root_cluster, MAX_DIRECTORY)
            if self._bits == 32
            else (Span(self._roots, self._root_size),)
        )
        stack = [("", root, 0)]
        while stack:
            path, spans, depth = stack.pop()
            if depth > MAX_DEPTH:
                raise ImageError(f"FAT: directories are nested deeper than {MAX_DEPTH}")
            self._enter(spans, path)
            below = []
            for entry, cluster in self._directory(path, spans):
                yield entry
                if entry.kind == "directory" and cluster:
                    if cluster in seen:
                        raise ImageError(f"FAT: directory {entry.path} is in two places, or in itself")
                    seen.add(cluster)
                    below.append((entry.path, self._chain(cluster, MAX_DIRECTORY), depth + 1))
            stack += reversed(below)

    def _directory(self, path: str, spans: tuple[Span, ...]) -> Iterator[tuple[Entry, int]]:
        long: dict[int, bytes] = {}
        for span in spans:
            assert span.offset is not None
            data = self.medium.read(span.offset, span.length)
            for at in range(0, len(data) - 31, 32):
                raw = data[at : at + 32]
                if raw[0] == 0:
                    return
                if raw[11] & 0x3F == _LONG:
                    long[raw[0] & 0x3F] = raw[1:11] + raw[14:26] + raw[28:32]
                    continue
                name, long = _name(raw, long), {}
                if raw[0] == 0xE5 or raw[11] & _LABEL or name in (".", ".."):
                    continue
                if "/" in name or "\0" in name or not name:
                    raise ImageError(f"FAT: a file is called {name[:50]!r}")
                high, low, size = struct.unpack_from("<H4xHI", raw, 20)
                cluster = (high << 16 if self._bits == 32 else 0) | low
                if raw[11] & _DIRECTORY:
                    yield Entry(path=f"{path}/{name}", kind="directory"), cluster
                else:
                    spans_of = self._chain(cluster, size) if size else ()
                    yield Entry(path=f"{path}/{name}", kind="file", size=size, spans=spans_of), cluster


def _name(raw: bytes, long: dict[int, bytes]) -> str:
    if long:
        text = b"".join(long[number] for number in sorted(long)).decode("utf-16-le", "replace")
        return text.split("\0")[0]
    stem, extension = (part.decode("cp437").rstrip() for part in (raw[:8], raw[8:11]))
    stem = stem.lower() if raw[12] & 8 else stem
    extension = extension.lower() if raw[12] & 16 else extension
    return f"{stem}.{extension}" if extension else stem
