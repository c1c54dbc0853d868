"""The flat writer: every extent where it belongs, however small, large and close together they are."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rumpbundle.disk.content import Content, FileSlice, Literal, Source, Zeros
from rumpbundle.disk.flat import SMALL, write_flat
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import DiskLayout, content_extents
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
"""Six MB: the flat writer passes five of them on."""


@pytest.mark.parametrize("threads", [True, False])
def test_many_small_pieces_are_written_beside_their_reading(tmp_path, monkeypatch, threads):
    writers = set()
    pwrite = os.pwrite

    def write_there(fd: int, data: bytes, offset: int) -> int:
        writers.add(threading.current_thread())
        return pwrite(fd, data, offset)

    def none_to_be_had(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(os, "pwrite", write_there)
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", none_to_be_had)
    assert write(PIECES, tmp_path / "out") == PIECES.read()
    assert len(writers) == (6 if threads else 1)


def test_a_full_disk_is_told_whoever_writes(tmp_path, monkeypatch):
    pwrite = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    before = threading.active_count()
    with pytest.raises(HostError, match=r"disk is full|no space"):
        write(PIECES, tmp_path / "out")
    assert threading.active_count() == before
