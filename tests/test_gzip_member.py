"""One gzip member: any reader takes it, its bytes are ours alone, its zeros are free."""

from __future__ import annotations

import gzip
import random
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tools import output_of

from rumpbundle.formats._gzip_member import CHUNK, compress_joinable, crc32_zeros, gzip_member


def plain(pieces) -> bytes:
    return b"".join(bytes(p) if isinstance(p, int) else p for p in pieces)


def code(size: int) -> bytes:
    """Bytes that compress about as code does, the same everywhere."""
    rng = random.Random(4)
    words = [rng.randbytes(rng.randint(1, 9)) for _ in range(700)]
    return b"".join(rng.choices(words, k=size // 4 + 1))[:size]


@given(st.binary(max_size=40), st.integers(0, 5000))
def test_crc32_of_zeros_is_computed_as_zlib_reads_it(data, count):
    assert crc32_zeros(zlib.crc32(data), count) == zlib.crc32(data + bytes(count))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=3000), st.integers(1, 600_000)), max_size=5), st.integers(1, 3))
def test_zlib_reads_one_member_and_nothing_after_it(pieces, jobs):
    member = b"".join(gzip_member(pieces, jobs))
    reader = zlib.decompressobj(wbits=31)
    assert reader.decompress(member) == plain(pieces)
    assert reader.eof
    assert not reader.unused_data


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("size", [1, 2, 3, 100, 5000, CHUNK, 3 * CHUNK + 1])
def test_joinable_pieces_can_be_laid_end_to_end(size, level):
    data = code(size)
    noise = random.Random(size).randbytes(size)
    stream = b"".join(compress_joinable(part, level) for part in (data, noise, bytes(size), data)) + b"\x03\x00"
    assert zlib.decompress(stream, wbits=-15) == data + noise + bytes(size) + data


def test_gzip_and_python_read_it_and_jobs_do_not_change_it(tmp_path):
    pieces = [code(300_000), 3 << 20, random.Random(1).randbytes(100_000), 1, code(70_000)]
    members = {b"".join(gzip_member(pieces, jobs)) for jobs in (1, 2, 5)}
    assert len(members) == 1
    path = tmp_path / "x.gz"
    path.write_bytes(members.pop())
    output_of("gzip", "-t", str(path))
    output_of("busybox", "gzip", "-t", str(path))  # an inflate of its own
    assert gzip.decompress(path.read_bytes()) == plain(pieces)


def test_a_terabyte_of_zeros_is_not_compressed_by_force():
    before = time.process_time()
    size = sum(map(len, gzip_member([1 << 40], 1)))
    assert size < 1 << 31
    assert time.process_time() - before < 10  # read or compressed it would be minutes
