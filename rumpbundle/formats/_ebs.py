"""The plan of an upload through Amazon's EBS direct APIs: which blocks of a disk, with which checksums.

A snapshot is a set of 512 KiB blocks; what is never put reads as zeros. Each block carries the SHA-256 of its
padded content, and completing the snapshot the LINEAR checksum: the SHA-256 of all these digests, raw, in order
(docs/facts/formats.md#ebs-direct-apis). Only what the layout covers is read: hashing costs what the content costs.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.disk.layout import GIB, DiskLayout, LayoutReader
from rumpbundle.events import Advanced, Report, silent
from rumpbundle.host.parallel import ordered_map
from rumpbundle.images.records.kitfiles import EC2_BLOCK as BLOCK

HASHED_ZEROS = GIB
"""With more zeros than this in a disk, its plain SHA-256 is not computed unless asked for.

SHA-256 has no shortcut through zeros: 0.6 s a GiB, 39 s for a 64 GiB disk however little is on it.
"""


@dataclass(frozen=True, slots=True)
class EbsBlock:
    """A block that is not all zeros."""

    index: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPlan:
    """All blocks to put, in order."""

    blocks: tuple[EbsBlock, ...]
    disk_sha256: str | None
    """The hex SHA-256 of the whole disk; None if it was not computed."""

    @property
    def linear(self) -> bytes:
        """The LINEAR checksum: it tells everything about the disk's content but its size."""
        return hashlib.sha256(b"".join(block.sha256 for block in self.blocks)).digest()


def base64(digest: bytes) -> str:
    """Return *digest* as the API writes it."""
    return b64encode(digest).decode("ascii")


def plan_snapshot(
    layout: DiskLayout, *, jobs: int, whole: bool = False, report: Report = silent, label: str = "hash"
) -> SnapshotPlan:
    """Read and hash *layout*; *whole* also hashes the disk as one file, however many zeros it has.

    Raises:
        InputError: an input file changed.
    """
    # Each word is a chance to be stopped: zeros take their time, too.
    disk = _DiskHash(layout.size, lambda: report(Advanced(label, 0))) if hashes_whole(layout, whole=whole) else None

    def blocks(reader: LayoutReader) -> Iterator[tuple[int, bytes]]:
        for index, data in reader.blocks(BLOCK):
            if disk is not None:
                disk.add(index * BLOCK, data)
            yield index, data

    hashed = []
    with LayoutReader(layout) as reader:
        for block in ordered_map(_hashed, blocks(reader), jobs):
            hashed.append(block)
            report(Advanced(label, BLOCK))
    return SnapshotPlan(blocks=tuple(hashed), disk_sha256=disk.hexdigest() if disk is not None else None)


def plan_changed(layout: DiskLayout, known: Mapping[int, bytes], changed: Iterable[tuple[int, int]]) -> SnapshotPlan:
    """Return the plan of *layout*, of which only the ranges *changed* are read; the other blocks are *known*.

    The disk is not hashed as one file.

    Raises:
        InputError: an input file changed.
    """
    blocks = dict(known)
    with LayoutReader(layout) as reader:
        for index in sorted({index for low, high in changed for index in range(low // BLOCK, -(-high // BLOCK))}):
            data = reader.read(index * BLOCK, min(BLOCK, layout.size - index * BLOCK)).ljust(BLOCK, b"\0")
            blocks.pop(index, None)
            if data.count(0) != BLOCK:
                blocks[index] = hashlib.sha256(data).digest()
    return SnapshotPlan(blocks=tuple(EbsBlock(*each) for each in sorted(blocks.items())), disk_sha256=None)


def block_request(index: int, checksum: str) -> dict[str, int | str]:
    """Return what PutSnapshotBlock is told of a block; *checksum* is what :func:`base64` gives."""
    return {"BlockIndex": index, "DataLength": BLOCK, "Checksum": checksum, "ChecksumAlgorithm": "SHA256"}


def hashes_whole(layout: DiskLayout, *, whole: bool) -> bool:
    """Return whether the plain SHA-256 of *layout* is computed; *whole* asks for it."""
    return whole or layout.size - layout.payload <= HASHED_ZEROS


def _hashed(block: tuple[int, bytes]) -> EbsBlock:
    index, data = block
    return EbsBlock(index, hashlib.sha256(data).digest())


class _DiskHash:
    """The SHA-256 of a disk of *size* bytes that is told only what is not zero, in order.

    *alive* is called before each piece of the zeros.
    """

    def __init__(self, size: int, alive: Callable[[], None]) -> None:
        self._size = size
        self._alive = alive
        self._position = 0
        self._sha256 = hashlib.sha256()
        self._zeros = memoryview(bytes(CHUNK))

    def add(self, offset: int, data: bytes) -> None:
        self._skip_to(offset)
        # The last block is padded to its size; the disk is not.
        self._sha256.update(memoryview(data)[: self._size - offset])
        self._position = min(offset + len(data), self._size)

    def _skip_to(self, offset: int) -> None:
        while self._position < offset:
            self._alive()
            count = min(offset - self._position, CHUNK)
            self._sha256.update(self._zeros[:count])
            self._position += count

    def hexdigest(self) -> str:
        self._skip_to(self._size)
        return self._sha256.hexdigest()
