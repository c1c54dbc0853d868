"""Slices of files copied into an output, in the kernel or through memory, and hashed on the way."""

from __future__ import annotations

import os
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from support.disks import disk_of

from rumpbundle.disk.content import Content, FileSlice, Literal
from rumpbundle.disk.copying import Copier
from rumpbundle.disk.digest import WholeHash
from rumpbundle.disk.flat import SMALL, write_flat
from rumpbundle.disk.hashing import trailing
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, Named, content_extents
from rumpbundle.errors import HostError, InputError
from rumpbundle.events import silent


def none_to_be_had(self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def holed(path: Path, pieces: list[tuple[bool, int]]) -> Path:
    """Make a file of *pieces*, each data or a hole of so many blocks of 4 KiB."""
    with path.open("wb") as file:
        for data, blocks in pieces:
            if data:
                file.write(random.randbytes(4096 * blocks))
            else:
                file.seek(4096 * blocks, os.SEEK_CUR)
        file.truncate(max(file.tell(), SMALL + 6000))
    return path


def write_hashed(contents: list[Content], path: Path) -> bytes:
    """Write *contents* one after the other, from sectors on; they are hashed on the way."""
    place, extents, named = 0, [], []
    for content in contents:
        extents += content_extents(content, place, "x")
        named.append(Named(place, content))
        place += -(-content.size // 512) * 512
    with path.open("w+b") as file:
        write_flat(replace(disk_of(place + MIB, *extents), named=tuple(named)), file.fileno())
    return path.read_bytes()


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, 700)), max_size=5), min_size=1, max_size=3),
    st.integers(0, 5000),
)
def test_what_is_hashed_on_the_way_is_what_stands_there(tmp_path_factory, files, start):
    """Whatever the holes, and wherever a slice begins: hashing and writing do not go in step."""
    directory = tmp_path_factory.mktemp("copied")
    contents = []
    for index, pieces in enumerate(files):
        file = InputFile(holed(directory / str(index), pieces))
        contents.append(Content((Literal(b"head"), FileSlice(file, start, file.size - start), Literal(b"tail"))))
    written = write_hashed(contents, directory / "out")
    place = 0
    for content in contents:
        assert content.hashed
        assert written[place : place + content.size] == content.read()
        assert content.digest() == blake3(written[place : place + content.size]).hexdigest()
        place += -(-content.size // 512) * 512


@pytest.mark.parametrize("start", [0, 100])
@pytest.mark.parametrize("threads", [True, False])
def test_an_input_is_read_once(tmp_path, monkeypatch, threads, start):
    """By the kernel, or by us where the kernel would have to move parts of pages."""
    file = InputFile(holed(tmp_path / "input", [(True, 9000)]))
    reads = []

    def counted(call):
        def count(fd, what, *words):
            done = call(fd, what, *words)
            if os.path.sameopenfile(fd, probe):
                offset, length = (words[1], done) if isinstance(done, int) else (words[0], len(done))
                reads.append((offset, length))
            return done

        return count

    for name in ("pread", "copy_file_range"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", none_to_be_had)
    probe = os.open(file.path, os.O_RDONLY)
    try:
        written = write_hashed([Content((FileSlice(file, start, file.size - start),))], tmp_path / "out")
    finally:
        os.close(probe)
    assert written[: file.size - start] == Path(file.path).read_bytes()[start:]
    assert [offset for offset, _ in reads] == sorted({offset for offset, _ in reads})
    assert sum(length for _, length in reads) == file.size - start


@pytest.mark.parametrize("views", [True, False])
def test_a_reader_that_lags_behind_hashes_what_stands_there(tmp_path, monkeypatch, views):
    file = InputFile(holed(tmp_path / "input", [(True, 12000)]))
    if not views:
        monkeypatch.delattr(os, "preadv")
    add = WholeHash.add

    def slowly(self: WholeHash, data: bytes | memoryview) -> None:
        time.sleep(0.004)
        add(self, data)

    monkeypatch.setattr(WholeHash, "add", slowly)
    content = Content.of_file(file)
    written = write_hashed([content], tmp_path / "out")[: file.size]
    assert written == Path(file.path).read_bytes()
    assert content.digest() == blake3(written).hexdigest()


def test_an_output_that_somebody_cuts_is_told(tmp_path):
    content = Content((Literal(bytes(4 * MIB)),))
    with (tmp_path / "out").open("w+b") as file:
        file.truncate(3 * MIB)
        with pytest.raises(HostError, match="somebody else changed the output"):
            with trailing([Named(0, content)], file.fileno(), lambda at: (at, 1 << 40)) as trail:
                trail.arrived(4 * MIB)


def test_a_file_that_becomes_shorter_is_told(tmp_path, monkeypatch):
    path = holed(tmp_path / "input", [(True, 9000)])
    content = Content.of_file(InputFile(path))
    copy = os.copy_file_range

    def cut(src: int, dst: int, number: int, offset: int, place: int) -> int:
        if offset == 8 * MIB:
            os.truncate(path, 9 * MIB)
        return copy(src, dst, number, offset, place)

    monkeypatch.setattr(os, "copy_file_range", cut)
    before = threading.active_count()
    with pytest.raises(InputError, match="it is shorter now"):
        write_hashed([content], tmp_path / "out")
    assert threading.active_count() == before


def test_the_kernel_copies(tmp_path, monkeypatch):
    """What need not come through our memory costs less."""
    file = InputFile(holed(tmp_path / "input", [(True, 300)]))
    monkeypatch.setattr(InputFile, "read_from", lambda *_: pytest.fail("read"))
    with (tmp_path / "out").open("w+b") as out:
        with trailing([], out.fileno(), lambda at: (at, 1 << 40)) as trail:
            with Copier(out.fileno(), silent, "x", trail) as copier:
                copier.copy(FileSlice(file, 0, file.size), 0)
        assert out.read() == Path(file.path).read_bytes()
