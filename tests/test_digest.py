"""Digests: what they are, and that they are true of the bytes in the output."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from support.disks import disk_of
from support.tools import output_of

from rumpbundle.disk.content import Content, Literal, Zeros
from rumpbundle.disk.digest import BLOCK, BlockHash, WholeHash
from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, Named, content_extents


def table(data: bytes) -> str:
    """Return the digest by blocks as the module describes it."""
    text = b""
    for index in range(-(-len(data) // BLOCK)):
        block = data[index * BLOCK : (index + 1) * BLOCK]
        if any(block):
            text += index.to_bytes(8, "little") + blake3(block).digest()
    return blake3(text + len(data).to_bytes(8, "little")).hexdigest()


pieces = st.lists(
    st.tuples(st.booleans(), st.sampled_from([1, 700, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])), max_size=8
)


@given(pieces, st.booleans())
def test_it_makes_no_difference_how_zeros_are_told(pieces, told):
    data = b"".join(bytes(length) if zeros else b"x" * length for zeros, length in pieces)
    blocks, whole = BlockHash(), WholeHash()
    for zeros, length in pieces:
        for hasher in (blocks, whole):
            if zeros and told:
                hasher.add_zeros(length)
            else:
                hasher.add(bytes(length) if zeros else b"x" * length)
    assert blocks.hexdigest() == table(data)
    assert whole.hexdigest() == blake3(data).hexdigest()


def test_a_terabyte_of_nothing_costs_nothing():
    content = Content((Literal(b"x"), Zeros(1 << 40)), sparse=True)
    assert len(content.digest()) == 64


def test_anyone_can_compute_a_files_digest(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(os.urandom(3 * MIB + 5))
    assert Content.of_file(InputFile(path)).digest() == output_of("b3sum", "--no-names", path).strip()


@pytest.mark.parametrize("threads", [True, False])
def test_the_digest_is_of_what_stands_in_the_output(tmp_path, monkeypatch, threads):
    """A writer through a mapping may change the input while it is copied, and nobody sees it."""
    path = tmp_path / "f"
    path.write_bytes(os.urandom(20 * MIB))
    content = Content.of_file(InputFile(path))
    copy = os.copy_file_range

    def changing(*words):
        copied = copy(*words)
        with path.open("r+b") as file:
            file.write(os.urandom(MIB))
        return copied

    if not threads:
        monkeypatch.setattr("threading.Thread.start", refused)
    monkeypatch.setattr(os, "copy_file_range", changing)
    monkeypatch.setattr(InputFile, "check", lambda self, fd: None)
    disk = replace(disk_of(32 * MIB, *content_extents(content, 0, "f")), named=(Named(0, content),))
    with tempfile.TemporaryFile() as out:
        write_flat(disk, out.fileno())
        out.seek(0)
        assert content.hashed
        assert content.digest() == blake3(out.read(20 * MIB)).hexdigest()
    assert content.digest() != blake3(path.read_bytes()).hexdigest()


def refused(thread):
    raise RuntimeError("can't start new thread")


def test_pieces_of_a_content_may_not_overlap():
    with pytest.raises(ValueError, match="overlaps"):
        Content.spread([(0, Literal(b"ab")), (1, Literal(b"c"))], 8)
    with pytest.raises(ValueError, match="leaves 8"):
        Content.spread([(7, Literal(b"ab"))], 8)
