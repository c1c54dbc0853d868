"""ext2: e2fsck finds nothing, debugfs reads everything back, and the host leaves no trace."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import ext2 as reader

from rumpbundle.disk import tree
from rumpbundle.disk.content import Content
from rumpbundle.disk.ext2 import holds_sparse_copy
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.errors import InputError
from rumpbundle.filesystems.ext2 import Ext2Volume
from rumpbundle.filesystems.ext2.geometry import BLOCK

EPOCH = 1_700_000_000
MIB = 1 << 20


def volume(root: Directory, **options) -> Ext2Volume:
    return Ext2Volume(root, label="data", epoch=EPOCH, **options)


def pattern(size: int) -> bytes:
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


def test_everything_a_directory_holds_arrives(tmp_path):
    top = tmp_path / "top"
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    (top / "a").write_bytes(b"hello")
    (top / "a").chmod(0o4750)
    os.link(top / "a", top / "sub" / "hard")
    (top / "nothing").touch()
    (top / ("n" * 255)).write_text("long name")
    (top / "blanks and ümläute").write_text("x")
    (top / os.fsdecode(b"not utf-8 \xff\xfe")).write_text("x")
    for length in (1, 59, 60, 1000):
        (top / f"link{length}").symlink_to("t" * length)
    (top / "dangling").symlink_to("../../../nowhere")
    for number in range(400):
        (top / "sub" / "deep" / f"{number:03}{'x' * (number % 200)}").write_text(str(number) * number)
    (top / "sub").chmod(0o701)
    image = reader.check(volume(tree.scan(top)), tmp_path / "image")
    copy = reader.unpacked(image, tmp_path / "copy")
    assert subprocess.run(["diff", "-r", "--no-dereference", top, copy], check=True).returncode == 0
    for path in ("sub", "empty", "nothing"):
        assert stat.S_IMODE((copy / path).stat().st_mode) == stat.S_IMODE((top / path).stat().st_mode)
    shown = reader.debugfs(image, "stat /a")
    assert "Mode:  04750" in shown
    assert "User:     0   Group:     0" in shown
    assert "Links: 2" in shown
    assert f"mtime: {EPOCH:#x}" in shown
    assert reader.debugfs(image, "stat /sub/hard").split("Inode:")[1][:8] == shown.split("Inode:")[1][:8]


@pytest.mark.parametrize(
    "blocks",
    [1, 12, 13, 12 + 1024, 12 + 1025, 12 + 1024 + 1024, 12 + 1024 + 1025, 12 + 1024 + 3000],
)
@pytest.mark.parametrize("beyond", [-1, 0])
def test_files_of_every_depth_of_pointers(blocks, beyond, tmp_path):
    data = pattern(blocks * BLOCK + beyond)
    root = Directory.of("", [File("f", Content.of_bytes(data))])
    image = reader.check(volume(root), tmp_path / "image")
    assert (reader.unpacked(image, tmp_path / "copy") / "f").read_bytes() == data


def test_blocks_of_zeros_are_holes_wherever_the_host_has_them(tmp_path):
    for name in ("sparse", "full"):
        (tmp_path / name).mkdir()
        with open(tmp_path / name / "f", "wb") as file:
            file.write(b"start")
            file.seek(9 * MIB + 1)
            file.write(b"middle")
            file.truncate(5 << 30 if name == "sparse" else 20 * MIB)
    with open(tmp_path / "sparse" / "f", "rb+") as file:
        file.truncate(20 * MIB)
    (tmp_path / "full" / "f").write_bytes((tmp_path / "sparse" / "f").read_bytes())
    sparse, full = (volume(tree.scan(tmp_path / name)) for name in ("sparse", "full"))
    assert sparse.content().digest() == full.content().digest()
    assert sparse.size == MIB
    image = reader.check(sparse, tmp_path / "image")
    assert (reader.unpacked(image, tmp_path / "copy") / "f").read_bytes() == (tmp_path / "full" / "f").read_bytes()


def test_files_over_4_gib(tmp_path):
    (tmp_path / "top").mkdir()
    with open(tmp_path / "top" / "f", "wb") as file:
        file.seek((9 << 30) - 3)
        file.write(b"end")
    image = reader.check(volume(tree.scan(tmp_path / "top")), tmp_path / "image")
    assert f"Size: {9 << 30}" in reader.debugfs(image, "stat /f")
    assert image.stat().st_size == MIB
    assert "large_file" in reader.debugfs(image, "features")


@pytest.mark.parametrize("free", [0, 1, 16 * MIB, 300 * MIB, 1 << 40])
def test_the_size_follows_from_the_files_and_the_head_room(free, tmp_path):
    root = Directory.of("", [File("f", Content.of_bytes(pattern(MIB)))])
    found = volume(root, free=free)
    assert found.size % MIB == 0
    assert found.size > free + MIB
    if free <= 300 * MIB:
        image = reader.check(found, tmp_path / "image")
        blocks = int(reader.debugfs(image, "stats -h").split("Free blocks:")[1].split()[0])
        assert free <= blocks * BLOCK < free + 3 * MIB + free // 50


@pytest.mark.parametrize("size", [MIB, 128 * MIB, 128 * MIB + BLOCK, 129 * MIB + 1234, 3 << 30])
def test_a_size_that_was_asked_for(size, tmp_path):
    root = Directory.of("", [File("f", Content.of_bytes(b"x"))])
    found = volume(root, size=size)
    assert size - 100 * BLOCK - MIB < found.size <= size
    reader.check(found, tmp_path / "image")


def test_more_than_one_group_of_files(tmp_path):
    (tmp_path / "top").mkdir()
    for number in range(3):
        (tmp_path / "top" / str(number)).write_bytes(os.urandom(45) * MIB)
    image = reader.check(volume(tree.scan(tmp_path / "top")), tmp_path / "image")
    copy = reader.unpacked(image, tmp_path / "copy")
    for number in range(3):
        assert (copy / str(number)).read_bytes() == (tmp_path / "top" / str(number)).read_bytes()


@pytest.mark.parametrize("count", [32_756, 32_757, 70_000])
def test_more_files_than_a_group_has_inodes(tmp_path, count):
    """A group has 32,768 inodes at most, however little there is in them; 11 and the directory are taken."""
    root = Directory.of("", [Directory.of("d", [Symlink(f"{number:06}", "x") for number in range(count)])])
    made = volume(root)
    assert made.size == {32_756: 5 * MIB, 32_757: 131 * MIB, 70_000: 260 * MIB}[count]
    reader.check(made, tmp_path / "image")
    reader.check(volume(root, size=300 * MIB), tmp_path / "image")
    if count > 32_756:
        with pytest.raises(InputError, match=r"cannot hold these files; they need (131|260) MiB"):
            volume(root, size=100 * MIB)


def test_what_does_not_fit_is_refused():
    root = Directory.of("", [File("f", Content.of_bytes(pattern(2 * MIB)))])
    with pytest.raises(InputError, match="cannot hold these files; they need 3 MiB"):
        volume(root, size=2 * MIB)
    with pytest.raises(InputError, match="cannot hold"):
        volume(root, size=100)
    with pytest.raises(InputError, match="32-bit block numbers"):
        volume(root, free=1 << 45)


def test_what_ext2_cannot_express_is_refused():
    with pytest.raises(InputError, match="longer than 4095 bytes"):
        volume(Directory.of("", [Symlink("l", "x" * 4096)]))
    with pytest.raises(InputError, match="needs this name"):
        volume(Directory.of("", [Symlink("lost+found", "x")]))
    with pytest.raises(InputError, match="31998 directories"):
        volume(Directory.of("", [Directory(str(number)) for number in range(31999)]))


def test_a_lost_and_found_of_the_users_own(tmp_path):
    root = Directory.of("", [Directory.of("lost+found", [File("f", Content.of_bytes(b"x"))])])
    image = reader.check(volume(root), tmp_path / "image")
    assert "f" in reader.debugfs(image, "ls /lost+found")


def test_the_host_leaves_no_trace(tmp_path):
    digests = set()
    for turn, names in enumerate((["b", "a", "c"], ["c", "b", "a"])):
        top = tmp_path / str(turn)
        top.mkdir()
        for name in names:
            (top / name).write_text(name)
            os.utime(top / name, (turn * 1e9, turn * 1e9))
        digests.add(volume(tree.scan(top)).content().digest())
    assert len(digests) == 1
    assert volume(tree.scan(top)).uuid != volume(Directory("")).uuid


def test_superblock_copies_stand_where_fsck_looks():
    copies = [group for group in range(400) if holds_sparse_copy(group)]
    assert copies == [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343]


NAMES = st.binary(min_size=1, max_size=20).filter(lambda n: not {0, 47} & set(n) and n not in (b".", b".."))
SIZES = st.sampled_from([0, 1, 4095, 4096, 4097, 50_000, 12 * BLOCK + 1, 2 * MIB + 7])
LEAVES = st.builds(lambda n: ("file", n), SIZES) | st.builds(lambda n: ("link", n), st.integers(1, 200))
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=5), max_leaves=12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, TREES, max_size=6), st.integers(0, 3 * MIB))
def test_any_tree_is_clean(tmp_path_factory, shape, free):
    def build(name: bytes, node) -> tree.Node:
        match node:
            case ("file", size):
                return File(os.fsdecode(name), Content.of_bytes(pattern(size)))
            case ("link", length):
                return Symlink(os.fsdecode(name), "t" * length)
            case _:
                return Directory.of(os.fsdecode(name), [build(n, inner) for n, inner in node.items()])

    root = build(b"", shape)
    reader.check(volume(root, free=free), tmp_path_factory.mktemp("ext2") / "image")


def test_an_inode_packed_in_a_hurry_is_the_record():
    from rumpbundle.filesystems.ext2 import _INODE_FIELDS
    from rumpbundle.filesystems.ext2.records import InodeRecord

    values = (0o100644, 5, 1, 2, 3, 1, 8, b"blocks", 9)
    pack = InodeRecord.packer(*_INODE_FIELDS)
    assert pack(*values) == InodeRecord(**dict(zip(_INODE_FIELDS, values, strict=True))).pack()
    assert pack(*values) == pack(*values)
