"""The flat writer: every extent where it belongs, however small, large and close together they are."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumpbundle.disk.content import Content, FileSlice, Literal, Source, Zeros
from rumpbundle.disk.flat import SMALL, write_content, write_flat
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, DiskLayout, content_extents
from rumpbundle.errors import HostError


def write(content: Content, path) -> bytes:
    disk = DiskLayout(
        size=-(-content.size // 512) * 512,
        body=tuple(content_extents(content, 0, "x")),
        partitions=(),
        table="mbr",
        write_table=lambda _: (),
        identity=Identity(str),
        body_end=content.size,
    )
    with open(path, "w+b") as file:
        write_flat(disk, file.fileno())
    return path.read_bytes()[: content.size]


def test_a_slice_of_a_large_file_between_small_pieces(tmp_path):
    (tmp_path / "large").write_bytes(bytes(SMALL) + b"the end")
    file = InputFile(tmp_path / "large")
    tail = FileSlice(file, SMALL, 7)
    content = Content((Literal(b"before"), tail, Zeros(20), Literal(b"after")))
    assert write(content, tmp_path / "out") == b"before" + b"the end" + bytes(20) + b"after"


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from("lszf"), st.integers(1, 5000)), max_size=12))
def test_any_mixture(tmp_path_factory, shape):
    directory = tmp_path_factory.mktemp("flat")
    (directory / "small").write_bytes(bytes(range(1, 251)) * 24)
    (directory / "large").write_bytes(bytes(range(1, 251)) * (SMALL // 250 + 24))
    small, large = InputFile(directory / "small"), InputFile(directory / "large")
    sources: list[Source] = []
    for kind, length in shape:
        match kind:
            case "l":
                sources.append(Literal(b"L" * length))
            case "s":
                sources.append(FileSlice(small, 1000, length))
            case "f":
                sources.append(FileSlice(large, SMALL, length))
            case "z":
                sources.append(Zeros(length))
    content = Content(tuple(sources))
    assert write(content, directory / "out") == content.read()


def test_the_kernel_copies_whole_pages_to_whole_pages(tmp_path, monkeypatch):
    calls = []

    def copy(src: int, dst: int, count: int, src_offset: int, dst_offset: int) -> int:
        calls.append((src_offset, dst_offset, count))
        return os.pwrite(dst, os.pread(src, count, src_offset), dst_offset)

    monkeypatch.setattr(os, "copy_file_range", copy)
    (tmp_path / "image").write_bytes(bytes(range(1, 251)) * 80_000)
    image = InputFile(tmp_path / "image")
    content = Content((Literal(bytes(2048)), FileSlice(image, 2048, image.size - 2048)))
    assert write(content, tmp_path / "out") == bytes(2048) + (tmp_path / "image").read_bytes()[2048:]
    assert calls[0] == (2048, 2048, (8 << 20) - 2048)
    assert all(not src % 4096 and not dst % 4096 for src, dst, _ in calls[1:])
    assert len(calls) == 3


PIECES = Content(tuple(Literal(bytes([number % 255 + 1]) * 4000) for number in range(1500)))
"""Six MB."""


def test_many_small_pieces_are_written_at_once(tmp_path, monkeypatch):
    sizes = []
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: sizes.append(len(data)) or pwrite(fd, data, at))
    assert write(PIECES, tmp_path / "out") == PIECES.read()
    assert len(sizes) == 6


GAPS, SIZES = st.sampled_from([0, 1, 4095, 4096, 4097]), st.sampled_from([1, 4000, MIB, MIB + 1])


@given(st.lists(st.tuples(GAPS, SIZES), max_size=9))
def test_gaps_between_pieces_are_zeros(tmp_path_factory, pieces):
    placed, end = [], 0
    for number, (gap, size) in enumerate(pieces):
        placed.append((end + gap, Literal(bytes([number + 1]) * size)))
        end += gap + size
    content = Content.spread(placed, end + 5000)
    path = tmp_path_factory.mktemp("pieces") / "out"
    with path.open("w+b") as file:
        write_content(content, file.fileno())
    assert path.read_bytes() == content.read()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    pwrite = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset > 2 * MIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HostError, match=r"disk is full|no space"):
        write(PIECES, tmp_path / "out")
