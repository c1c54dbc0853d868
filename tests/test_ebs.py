"""The plan of a snapshot: known sparseness, true checksums."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumpbundle.disk.content import Literal
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.layout import GIB, MIB, DiskLayout, Extent
from rumpbundle.errors import Interrupted
from rumpbundle.formats._ebs import BLOCK, plan_snapshot


def disk(size, pieces, identity=None) -> DiskLayout:
    """A disk of *size* bytes with *pieces*, ``(offset, bytes)``, on it."""
    extents = tuple(Extent(offset, Literal(data), "test") for offset, data in pieces)
    return DiskLayout(
        size=size,
        body=extents,
        partitions=(),
        table="mbr",
        write_table=lambda _: (),
        identity=identity or Identity(lambda: "0" * 64),
        body_end=max((extent.end for extent in extents), default=0),
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * MIB // 4096), st.binary(min_size=1, max_size=3000)), max_size=6),
    st.integers(6, 20),
    st.integers(1, 3),
)
def test_blocks_and_disk_are_hashed_as_a_plain_file_is(pieces, half_mibs, jobs):
    size = half_mibs * MIB // 2 + 512
    placed = {offset * 4096: data for offset, data in pieces}
    flat = bytearray(size)
    for offset, data in placed.items():
        flat[offset : offset + len(data)] = data
    plan = plan_snapshot(disk(size, sorted(placed.items())), jobs=jobs)
    assert plan.disk_sha256 == hashlib.sha256(flat).hexdigest()
    flat += bytes(-size % BLOCK)
    blocks = [flat[at : at + BLOCK] for at in range(0, len(flat), BLOCK)]
    expected = [(i, hashlib.sha256(b).digest()) for i, b in enumerate(blocks) if any(b)]
    assert [(block.index, block.sha256) for block in plan.blocks] == expected
    assert plan.linear == hashlib.sha256(b"".join(digest for _, digest in expected)).digest()


def test_a_large_sparse_disk_is_neither_read_nor_kept():
    import resource  # nowhere but on Unix

    before = resource.getrusage(resource.RUSAGE_SELF)
    plan = plan_snapshot(disk(65536 * GIB, [(0, b"boot"), (65536 * GIB - 512, b"end")]), jobs=2)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert [block.index for block in plan.blocks] == [0, 65536 * GIB // BLOCK - 1]
    assert plan.disk_sha256 is None
    assert after.ru_utime - before.ru_utime < 5  # hashing it would be ten hours
    assert after.ru_maxrss - before.ru_maxrss < 64 << 10


def test_a_disk_of_little_but_zeros_is_hashed_on_request():
    layout = disk(GIB + 2 * MIB, [(MIB, b"x")])
    assert plan_snapshot(layout, jobs=1).disk_sha256 is None
    assert plan_snapshot(layout, jobs=1, whole=True).disk_sha256 is not None


def test_the_zeros_of_a_large_disk_can_be_interrupted():
    """In ``rumpbundle build`` the thread of this format hears of a Ctrl-C only when it reports something."""
    said = []

    def stop(event):
        said.append(event)
        if len(said) == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        plan_snapshot(disk(65536 * GIB, [(0, b"boot")]), jobs=1, whole=True, report=stop)
