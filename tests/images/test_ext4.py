"""ext4 as mke2fs makes it, in every shape we know of, read back; debugfs tells the same of every file."""

from __future__ import annotations

import os
import random
import re
import struct

import pytest
from support.media import Bytes, expected, listed
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.errors import ImageError
from rumpbundle.images.detect import file_system, open_disk

SHAPES = {
    "plain": (),
    "blocks of 1 KiB": ("-b", "1024"),
    "blocks of 2 KiB": ("-b", "2048"),
    "blocks of 64 KiB": ("-b", "65536"),
    "64bit": ("-O", "64bit"),
    "not 64bit": ("-O", "^64bit"),
    "inline data": ("-O", "inline_data", "-I", "256"),
    "much inline data": ("-O", "inline_data", "-I", "1024"),
    "meta_bg": ("-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256"),
    "meta_bg 64bit": ("-O", "meta_bg,64bit,^resize_inode", "-b", "1024", "-g", "256"),
    "no flex_bg": ("-O", "^flex_bg", "-b", "1024", "-g", "512"),
    "no metadata_csum": ("-O", "^metadata_csum"),
    "metadata_csum_seed": ("-O", "metadata_csum,metadata_csum_seed"),
    "huge_file and large_dir": ("-O", "huge_file,large_dir"),
    "ea_inode": ("-O", "ea_inode"),
    "bigalloc": ("-O", "bigalloc", "-C", "16384"),
    "bigalloc of 1 KiB": ("-O", "bigalloc", "-b", "1024", "-C", "8192"),
    "no extents": ("-O", "^extents,^64bit"),
    "small inodes": ("-I", "128"),
    "sparse_super2": ("-O", "sparse_super2"),
    "quota and project": ("-O", "quota,project"),
    "casefold": ("-O", "casefold"),
    "encrypt, unused": ("-O", "encrypt"),
    "no journal": ("-O", "^has_journal"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    top = tmp_path_factory.mktemp("ext4") / "tree"
    (top / "many/deeper").mkdir(parents=True)
    for number in range(300):
        (top / "many" / f"a file with a name that is rather long, number {number}").write_bytes(
            b"%d" % number * number
        )
    for size in (1, 59, 60, 61, 100, 150, 160, 900):
        (top / f"{size} bytes").write_bytes(random.Random(size).randbytes(size))
    (top / "a few").mkdir()
    for name in ("one", "two", "three"):
        (top / "a few" / name).write_text(name)
    with open(top / "in pieces", "wb") as file:  # more extents than a node of the tree holds
        for number in range(700):
            file.seek(number * 3 * 4096)
            file.write(b"%08d" % number * 256)
    with open(top / "far", "wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    for name, size in (("a hole", 3 << 20), ("a small hole", 100)):  # inline, mke2fs writes nothing of them
        with open(top / name, "wb") as file:
            file.truncate(size)
    (top / "short").symlink_to("x" * 40)
    (top / "long").symlink_to("y/" * 60)
    (top / "longest").symlink_to("z" * 900)
    os.link(top / "61 bytes", top / "many/deeper/linked")
    return top


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(tree, tmp_path, shape):
    image = tmp_path / "image"
    size = "200M" if "64 KiB" in shape else "64M"
    output_of("mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", *SHAPES[shape], "-d", str(tree), str(image), size)
    with open_disk(image) as disk:
        volume = file_system(disk)
        assert volume is not None
        assert (volume.kind, volume.label) == ("ext4", "root")
        found = listed(volume)
        assert found.pop("/lost+found") == "directory"
        assert found == expected(tree)
        block = volume.superblock.block_size
        data = [span for span in volume.find("/in pieces").spans if span.offset is not None]
        blocks = {b for span in data for b in range(span.offset // block, (span.offset + span.length) // block)}
        assert blocks <= told_by_debugfs(image, "/in pieces")


def told_by_debugfs(image, path):
    """Return the blocks of the file, and those of its block map, as debugfs has them."""
    return set(map(int, output_of("debugfs", "-R", f'blocks "{path}"', str(image)).splitlines()[-1].split()))


def test_preallocated_extents_are_zeros(tree, tmp_path):
    """``fallocate`` in debugfs makes extents that are not initialised, over what the disk held before."""
    image = tmp_path / "image"
    image.write_bytes(b"\xaa" * (8 << 20))
    output_of("mke2fs", "-q", "-t", "ext4", "-E", "nodiscard", str(image))
    (tmp_path / "short").write_bytes(b"begin")
    output_of("debugfs", "-w", "-R", f"write {tmp_path / 'short'} file", str(image))
    output_of("debugfs", "-w", "-R", "fallocate file 1 20", str(image))
    output_of("debugfs", "-w", "-R", "set_inode_field file size 70000", str(image))
    with open_disk(image) as disk:
        volume = file_system(disk)
        data = b"".join(volume.chunks(volume.find("/file")))
    assert data == b"begin".ljust(70000, b"\0")


def test_a_journal_of_its_own(tmp_path):
    journal, image = tmp_path / "journal", tmp_path / "image"
    output_of("mke2fs", "-q", "-O", "journal_dev", "-b", "4096", str(journal), "8M")
    with open_disk(journal) as disk:
        volume = file_system(disk)
        with pytest.raises(ImageError, match="journal_dev"):
            list(volume.entries())
    output_of("mke2fs", "-q", "-t", "ext3", str(image), "8M")
    with open_disk(image) as disk:
        assert [entry.path for entry in file_system(disk).entries()] == ["/lost+found"]


def test_a_waiting_journal_is_told(tmp_path):
    image = tmp_path / "image"
    output_of("mke2fs", "-q", "-t", "ext4", str(image), "8M")
    output_of("debugfs", "-w", "-R", "feature needs_recovery", str(image))
    with open_disk(image) as disk:
        (remark,) = file_system(disk).remarks
    assert "has not been replayed" in remark


def test_unknown_features_are_named(tmp_path):
    image = tmp_path / "image"
    output_of("mke2fs", "-q", "-t", "ext4", str(image), "8M")
    data = bytearray(image.read_bytes())
    data[1024 + 96 : 1024 + 100] = struct.pack("<I", struct.unpack_from("<I", data, 1024 + 96)[0] | 1 << 27 | 1)
    volume = file_system(Bytes(bytes(data)))
    with pytest.raises(ImageError, match=re.escape("features we cannot read: compression, 0x8000000")):
        list(volume.entries())


def test_encrypted_files_are_listed_and_not_read(tree, tmp_path):
    image = tmp_path / "image"
    output_of("mke2fs", "-q", "-t", "ext4", "-O", "encrypt", "-d", str(tree), str(image), "64M")
    for name in ("/100 bytes", "/a few"):
        output_of("debugfs", "-w", "-R", f'set_inode_field "{name}" flags 0x80800', str(image))
    with open_disk(image) as disk:
        volume = file_system(disk)
        with pytest.raises(ImageError, match=r"/100 bytes is encrypted"):
            list(volume.chunks(volume.find("/100 bytes")))
        paths = {entry.path for entry in volume.entries()}
    assert "/a few" in paths
    assert "/a few/one" not in paths


def test_copies_of_the_superblock_that_use_has_left_behind(tmp_path):
    """debugfs, e2fsck and the kernel write the first only: it is not damaged, says e2fsck."""
    image = str(tmp_path / "image")
    output_of("mke2fs", "-q", "-t", "ext4", image, "64M")
    data = bytearray((tmp_path / "image").read_bytes())
    for use in ("debugfs", "mounted", "recover"):
        if use == "debugfs":
            (tmp_path / "file").write_bytes(b"x" * 5000)
            output_of("debugfs", "-w", "-R", f"write {tmp_path / 'file'} file", image)
            output_of("e2fsck", "-fyD", image, check=False)
            data = bytearray((tmp_path / "image").read_bytes())
        elif use == "mounted":
            data[1024 + 44 : 1024 + 48] = b"\1\2\3\4"
        else:
            data[1024 + 96] |= 4
            data[1024 + 100] |= 2
        found = [each.what for each in file_system(Bytes(bytes(data))).problems() if each.severity == "damage"]
        assert found == [], use


def test_preallocated_blocks_belong_to_their_file(tmp_path):
    """systemd's journal and databases have them, so every machine that has run."""
    image = str(tmp_path / "image")
    output_of("mke2fs", "-q", "-t", "ext4", image, "64M")
    (tmp_path / "file").write_bytes(b"x" * 5000)
    output_of("debugfs", "-w", "-R", f"write {tmp_path / 'file'} file", image)
    output_of("debugfs", "-w", "-R", "fallocate file 4 90", image)  # behind its end
    output_of("debugfs", "-w", "-R", "set_inode_field file size 200000", image)  # the first of it inside
    output_of("e2fsck", "-fn", image)
    with open_disk(image) as disk:
        volume = file_system(disk)
        assert listed(volume)["/file"] == (b"x" * 5000).ljust(200000, b"\0")
        assert [each.what for each in volume.problems()] == []


def test_verify_tells_of_a_journal_that_waits(tmp_path, capsys):
    image = tmp_path / "image"
    output_of("mke2fs", "-q", "-t", "ext4", str(image), "64M")
    data = bytearray(image.read_bytes())
    data[1024 + 44 : 1024 + 48] = b"\1\2\3\4"  # mounted then
    data[1024 + 96] |= 4
    image.write_bytes(data)
    assert main(["verify", str(image)]) == 0
    assert "remark: ext4, whole disk: its journal has not been replayed" in capsys.readouterr().out
