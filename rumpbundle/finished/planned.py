"""A disk against the one that was planned: every byte of it, in one pass in the order of the disk.

What the manifest names is hashed, what the layout writes itself is compared, and all the rest has to be zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Self

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK, Content, Zeros
from rumpbundle.disk.digest import BlockHash, WholeHash
from rumpbundle.disk.inputfile import InputFile, close, fill
from rumpbundle.disk.layout import SECTOR, DiskLayout, Extent
from rumpbundle.errors import ImageError
from rumpbundle.events import Advanced, Report, silent
from rumpbundle.host.ahead import ahead_map
from rumpbundle.images.disk import Disk
from rumpbundle.images.medium import Run
from rumpbundle.images.partitions import tables
from rumpbundle.images.problem import Problem

_CONSEQUENCES = (
    ("protective MBR", "firmware finds no partitions, or others, or does not start this disk"),
    ("MBR", "firmware finds no partitions, or others, or does not start this disk"),
    ("backup GPT", "firmware that finds the primary damaged finds no partitions, or others"),
    ("ISO 9660", "whoever lists or reads the files finds others, or none"),
    ("EFI system partition", "UEFI firmware finds no boot loader, or another one"),
    ("/boot/grub/eltorito.img", "BIOS firmware starts something else, or nothing"),
    ("/boot/grub/grub.cfg", "the boot loader does not do what the manifest says"),
    ("/EFI/", "UEFI firmware starts something else, or nothing"),
    ("volume ", "a guest that mounted it has written to it, or it was damaged"),
    ("room of ", "nothing reads it, but it is not what was written"),
)
"""What comes of a difference, by the beginning of the label of what should stand there."""
_OTHERWISE = "whoever reads it gets other bytes than were bundled"


@dataclass(frozen=True, slots=True)
class _Hashed:
    """*content* has to stand at byte *offset*; *label* names it."""

    offset: int
    content: Content
    label: str

    @property
    def end(self) -> int:
        return self.offset + self.content.size


def problems(layout: DiskLayout, disk: Disk, report: Report = silent, label: str = "disk") -> Iterator[Problem]:
    """Yield where *disk* is not *layout* with nothing behind it, whose digests are those of its manifest.

    *report* hears how many bytes are done, as the work called *label*.
    """
    position = 0
    with _Reader(disk) as reader:
        for piece in _pieces(layout):
            yield from _gap(reader, position, piece.offset)
            if isinstance(piece, _Hashed):
                yield from _hashed(reader, piece)
            else:
                yield from _compared(reader, piece)
            report(Advanced(label, piece.end - position))
            position = piece.end
        yield from _gap(reader, position, disk.size)


def end_of(disk: Disk) -> int:
    """Return where *disk* ended when it was made: other programs made it larger since, and left its GPT as it was."""
    ends = (table.end for table in tables(disk) if table.kind == "gpt" and table.whole)
    return next(ends, disk.size // SECTOR * SECTOR)


def _pieces(layout: DiskLayout) -> Iterator[_Hashed | Extent]:
    """Yield what the disk is made of, in its order: contents the manifest names as one, else single extents."""
    labels = {extent.offset: extent.label for extent in reversed(layout.extents)}
    named = iter(layout.named)
    following = next(named, None)
    end = 0
    for extent in layout.extents:
        while following is not None and following.offset <= extent.offset:
            if following.offset >= end:
                label = labels.get(following.offset, "a content of the manifest")
                yield _Hashed(following.offset, following.content, label)
                end = following.offset + following.content.size
            following = next(named, None)
        if extent.offset >= end:
            yield extent
    while following is not None:
        if following.offset >= end:
            yield _Hashed(following.offset, following.content, "a content of the manifest")
            end = following.offset + following.content.size
        following = next(named, None)


def _hashed(reader: _Reader, piece: _Hashed) -> Iterator[Problem]:
    """Compare the digest of a content with what stands in its place."""
    # A block hash keeps what does not fill a block, so it needs bytes of its own.
    hasher = BlockHash() if piece.content.sparse else WholeHash(threads=piece.content.size > _PART)
    try:
        for data in reader.pieces(piece.offset, piece.content.size):
            if isinstance(data, int):
                hasher.add_zeros(data)
            elif isinstance(hasher, BlockHash):
                hasher.add(bytes(data))
            else:
                hasher.add(data)
    except ImageError as error:
        yield _problem(piece.label, piece.offset, error.problem)
        return
    found = hasher.hexdigest()
    if found != piece.content.digest():
        what = f"its BLAKE3 is {found[:16]}…, the manifest says {piece.content.digest()[:16]}…"
        yield _problem(piece.label, piece.offset, what)


def _compared(reader: _Reader, extent: Extent) -> Iterator[Problem]:
    """Compare an extent with what stands in its place; tell the first difference, and how many bytes differ."""
    first, count = -1, 0
    here = there = b""
    for at in range(0, extent.length, CHUNK):
        length = min(CHUNK, extent.length - at)
        wanted = extent.source.read(at, length)
        try:
            found = reader.read(extent.offset + at, length)
        except ImageError as error:
            yield _problem(extent.label, extent.offset + at, error.problem)
            return
        if found == wanted:
            continue
        differing = [index for index in range(length) if found[index] != wanted[index]]
        count += len(differing)
        if first < 0:
            first = at + differing[0]
            here, there = found[differing[0] :][:8], wanted[differing[0] :][:8]
    if count:
        many = f"{count} bytes differ from this one on" if count > 1 else "one byte differs"
        yield _problem(extent.label, extent.offset + first, f"{many}: {here.hex()}, planned {there.hex()}")


def _gap(reader: _Reader, start: int, end: int) -> Iterator[Problem]:
    """Check that there are only zeros from *start* to *end*."""
    position = start
    try:
        for data in reader.pieces(start, end - start) if end > start else ():
            length = data if isinstance(data, int) else len(data)
            raw = b"" if isinstance(data, int) else bytes(data)
            if raw.count(0) != len(raw):
                at = position + len(raw) - len(raw.lstrip(b"\0"))
                what = f"the free space from {start} to {end} is not all zeros"
                yield Problem(
                    where="free space", offset=at, what=what, consequence="nothing reads it, but it was not bundled"
                )
                return
            position += length
    except ImageError as error:
        yield _problem("free space", position, error.problem)


def _problem(label: str, offset: int, what: str) -> Problem:
    consequence = next((text for start, text in _CONSEQUENCES if label.startswith(start)), _OTHERWISE)
    return Problem(where=label, offset=offset, what=what, consequence=consequence)


class _Reader:
    """Reads a disk in order: what stands as it is in a file straight from there, ahead of its use."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._stack = ExitStack()
        self._open: dict[int, int] = {}
        self._buffers: list[memoryview] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, offset: int, length: int) -> bytes:
        return self._disk.read(offset, length)

    def pieces(self, offset: int, length: int) -> Iterator[int | bytes | memoryview]:
        """Yield the bytes of a range in order: a number stands for that many zeros; a view is gone at the next."""
        for run in self._disk.runs(offset, length):
            if isinstance(run.source, Zeros):
                yield run.length
            elif run.source is None:
                for at in range(0, run.length, CHUNK):
                    yield self._disk.read(run.offset + at, min(CHUNK, run.length - at))
            else:
                yield from self._of_file(run)

    def _of_file(self, run: Run) -> Iterator[memoryview]:
        source = run.source
        assert source is not None
        assert not isinstance(source, Zeros)
        fd = self._fd(source.file)
        count = -(-source.length // _PART)
        while len(self._buffers) < min(count, _BUFFERS):
            self._buffers.append(memoryview(bytearray(_PART)))

        def part(index: int) -> memoryview:
            at = index * _PART
            view = self._buffers[index % _BUFFERS][: min(_PART, source.length - at)]
            if fill(fd, source.start + at, view) < len(view):
                raise ImageError("became shorter while it was read")
            return view

        # Who hashes a part has the next ones read meanwhile.
        if count > _BUFFERS:
            with closing(ahead_map(part, range(count), _BUFFERS - 1)) as parts:  # one of them is in use
                yield from parts
        else:
            yield from map(part, range(count))

    def _fd(self, file: InputFile) -> int:
        fd = self._open.get(id(file))
        if fd is None:
            if len(self._open) >= _MOST_OPEN:
                self._stack.close()
                self._open.clear()
            fd = self._open[id(file)] = file.open()
            self._stack.callback(close, fd)
        return fd


_PART = 2 << 20
"""Bytes read at once from a file: enough for two threads to hash, few enough that all parts stay in the cache."""
_BUFFERS = 3
_MOST_OPEN = 64
