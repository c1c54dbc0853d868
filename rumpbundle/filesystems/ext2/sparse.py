"""Where a content holds more than zeros: for file systems that leave blocks of zeros out."""

from __future__ import annotations

from collections.abc import Iterator

from rumpbundle.disk.content import CHUNK, Content, FileSlice, Zeros
from rumpbundle.disk.inputfile import close
from rumpbundle.disk.layout import holes, round_up


def stretches(content: Content, unit: int) -> Iterator[tuple[int, int]]:
    """Yield ``(first, count)`` of the stretches of *content* that are not zeros, in blocks of *unit* bytes.

    All of it is read but the holes of the host's files: the result does not depend on where those are.
    """
    zeros = bytes(unit)
    start = end = 0
    for low, high in _data_ranges(content, unit):
        for position in range(low, high, CHUNK):
            data = content.part(position, min(position + CHUNK, high)).read()
            tail = len(data) % unit  # a hole of the host's may begin where the last, shorter block does
            mixed = zeros in data or (tail > 0 and data.endswith(zeros[:tail]))
            for at in range(0, len(data), unit if mixed else CHUNK):
                piece = data[at : at + unit] if mixed else data
                if mixed and piece == zeros[: len(piece)]:
                    continue
                block = (position + at) // unit
                if block > end:
                    if end > start:
                        yield start, end - start
                    start = block
                end = block + -(-len(piece) // unit)
    if end > start:
        yield start, end - start


def _data_ranges(content: Content, unit: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, end)`` in bytes, on multiples of *unit* and in order, of what may be more than zeros."""
    position = done = 0
    for source in content.sources:
        ranges = [(0, source.length)]
        if isinstance(source, FileSlice):
            fd = source.file.open()
            try:
                gaps = list(holes(fd, source.start, source.start + source.length))
            finally:
                close(fd)
            edges = [0, *(edge - source.start for gap in gaps for edge in gap), source.length]
            ranges = list(zip(edges[::2], edges[1::2], strict=True))
        for low, high in ranges if not isinstance(source, Zeros) else ():
            start = max((position + low) // unit * unit, done)
            done = min(round_up(position + high, unit), content.size)
            if start < done:
                yield start, done
        position += source.length
