"""The layout's invariants, and that its two readers agree with a naive one."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.disks import IDENTITY, disk_of, from_file, late, literal

from rumpbundle.disk.content import Content
from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.hashing import trailing
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, LayoutReader, Named, content_extents, round_up
from rumpbundle.errors import InputError

pieces = st.lists(
    st.tuples(st.integers(0, 40_000), st.integers(1, 6000), st.sampled_from(["literal", "late", "zeros", "file"])),
    max_size=12,
)


def naive(extents, size: int) -> bytes:
    disk = bytearray(size)
    for extent in extents:
        disk[extent.offset : extent.end] = extent.source.read(0, extent.length)
    return bytes(disk)


@settings(max_examples=150, deadline=None)
@given(pieces, st.sampled_from([512, 4096, 65536]))
def test_flat_file_blocks_and_reads_agree_with_a_byte_array(tmp_path_factory, rows, block):
    payload = tmp_path_factory.getbasetemp() / "layout-payload"
    if not payload.exists():
        payload.write_bytes(bytes(range(1, 256)) * 30)
    extents, position = [], 0
    for gap, length, kind in rows:
        position += gap
        extents.append(
            {
                "literal": lambda p=position, n=length: literal(p, b"L" * n),
                "zeros": lambda p=position, n=length: literal(p, bytes(n)),
                "late": lambda p=position, n=length: late(p, n),
                "file": lambda p=position, n=length: from_file(p, payload, 7, n),
            }[kind]()
        )
        position += length
    disk = disk_of(round_up(position + 512, 512), *extents)
    expected = naive(extents, disk.size)
    with tempfile.TemporaryFile() as file:
        write_flat(disk, file.fileno())
        assert os.pread(file.fileno(), disk.size + 1, 0) == expected
    with LayoutReader(disk) as reader:
        assert reader.read(0, disk.size) == expected
        middle = disk.size // 3
        assert reader.read(middle, 1000) == expected[middle : middle + 1000].ljust(1000, b"\0")
        rebuilt = bytearray(round_up(disk.size, block))
        used = [index for each in reader.used(block) for index in each]
        assert used == [index for index, _ in reader.blocks(block)]
        last = -1
        for index, data in reader.blocks(block):
            assert index > last
            assert any(data)
            assert len(data) == block
            rebuilt[index * block : (index + 1) * block] = data
            last = index
        assert rebuilt[: disk.size] == expected


def test_holes_of_a_source_are_not_read_and_change_nothing(tmp_path):
    sparse, full = tmp_path / "sparse", tmp_path / "full"
    with sparse.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(40 * MIB + 5)
        file.write(b"data")
    full.write_bytes(sparse.read_bytes())
    found = []
    for path in (sparse, full):
        disk = disk_of(70 * MIB, from_file(MIB, path))
        with LayoutReader(disk) as reader:
            found.append(list(reader.blocks(65536)))
    assert found[0] == found[1]
    assert len(found[0]) == 1
    assert found[0][0][0] == 41 * MIB // 65536


def test_a_flat_copy_of_a_sparse_file_is_sparse(tmp_path):
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(40 * MIB)
        file.write(b"data")
    out = tmp_path / "out"
    with out.open("wb") as file:
        write_flat(disk_of(80 * MIB, from_file(MIB, sparse)), file.fileno())
    assert out.stat().st_size == 80 * MIB
    assert out.stat().st_blocks * 512 < 2 * MIB


def test_overlapping_extents_are_a_programming_error():
    with pytest.raises(ValueError, match="overlaps"):
        disk_of(MIB, literal(0, b"x" * 100), literal(99, b"y"))


def test_an_extent_past_the_end_is_a_programming_error():
    with pytest.raises(ValueError, match="cannot hold"):
        disk_of(512, literal(500, b"x" * 100))


def test_a_file_that_changes_between_plan_and_write_is_an_error(tmp_path):
    payload = tmp_path / "payload"
    for size in (1000, 3 * MIB):
        payload.write_bytes(b"x" * size)
        os.utime(payload, (1, 1))  # a clock may not move between two writes
        disk = disk_of(8 * MIB, from_file(0, payload))
        payload.write_bytes(b"y" * size)
        with tempfile.TemporaryFile() as file:
            with pytest.raises(InputError, match="changed while it was read"):
                write_flat(disk, file.fileno())
        with LayoutReader(disk) as reader:
            with pytest.raises(InputError, match="changed while it was read"):
                list(reader.blocks(4096))


def test_padding_keeps_the_body_and_honours_alignment_and_least():
    disk = disk_of(512, literal(0, b"x"), identity=IDENTITY)
    assert disk.padded(align=2048).size == 2048
    assert disk.padded(align=MIB, least=3 * MIB + 1).size == 4 * MIB
    assert disk.padded(align=MIB).body == disk.body


@pytest.fixture
def big(tmp_path, monkeypatch):
    """A content that takes a second to hash, and the list to which every read of it or its copy is added."""
    payload = tmp_path / "payload"
    with payload.open("wb") as file:
        file.write(b"x")
        file.truncate(4096 * MIB)
    reads = []
    read = os.pread

    def counted(fd, count, offset):
        reads.append(fd)
        return read(fd, count, offset)

    monkeypatch.setattr(os, "pread", counted)
    return Content.of_file(InputFile(payload)), reads


def test_an_interrupted_write_does_not_wait_for_hashing(big, monkeypatch):
    """A big file's hashing stops when the copy does: on a Ctrl-C nobody waits for it."""
    content, reads = big
    copy = os.copy_file_range
    copied = []
    before = threading.active_count()

    def interrupted(*words):
        copied.append(words)
        if len(copied) < 3:
            return copy(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "copy_file_range", interrupted)
    monkeypatch.setattr("rumpbundle.disk.copying._data_from", lambda fd, position: (position, 5000 * MIB))
    disk = replace(disk_of(5000 * MIB, *content_extents(content, 0, "big")), named=(Named(0, content),))
    with tempfile.TemporaryFile() as file, pytest.raises(KeyboardInterrupt):
        write_flat(disk, file.fileno())
    assert len(reads) < 4096, "hashing went on to the end"
    assert threading.active_count() == before


def test_an_interruption_does_not_wait_for_the_last_of_the_hashing(big):
    """The copy is done before the hash: the wait for that must end at a Ctrl-C, too."""
    content, reads = big
    with tempfile.TemporaryFile() as file:
        file.truncate(content.size)
        copied = trailing([Named(0, content)], file.fileno(), lambda offset: (offset, content.size))
        with pytest.raises(KeyboardInterrupt), copied:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
    assert len(reads) < 4096, "hashing went on to the end"
