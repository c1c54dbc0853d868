"""What a file system's own check finds: nothing in sound ones, whoever made them, and what was changed in others."""

from __future__ import annotations

import os
import shutil
import struct

import pytest
from support import ext2 as ext2_reader
from support.media import Bytes
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.disk import tree
from rumpbundle.filesystems.ext2 import Ext2Volume
from rumpbundle.images.detect import file_system
from rumpbundle.images.volumes import problems
from rumpbundle.volume import iso9660

MIB = 1 << 20

EXT = {
    "ext2": ("-t", "ext2"),
    "ext2, 1 KiB": ("-t", "ext2", "-b", "1024", "-g", "1024"),
    "ext3": ("-t", "ext3"),
    "ext4": ("-t", "ext4"),
    "ext4, 1 KiB": ("-t", "ext4", "-b", "1024", "-g", "1024"),
    "ext4, meta_bg": ("-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256"),
    "ext4, inline data": ("-t", "ext4", "-O", "inline_data"),
    "ext4, mmp and quota": ("-t", "ext4", "-O", "mmp,quota"),
    "ext4, sparse_super2": ("-t", "ext4", "-O", "sparse_super2", "-b", "1024"),
    "ext4, bad blocks": ("-t", "ext4", "-l", "bad"),
    "ext4, no resize_inode": ("-t", "ext4", "-O", "^resize_inode,^flex_bg", "-b", "1024"),
}


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    top = tmp_path_factory.mktemp("problems") / "top"
    (top / "a/b").mkdir(parents=True)
    for number in range(60):
        (top / "a" / f"file {number}").write_bytes(b"x" * number * 400)
    with open(top / "sparse", "wb") as file:
        for number in range(400):
            file.seek(number * 12288)
            file.write(b"y" * 4096)
    (top / "link").symlink_to("z" * 200)
    return top


def found(data: bytes) -> list[str]:
    return [f"{problem.where}: {problem.what}" for problem in problems(Bytes(bytes(data)))]


@pytest.mark.parametrize("shape", EXT)
def test_sound_ext(top, tmp_path, monkeypatch, shape):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("5000\n5001\n")
    output_of("mke2fs", "-q", *EXT[shape], "-d", str(top), str(tmp_path / "image"), "40M")
    assert found((tmp_path / "image").read_bytes()) == []


@pytest.fixture(scope="module")
def ours(top, tmp_path_factory):
    volume = Ext2Volume(tree.scan(top), label="data", epoch=0, size=400 * MIB)
    return ext2_reader.write(volume.content(), tmp_path_factory.mktemp("ours") / "image").read_bytes()


def test_sound_ext2_of_ours(ours):
    assert found(ours) == []


GROUP = 32768 * 4096
EXT2_CHANGES = {
    "a superblock's copy": (GROUP + 104, "a copy of the superblock differs from the first"),
    "the last copy": (3 * GROUP + 56, "a copy of the superblock differs from the first"),
    "a descriptor's copy": (GROUP + 4096 + 8, "a copy of the group descriptors differs from the first"),
}


@pytest.mark.parametrize("change", EXT2_CHANGES)
def test_ext2_copies(ours, change):
    at, message = EXT2_CHANGES[change]
    data = bytearray(ours)
    data[at] ^= 1
    assert found(data) == [f"ext2, whole disk: {message}"]


