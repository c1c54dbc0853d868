"""The initrd archive: GNU cpio and the tree agree, names and links and bytes."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tools import require

from rumpbundle.disk import tree
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.errors import InputError
from rumpbundle.filesystems import cpio

EPOCH = 1_700_000_000


def unpacked(archive: Content, directory):
    directory.mkdir()
    command = [require("cpio"), "--extract", "--quiet", "--preserve-modification-time", "--no-preserve-owner"]
    subprocess.run(command, input=archive.read(), cwd=directory, check=True)
    return directory


def test_everything_a_directory_holds_arrives(tmp_path):
    top = tmp_path / "top"
    (top / "sub").mkdir(parents=True, mode=0o711)
    (top / "empty").mkdir()
    for length in range(9):
        (top / f"f{length}").write_bytes(b"x" * length)
    (top / "f3").chmod(0o4755)
    os.link(top / "f5", top / "sub" / "hard")
    os.link(top / "f5", top / "z-hard")
    (top / "ümläut and blanks").write_text("x")
    (top / "link").symlink_to("../nowhere")
    archive = cpio.archive(tree.scan(top), mount="/srv/data", epoch=EPOCH)
    assert archive.size % 4 == 0
    copy = unpacked(archive, tmp_path / "copy") / "srv" / "data"
    assert subprocess.run(["diff", "-r", "--no-dereference", top, copy], check=True).returncode == 0
    assert (copy / "f5").stat().st_nlink == 3
    assert (copy / "f5").samefile(copy / "sub" / "hard")
    assert stat.S_IMODE((copy / "f3").stat().st_mode) == 0o4755
    assert (copy / "f1").stat().st_mtime == EPOCH
    # Nothing of it was read for planning: contents are slices of the files.
    assert len(archive.sources) > 9


def test_the_root_itself_can_be_the_place(tmp_path):
    archive = cpio.archive(Directory.of("", [File("f", Content.of_bytes(b"1"))]), mount="/", epoch=0)
    assert (unpacked(archive, tmp_path / "copy") / "f").read_bytes() == b"1"


def test_what_the_format_cannot_express_is_refused():
    with pytest.raises(InputError, match="link target is longer"):
        cpio.archive(Directory.of("", [Symlink("l", "x" * 4096)]), mount="/", epoch=0)
    deep = Directory("d" * 255)
    for _ in range(17):
        deep = Directory.of("d" * 255, [deep])
    with pytest.raises(InputError, match="path is longer"):
        cpio.archive(deep, mount="/", epoch=0)


def test_4_gib_is_too_much(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        file.truncate(1 << 32)
    with pytest.raises(InputError, match="4 GiB"):
        cpio.archive(tree.scan(tmp_path), mount="/", epoch=0)


@given(st.lists(st.integers(0, 9), max_size=8))
def test_every_entry_stands_on_four_bytes(sizes):
    files = [File(str(number), Content.of_bytes(b"x" * size)) for number, size in enumerate(sizes)]
    data = cpio.archive(Directory.of("", files), mount="/d", epoch=0).read()
    position = 0
    seen = []
    while True:
        assert data[position : position + 6] == b"070701"
        size, name_size = (int(data[position + 6 + 8 * at :][:8], 16) for at in (6, 11))
        name = data[position + 110 : position + 109 + name_size]
        start = -(-(position + 110 + name_size) // 4) * 4
        if name == b"TRAILER!!!":
            break
        seen.append((name.decode(), data[start : start + size]))
        position = -(-(start + size) // 4) * 4
    assert seen == [("d", b""), *((f"d/{n}", b"x" * size) for n, size in enumerate(sizes))]
