from __future__ import annotations

import gzip

import pytest

from rumpbundle.errors import KernelError
from rumpbundle.kernels import packed
from rumpbundle.kernels.view import View

KERNEL = bytes(range(256)) * 9000
GOOD = gzip.compress(KERNEL, mtime=0)


def test_unpacks():
    assert packed.is_gzip(View.of_bytes(GOOD))
    assert packed.unpack(View.of_bytes(GOOD)) == KERNEL


def with_byte(at: int, value: int) -> bytes:
    return GOOD[:at] + bytes([value]) + GOOD[at + 1 :]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD[:9], "is a truncated gzip file"),
        (GOOD[:-8], "is a truncated gzip file"),
        (GOOD[:-1], "is a truncated gzip file"),
        (with_byte(2, 7), "is a gzip file of a kind GRUB cannot read"),
        (with_byte(3, 2), "is a gzip file of a kind GRUB cannot read"),
        (
            with_byte(len(GOOD) - 8, GOOD[-8] ^ 1),
            "is a damaged gzip file",
        ),
        (
            GOOD + gzip.compress(KERNEL + b"more", mtime=0),
            "is a gzip file with more behind its first part, which GRUB cannot read",
        ),
        (
            gzip.compress(bytes(packed.LIMIT + 1), mtime=0),
            "is a gzip file that unpacks to more than 48 MiB, which we do not look into",
        ),
    ],
    ids=["header", "trailer", "last-byte", "method", "flags", "crc", "members", "large"],
)
def test_what_grub_could_not_unpack_is_refused(data, message):
    with pytest.raises(KernelError) as caught:
        packed.unpack(View.of_bytes(data))
    assert caught.value.problem == message


def test_a_bomb_that_lies_about_its_size_stops_at_what_it_says():
    bomb = bytearray(gzip.compress(bytes(64 << 20), 9, mtime=0))
    bomb[-4:] = (1000).to_bytes(4, "little")
    with pytest.raises(KernelError, match="is damaged, or a gzip file of several parts, which GRUB cannot read"):
        packed.unpack(View.of_bytes(bomb))