def test_ext2_bitmaps(ours):
    volume = file_system(Bytes(ours))
    bitmap = struct.unpack_from("<I", ours, 4096)[0] * 4096
    entry = volume.find("/sparse")
    block = entry.spans[0].offset // 4096
    data = bytearray(ours)
    data[bitmap + block // 8] &= ~(1 << block % 8)
    (problem,) = problems(Bytes(bytes(data)))
    assert problem.what == f"block {block} is in use and marked as free"
    assert problem.offset == bitmap + block // 8
    data = bytearray(ours)
    data[bitmap + 4000] |= 1
    assert found(data) == ["ext2, whole disk: block 32000 is marked as used and belongs to no file"]


def test_bitmaps_wait_for_the_journal(top, tmp_path):
    """A disk that was copied while it was mounted: the blocks in its journal are newer than those in their places."""
    image = tmp_path / "image"
    output_of("mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", str(top), str(image), "40M")
    data = bytearray(image.read_bytes())
    volume = file_system(Bytes(bytes(data)))
    bitmap = struct.unpack_from("<I", data, volume.superblock.descriptor(0))[0] * volume.superblock.block_size
    data[bitmap + 40] ^= 1
    assert [problem.severity for problem in problems(Bytes(bytes(data)))] == ["damage"]
    data[1024 + 44] = 1  # it was mounted
    data[1024 + 96] |= 4  # and its journal has to be replayed
    assert [problem.severity for problem in problems(Bytes(bytes(data)))] == ["remark"]


def test_ext2_files_that_share_a_block(ours):
    volume = file_system(Bytes(ours))
    numbers = dict(volume._names("/a", next(number for name, number in volume._names("", 2) if name == "a")))
    one, two = (volume.place_of_inode(numbers[name]) for name in ("file 20", "file 40"))
    data = bytearray(ours)
    data[two + 40 : two + 44] = data[one + 40 : one + 44]
    assert any("and to something else" in each for each in found(data))


@pytest.fixture(scope="module", params=[12, 16, 32])
def fat(request, top, tmp_path_factory):
    image = tmp_path_factory.mktemp("fat") / "image"
    with open(image, "wb") as file:
        file.truncate({12: 4, 16: 32, 32: 70}[request.param] * MIB)
    output_of("mkfs.fat", "-F", str(request.param), "-s", "2" if request.param == 12 else "1", str(image))
    output_of("mcopy", "-s", "-i", str(image), str(top / "a"), "::/")
    return image.read_bytes()


def test_sound_fat(fat):
    assert found(fat) == []


def test_fat_tables_that_differ(fat):
    boot = file_system(Bytes(fat)).boot
    data = bytearray(fat)
    at = boot.table + boot.table_size + 30
    data[at] ^= 0xFF
    (problem,) = problems(Bytes(bytes(data)))
    assert (problem.what, problem.offset) == ("table 2 differs from the first", at)


def test_fat_chains(fat):
    volume = file_system(Bytes(fat))
    boot = volume.boot
    place = {path: cluster for path, cluster, _ in volume.starts()}
    data = bytearray(fat)
    for number in range(boot.tables):  # a file's first cluster ends its chain
        start = boot.table + number * boot.table_size
        cluster = place["/a/file 59"]
        at, bits = start * 8 + cluster * boot.bits, boot.bits
        value = int.from_bytes(data[at // 8 : at // 8 + 8], "little")
        mask = ((1 << bits) - 1) << at % 8
        data[at // 8 : at // 8 + 8] = (value & ~mask | (0x0FFFFFFF & (1 << bits) - 1) << at % 8).to_bytes(8, "little")
    told = found(data)
    assert any(each.endswith(f"/a/file 59: its 23600 bytes have clusters for {boot.cluster}") for each in told)
    assert any("clusters are in use and belong to no file" in each for each in told)


def test_fat_32_keeps_two_boot_sectors(fat):
    if file_system(Bytes(fat)).boot.bits != 32:
        return
    data = bytearray(fat)
    data[6 * 512 + 100] ^= 1
    assert found(data) == ["fat32, whole disk: the backup of the boot sector differs"]
    data = bytearray(fat)
    data[65] ^= 1  # as Linux does while it is mounted
    data[71:82] = b"NEW NAME   "  # as mlabel does
    (problem,) = problems(Bytes(bytes(data)))
    assert (problem.severity, problem.offset) == ("remark", 6 * 512)
    data = bytearray(fat)
    data[512 + 488 : 512 + 492] = struct.pack("<I", 5)
    (problem,) = problems(Bytes(bytes(data)))
    assert problem.severity == "remark"


@pytest.mark.parametrize("maker", ["genisoimage", "xorriso", "ours"])
def test_sound_iso(top, tmp_path, maker):
    image = tmp_path / "iso"
    if maker == "ours":
        ext2_reader.write(iso9660(tree.scan(top), label="x", epoch=0).content, image)
    else:
        command = ["genisoimage", "-quiet"] if maker == "genisoimage" else ["xorriso", "-as", "mkisofs", "-quiet"]
        output_of(*command, "-R", "-J", "-o", str(image), str(top))
    assert found(image.read_bytes()) == []


def test_iso_changes(top, tmp_path):
    image = tmp_path / "iso"
    output_of("genisoimage", "-quiet", "-R", "-o", str(image), str(top))
    iso = image.read_bytes()
    tables = [struct.unpack_from(code, iso, 16 * 2048 + at)[0] * 2048 for code, at in (("<I", 140), (">I", 148))]
    root = struct.unpack_from("<I", iso, 16 * 2048 + 158)[0] * 2048
    for at, message in (
        (16 * 2048 + 84, "little-endian and"),
        (tables[0] + 12, "the little-endian path table and the directories"),
        (tables[1] + 12, "the big-endian path table and the directories"),
        (root + 6, "little-endian and"),
        (root + iso[root] + 2, "record of its parent names block"),
    ):
        data = bytearray(iso)
        data[at] ^= 1
        assert any(message in each for each in found(data)), message
    assert any("it claims" in each for each in found(iso[:-400_000]))


def test_iso_boot_catalog(top, tmp_path):
    image = tmp_path / "iso"
    output_of("genisoimage", "-quiet", "-R", "-b", "sparse", "-no-emul-boot", "-o", str(image), str(top))
    data = bytearray(image.read_bytes())
    catalog = struct.unpack_from("<I", data, 17 * 2048 + 71)[0] * 2048
    data[catalog + 28] ^= 1
    (told,) = found(data)
    assert told == f"iso9660, whole disk: El Torito: the boot catalog at {catalog} is damaged"


@pytest.mark.parametrize("kind", ["ext4", "fat", "iso"])
def test_what_is_cut_off_is_said_by_every_command(top, tmp_path, capsys, kind):
    image, out = tmp_path / "image", tmp_path / "out"
    if kind == "iso":
        output_of("genisoimage", "-quiet", "-R", "-o", str(image), str(top))
    else:
        with image.open("wb") as file:
            file.truncate(32 << 20)
        make = ("mke2fs", "-q", "-t", "ext4", "-d", str(top)) if kind == "ext4" else ("mkfs.fat",)
        output_of(*make, str(image))
    size = image.stat().st_size
    whole = tmp_path / "whole"
    shutil.copyfile(image, whole)
    os.truncate(image, size - (64 << 10))
    said = f"it is cut off: it claims {size} bytes, and there are {size - (64 << 10)}"
    capsys.readouterr()
    for argv, status in (
        (["ls", str(image)], 0), (["inspect", str(image)], 0), (["verify", str(image)], 5),
        (["convert", str(image), "-f", "raw", "-o", str(out)], 0), (["check", str(image)], 0),
        (["run", str(image), "--accel", "tcg", "--dry-run"], 0), (["diff", str(image), str(whole)], 1),
    ):  # fmt: skip
        assert main(argv) == status
        assert "".join(capsys.readouterr()).count(said) == 1, argv
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(MIB) + image.read_bytes() + bytes(64 << 10))
    output_of("sfdisk", "-q", str(disk), input=f"label: dos\nstart=2048, size={size // 512}, type=83\n")
    os.truncate(disk, MIB + size - (64 << 10))
    capsys.readouterr()
    assert main(["ls", str(disk)]) == 0
    assert "note: partition 1 ends behind the disk\n" in capsys.readouterr().err
    assert main(["convert", str(disk), "-f", "raw", "-o", str(out), "--force"]) == 0
    said = capsys.readouterr().err
    assert "warning: disk is not all there: partition 1 ends behind the disk" in said
    assert ", partition 1: it is cut off: it claims " in said
    os.truncate(disk, MIB)
    assert main(["ls", str(disk)]) == 2
    assert "holds no file system we can read; partition 1 begins behind the disk\n" in capsys.readouterr().err
