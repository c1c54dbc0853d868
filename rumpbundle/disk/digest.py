"""BLAKE3: the digest of every content in a bundle, and of the bundle (https://github.com/BLAKE3-team/BLAKE3-specs).

A file's digest is the plain BLAKE3 of its bytes, as ``b3sum`` prints it. What is mostly zeros, as a file system with
room in it or a whole disk, is hashed by its blocks (:class:`BlockHash`), so that nothing costs nothing.
"""

from __future__ import annotations

from blake3 import blake3

BLOCK = 64 << 10
"""Bytes of a block in :class:`BlockHash`."""
_ZEROS = bytes(1 << 20)
_ZERO_BLOCK = bytes(BLOCK)


def hexdigest(data: bytes) -> str:
    """Return the hex BLAKE3 of *data*."""
    return blake3(data).hexdigest()


class WholeHash:
    """The BLAKE3 of everything that is added; with *threads* on several of them, which pays from 1 MiB at once on."""

    def __init__(self, *, threads: bool = False) -> None:
        self._hash = blake3(max_threads=blake3.AUTO if threads else 1)

    def add(self, data: bytes | memoryview) -> None:
        self._hash.update(data)

    def add_zeros(self, count: int) -> None:
        while count:
            step = min(count, len(_ZEROS))
            self._hash.update(_ZEROS if step == len(_ZEROS) else _ZEROS[:step])
            count -= step

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class BlockHash:
    """The BLAKE3 of a table: index (8 bytes, little-endian) and BLAKE3 of each block that is not all zeros, in order.

    The size in bytes (8 bytes, little-endian) ends the table; the last block may be short. How the zeros were told,
    added or skipped, makes no difference.
    """

    def __init__(self) -> None:
        self._table = blake3()
        self._index = 0
        self._pending = b""

    def add(self, data: bytes | memoryview) -> None:
        data = self._pending + data if self._pending else bytes(data)
        view = memoryview(data)
        whole = len(data) // BLOCK * BLOCK
        for at in range(0, whole, BLOCK):
            if not data.startswith(_ZERO_BLOCK, at):
                self._block(view[at : at + BLOCK])
            self._index += 1
        self._pending = data[whole:]

    def add_zeros(self, count: int) -> None:
        if self._pending:
            step = min(count, BLOCK - len(self._pending))
            self.add(bytes(step))
            count -= step
        self._index += count // BLOCK
        self._pending += bytes(count % BLOCK)

    def _block(self, block: bytes | memoryview) -> None:
        self._table.update(self._index.to_bytes(8, "little") + blake3(block).digest())

    def hexdigest(self) -> str:
        """Return the digest; nothing can be added after it."""
        size = self._index * BLOCK + len(self._pending)
        if self._pending.count(0) < len(self._pending):
            self._block(self._pending)
        self._table.update(size.to_bytes(8, "little"))
        return self._table.hexdigest()


__all__ = ["BLOCK", "BlockHash", "WholeHash", "hexdigest"]
