"""One gzip member (RFC 1952) whose bytes do not depend on the machine and whose zeros cost nothing.

libdeflate's output depends on its version alone, which is pinned; zlib's on how it was built. But libdeflate
compresses whole buffers: each result is a finished DEFLATE stream. A gzip file of several members would be
legal, yet a reader that stops after the first would see a truncated disk, and nobody can look inside a cloud's
importer. So the pieces are joined into a *single* stream (RFC 1951): a piece that came out as one block has its
final-block bit at bit 0, which is cleared, and an empty stored block brings the stream back to a byte boundary,
as ``pigz`` and every Z_SYNC_FLUSH do. A piece that came out as several blocks is halved until it is one.

A run of zeros is compressed once and repeated; its CRC-32 is computed, not read (:func:`crc32_zeros`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import cache

import deflate

from rumpbundle.host.environment import check_memory
from rumpbundle.host.parallel import ordered_map

CHUNK = 64 << 10
"""Bytes compressed at once. Measured at level 1: 232 MB/s; larger chunks are several blocks and get halved."""
LEVEL = 1
"""libdeflate's level: on kernel code 4 × faster than level 6 for 6 % more bytes."""

_ZERO_RUN = 256 << 10
_RUNS_AT_ONCE = 1024  # 256 MiB of zeros, 270 KiB of output
_ZERO_LEVEL = 6  # its blocks may be that long; at level 1 they end at 64 KiB
HEADER = bytes.fromhex("1f8b 08 00 00000000 00 ff")  # no name, no time, system unknown
_EMPTY_STORED = b"\x00\x00\xff\xff"  # LEN and NLEN of a stored block without bytes
_FINAL = b"\x03\x00"  # a last block, of fixed codes, that holds only its end
_POLYNOMIAL = 0xEDB88320
_ONE, _X = 1 << 31, 1 << 30


def gzip_member(pieces: Iterable[bytes | int], jobs: int) -> Iterator[bytes]:
    """Compress *pieces* laid end to end; a number stands for that many zeros. *jobs* threads compress.

    The output depends on how the data is cut into pieces, but not on *jobs*.
    """
    crc = size = 0

    def chunks() -> Iterator[bytes | int]:
        nonlocal crc, size
        for piece in pieces:
            if isinstance(piece, int):
                crc = crc32_zeros(crc, piece)
                size += piece
                yield from _zero_runs(piece)
            else:
                crc = zlib.crc32(piece, crc)
                size += len(piece)
                yield from (piece[at : at + CHUNK] for at in range(0, len(piece), CHUNK))

    yield HEADER
    yield from ordered_map(_compressed, chunks(), jobs)
    yield _FINAL + struct.pack("<II", crc, size & 0xFFFFFFFF)


def _zero_runs(count: int) -> Iterator[bytes | int]:
    """Yield *count* zeros as numbers of runs, each number small enough for one buffer, and the rest as bytes."""
    runs, rest = divmod(count, _ZERO_RUN)
    yield from (min(_RUNS_AT_ONCE, runs - start) for start in range(0, runs, _RUNS_AT_ONCE))
    if rest:
        yield bytes(rest)


def _compressed(chunk: bytes | int) -> bytes:
    return _zero_run() * chunk if isinstance(chunk, int) else compress_joinable(chunk, LEVEL)


@cache
def _zero_run() -> bytes:
    return compress_joinable(bytes(_ZERO_RUN), _ZERO_LEVEL)


def compress_joinable(data: bytes, level: int) -> bytes:
    """Return *data* (not empty) as DEFLATE blocks that end on a byte boundary and of which none is the last."""
    check_memory()
    packed = deflate.deflate_compress(data, level)
    if not packed[0] & 1:
        half = len(data) // 2
        return compress_joinable(data[:half], level) + compress_joinable(data[half:], level)
    packed[0] &= 0xFE
    # The three zero bits that open a stored block fit into the unused bits of the last byte, or need another
    # one: which of the two is told by decompressing, as libdeflate does not say where its last bit is.
    for joint in (_EMPTY_STORED, b"\x00" + _EMPTY_STORED):
        joined = packed + joint
        try:
            if deflate.deflate_decompress(joined + _FINAL, len(data)) == data:
                return bytes(joined)
        except deflate.DeflateError:
            continue
    raise AssertionError("libdeflate's output could not be joined")


def crc32_zeros(crc: int, count: int) -> int:
    """Return the CRC-32 of some data whose CRC-32 is *crc*, followed by *count* zero bytes.

    The register is a polynomial over GF(2), bits reversed; a zero bit multiplies it by x. So *count* bytes
    multiply it by x^(8 × count), in as many steps as that exponent has bits.
    """
    power, square, exponent = _ONE, _X, 8 * count
    while exponent:
        if exponent & 1:
            power = _multiply(power, square)
        square = _multiply(square, square)
        exponent >>= 1
    return _multiply(crc ^ 0xFFFFFFFF, power) ^ 0xFFFFFFFF


def _multiply(a: int, b: int) -> int:
    """Return the product of two polynomials modulo the CRC's."""
    product = 0
    while b:
        if b & _ONE:
            product ^= a
        b = b << 1 & 0xFFFFFFFF
        a = a >> 1 ^ (_POLYNOMIAL if a & 1 else 0)
    return product
