"""The plan of an upload through Amazon's EBS direct APIs: which blocks of a disk, with which checksums.

A snapshot is a set of 512 KiB blocks; what is never put reads as zeros. Each block carries the SHA-256 of its
padded content, and completing the snapshot the LINEAR checksum: the SHA-256 of all these digests, raw, in order
(facts/formats.md §1, "EBS direct APIs"). Only what the layout covers is read: hashing costs what the content costs.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from rumpbundle.content import CHUNK
from rumpbundle.events import Advanced, Report, silent
from rumpbundle.layout import GIB, DiskLayout, LayoutReader

BLOCK = 512 << 10
"""The only block size there is; what a service reports is not trusted (moto says 512 bytes)."""

HASHED_ZEROS = GIB
"""With more zeros than this in a disk, its plain SHA-256 is not computed unless asked for.

SHA-256 has no shortcut through zeros: 0.6 s a GiB, 39 s for a 64 GiB disk however little is on it.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A block that is not all zeros."""

    index: int
    sha256: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPlan:
    """All blocks to put, in order."""

    blocks: tuple[Block, ...]
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
    whole = whole or layout.size - layout.payload <= HASHED_ZEROS
    blocks: list[Block] = []
    disk = hashlib.sha256()
    position = 0
    pending: deque[tuple[int, Future[bytes], Future[None] | None]] = deque()

    def settle() -> None:
        index, digest, streamed = pending.popleft()
        blocks.append(Block(index, digest.result()))
        if streamed is not None:
            streamed.result()
        report(Advanced(label, BLOCK))

    with LayoutReader(layout) as reader, ThreadPoolExecutor(jobs) as pool, ThreadPoolExecutor(1) as stream:
        for index, data in reader.blocks(BLOCK):
            streamed = None
            if whole:
                # A disk need not be whole blocks: the padding belongs to the block, not to the disk.
                data_of_disk = memoryview(data)[: layout.size - index * BLOCK]
                streamed = stream.submit(_extend, disk, index * BLOCK - position, data_of_disk)
                position = index * BLOCK + len(data_of_disk)
            pending.append((index, pool.submit(_digest, data), streamed))
            if len(pending) > 4 * jobs:
                settle()
        while pending:
            settle()
    if whole:
        _extend(disk, layout.size - position, memoryview(b""))
    return SnapshotPlan(blocks=tuple(blocks), disk_sha256=disk.hexdigest() if whole else None)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _extend(digest: hashlib._Hash, zeros: int, data: memoryview) -> None:
    for run in _zeros(zeros):
        digest.update(run)
    digest.update(data)


def _zeros(count: int) -> Iterator[memoryview]:
    buffer = memoryview(bytes(min(count, CHUNK)))
    while count:
        yield buffer[:count]
        count -= min(count, len(buffer))
