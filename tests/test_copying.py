"""Slices of files copied into an output, in the kernel or through memory, and hashed on the way."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from support.disks import disk_of

from rumpbundle.disk.ahead import ahead_map
from rumpbundle.disk.content import Content, FileSlice, Literal
from rumpbundle.disk.copying import Copier
from rumpbundle.disk.digest import WholeHash
from rumpbundle.disk.flat import SMALL, write_flat
from rumpbundle.disk.hashing import trailing
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, Named, content_extents
from rumpbundle.errors import InputError
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
    st.booleans(),
)
def test_what_is_hashed_on_the_way_is_what_stands_there(tmp_path_factory, files, start, shared):
    """Whatever the holes, and wherever a slice begins: hashing and writing do not go in step."""
    directory = tmp_path_factory.mktemp("copied")
    contents = []
    for index, pieces in enumerate(files):
        file = InputFile(holed(directory / str(index), pieces))
        contents.append(Content((Literal(b"head"), FileSlice(file, start, file.size - start), Literal(b"tail"))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rumpbundle.disk.copying._share_page", lambda *_: shared)
        written = write_hashed(contents, directory / "out")
    place = 0
    for content in contents:
        assert content.hashed
        assert written[place : place + content.size] == content.read()
        assert content.digest() == blake3(written[place : place + content.size]).hexdigest()
        place += -(-content.size // 512) * 512


@pytest.mark.parametrize("threads", [True, False])
def test_an_input_is_read_once(tmp_path, monkeypatch, threads):
    file = InputFile(holed(tmp_path / "input", [(True, 9000)]))
    reads = []
    pread, preadv = os.pread, os.preadv

    def count(fd: int, length: int, offset: int) -> None:
        if os.path.sameopenfile(fd, probe):
            reads.append((offset, length))

    monkeypatch.setattr(os, "pread", lambda fd, *words: count(fd, *words) or pread(fd, *words))
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: count(fd, len(views[0]), at) or preadv(fd, views, at))
    if not threads:
        monkeypatch.setattr(threading.Thread, "start", none_to_be_had)
    probe = os.open(file.path, os.O_RDONLY)
    try:
        assert write_hashed([Content.of_file(file)], tmp_path / "out")[: file.size] == Path(file.path).read_bytes()
    finally:
        os.close(probe)
    assert [offset for offset, _ in reads] == sorted({offset for offset, _ in reads})
    assert sum(length for _, length in reads) == file.size


def test_what_is_handed_over_is_not_read_back():
    content = Content((Literal(bytes(MIB)), Literal(bytes(MIB))))
    with (
        tempfile.TemporaryFile() as nothing,
        trailing([Named(0, content)], nothing.fileno(), lambda at: (at, 1 << 40)) as trail,
    ):
        for place in (0, MIB):
            while not trail._working:  # before, it keeps nothing
                time.sleep(0.01)
            trail.coming(place, b"x" * MIB)
    assert content.digest() == blake3(b"x" * 2 * MIB).hexdigest()


def test_the_rest_is_read_back_when_nothing_else_is_wanted(tmp_path):
    """A hasher that lags behind must not keep all that was handed over."""
    content = Content((Literal(bytes(40 * MIB)),))
    with (tmp_path / "out").open("w+b") as file:
        with trailing([Named(0, content)], file.fileno(), lambda at: (at, 1 << 40)) as trail:
            for place in range(0, 40 * MIB, MIB):
                data = os.urandom(MIB)
                trail.coming(place, data)
                assert len(trail._coming) <= 8
                file.write(data)
                file.flush()
        file.seek(0)
        assert content.digest() == blake3(file.read()).hexdigest()


@pytest.mark.parametrize("views", [True, False])
def test_a_buffer_is_not_filled_while_it_is_hashed(tmp_path, monkeypatch, views):
    """A hasher far behind gives back what it has not begun, and reads that from the output."""
    file = InputFile(holed(tmp_path / "input", [(True, 12000)]))
    if not views:
        monkeypatch.delattr(os, "preadv")
    add = WholeHash.add

    def slowly(self: WholeHash, data: bytes | memoryview) -> None:
        before = bytes(data)
        time.sleep(0.004)
        assert data == before
        add(self, data)

    monkeypatch.setattr(WholeHash, "add", slowly)
    content = Content.of_file(file)
    written = write_hashed([content], tmp_path / "out")[: file.size]
    assert written == Path(file.path).read_bytes()
    assert content.digest() == blake3(written).hexdigest()


def test_a_file_that_becomes_shorter_is_told_from_the_thread(tmp_path, monkeypatch):
    path = holed(tmp_path / "input", [(True, 9000)])
    content = Content.of_file(InputFile(path))
    preadv = os.preadv

    def cut(fd: int, views: list[memoryview], offset: int) -> int:
        if offset == 8 * MIB:
            os.truncate(path, 9 * MIB)
        return preadv(fd, views, offset)

    monkeypatch.setattr(os, "preadv", cut)
    before = threading.active_count()
    with pytest.raises(InputError, match="it is shorter now"):
        write_hashed([content], tmp_path / "out")
    assert threading.active_count() == before


def test_without_a_hash_the_kernel_copies(tmp_path, monkeypatch):
    """Nobody needs the bytes then, and what need not come through our memory costs less."""
    file = InputFile(holed(tmp_path / "input", [(True, 300)]))
    monkeypatch.setattr(InputFile, "read_from", lambda *_: pytest.fail("read"))
    with (tmp_path / "out").open("w+b") as out:
        with trailing([], out.fileno(), lambda at: (at, 1 << 40)) as trail:
            with Copier(out.fileno(), silent, "x", trail) as copier:
                copier.copy(FileSlice(file, 0, file.size), 0)
        assert out.read() == Path(file.path).read_bytes()


def test_results_come_in_order_and_few_too_early():
    computed = []
    early = []

    def square(number: int) -> int:
        computed.append(number)
        return number * number

    with closing(ahead_map(square, range(50), 3)) as results:
        for index, result in enumerate(results):
            assert result == index * index
            early.append(len(computed) - index - 1)
    assert max(early) <= 3
    assert computed == list(range(50))


def test_a_failure_comes_after_what_was_computed_before_it():
    results = ahead_map(lambda number: 6 // (2 - number), range(5), 2)
    assert list(islice(results, 2)) == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("read", [0, 1, 20])
def test_whoever_stops_leaves_no_thread(read):
    before = threading.active_count()
    with closing(ahead_map(str, count(), 2)) as results:
        assert list(islice(results, read)) == [str(number) for number in range(read)]
    assert threading.active_count() == before


def test_without_threads_it_is_a_map(monkeypatch):
    monkeypatch.setattr(threading.Thread, "start", none_to_be_had)
    assert list(ahead_map(str, range(9), 2)) == [str(number) for number in range(9)]
