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
    start = end = 0
    for low, high in _data_ranges(content, unit):
        for position in range(low, high, CHUNK):
            data = content.part(position, min(position + CHUNK, high)).read()
            block = first = position // unit
            for zero in (*_zero_blocks(data, unit), -(-len(data) // unit)):
                if block < first + zero:
                    if block > end:
                        if end > start:
                            yield start, end - start
                        start = block
                    end = first + zero
                block = first + zero + 1
    if end > start:
        yield start, end - start


def _zero_blocks(data: bytes, unit: int) -> Iterator[int]:
    """Yield the index of every block of *unit* bytes of *data* that is all zeros; the last may be shorter."""
    # To look at the first byte of each is three times as fast as to search for a block of zeros.
    zeros, begins = bytes(unit), data[::unit]
    index = begins.find(0)
    while index >= 0:
        block = data[index * unit : (index + 1) * unit]
        if block == zeros[: len(block)]:
            yield index
        index = begins.find(0, index + 1)


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
