"""What is not read is named: nothing that is there looks like nothing."""

from __future__ import annotations

import os
import struct
import uuid
from pathlib import Path

import pytest
from support.media import Bytes
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.disk.layout import MIB
from rumpbundle.images.detect import file_system
from rumpbundle.images.filesystems.unread import CLAIMS, MARKS, Unread

MADE = {
    "xfs": ("mkfs.xfs -q -f", 320),
    "btrfs": ("mkfs.btrfs -q -f", 128),
    "ntfs": ("mkntfs -q -f -F", 16),
    "exfat": ("mkfs.exfat", 8),
    "f2fs": ("mkfs.f2fs -q -f", 64),
    "jfs": ("mkfs.jfs -q", 32),
    "udf": ("mkudffs -b 512", 16),
    "swap": ("mkswap -q", 8),
}


def made(image: Path, kind: str) -> int:
    """Let a file system's own program make one in the new file *image*; return the bytes of that."""
    command, size = MADE[kind]
    with open(image, "wb") as file:
        file.truncate(size * MIB)
    output_of(*command.split(), str(image))
    return size * MIB


@pytest.mark.parametrize("kind", MADE)
def test_what_its_own_program_made(tmp_path, capsys, kind):
    image = tmp_path / "image"
    made(image, kind)
    assert main(["ls", str(image)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {image}: is a")
    assert "which cannot be read" in err
    assert main(["inspect", str(image)]) == 0
    assert f"{kind}, whole disk: is a" in capsys.readouterr().out
    assert main(["verify", str(image)]) == 0
    assert "which cannot be read; nothing in it was looked at" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "command"), [("squashfs", "mksquashfs"), ("erofs", "mkfs.erofs")])
def test_what_is_made_of_a_directory(tmp_path, kind, command):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"x" * 9000)
    argv = [str(tmp_path / "tree"), str(tmp_path / "image")]
    output_of(command, *(argv if kind == "squashfs" else reversed(argv)))
    volume = file_system(Bytes((tmp_path / "image").read_bytes()))
    assert volume.kind == kind


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: f"{mark.kind} at {mark.offset}")
def test_every_mark(mark):
    data = bytearray(max(128 << 10, mark.offset + 4096))
    for offset, magic in ((mark.offset, mark.magic), mark.too):
        data[offset : offset + len(magic)] = magic
    volume = file_system(Bytes(bytes(data)))
    assert isinstance(volume, Unread)
    assert volume.kind == mark.kind


@pytest.mark.parametrize("partitioned", [False, True])
def test_bitlocker_to_go_is_no_fat(tmp_path, capsys, partitioned):
    """Its boot sector is a FAT32's, with files in it that say to Windows XP what it is."""
    volume, image = tmp_path / "volume", tmp_path / "image"
    output_of("mkfs.fat", "-C", "-F", "32", str(volume), "40000")
    with open(volume, "r+b") as file:
        file.seek(3)
        file.write(b"MSWIN4.1")
        file.seek(424)
        file.write(uuid.UUID("4967D63B-2E29-4AD8-8399-F6A339E3D001").bytes_le)
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
        if partitioned:
            output_of("sfdisk", "-q", str(image), input="label: gpt\n2048\n")
            file.seek(MIB)
        file.write(volume.read_bytes())
    assert main(["ls", str(image)]) == 2
    err = capsys.readouterr().err
    assert ("is a BitLocker volume, which cannot be read" if partitioned else "is a BitLocker-encrypted disk") in err
    assert main(["verify", str(image)]) == (0 if partitioned else 2)


@pytest.mark.parametrize("kind", sorted({*MADE} & {*CLAIMS}))
def test_what_is_cut_off_says_so_on_every_command(tmp_path, capsys, kind):
    image = tmp_path / "image"
    size = made(image, kind)
    there = size * 3 // 4
    for end, cut in ((size, False), (there, True)):
        os.truncate(image, end)
        for words, status in ((["ls"], 2), (["inspect"], 0), (["verify"], 5 if cut else 0)):
            assert main([*words, str(image)]) == status
            said = "".join(capsys.readouterr())
            assert (said.count("it is cut off: it claims ") == 1) == cut, said
            assert (f", and there are {there}" in said) == cut
        convert = ["convert", str(image), "-f", "raw", "-o", str(tmp_path / "raw"), "--force"]
        for words in (convert, ["check", str(image)], ["run", str(image), "--accel", "tcg", "--dry-run"]):
            assert main(words) == 0
            assert ("warning: image is not all there: " in capsys.readouterr().err) == cut


@pytest.mark.parametrize("level", [0, 1, 5])
@pytest.mark.parametrize("version", ["0.90", "1.0"])
def test_one_disk_of_a_striped_raid_is_no_file_system(tmp_path, capsys, version, level):
    """The superblock is at the end; in front a file system begins, whose rest is on other disks."""
    (tmp_path / "tree").mkdir()
    image = tmp_path / "image"
    output_of("mkfs.ext4", "-q", "-d", str(tmp_path / "tree"), str(image), "8M")
    block = bytearray(b"\xfc\x4e\x2b\xa9".ljust(4096, b"\0"))
    at, place = (28, 8 * MIB + (64 << 10)) if version == "0.90" else (72, 8 * MIB + (120 << 10))
    block[at : at + 4] = level.to_bytes(4, "little")
    with open(image, "r+b") as file:
        file.truncate(8 * MIB + (128 << 10))
        file.seek(place)
        file.write(block)
    assert main(["ls", str(image)]) == (0 if level == 1 else 2)
    assert ("is a member of a Linux software RAID" in capsys.readouterr().err) == (level != 1)


def intel(level: int, size: int, sector: int = 512, disks: int = 2) -> bytes:
    """The description of a RAID of one volume, as it stands at the end of each of its disks."""
    head = bytearray(b"Intel Raid ISM Cfg Sig. 1.1.00\0\0".ljust(216, b"\0"))
    head[56:58] = bytes([disks, 1])
    for number in range(disks):
        head += (b"serial %d" % number).ljust(16, b"\0") + size.to_bytes(4, "little") + bytes(28)
    volume = b"volume".ljust(112, b"\0")
    place = struct.pack("<IIIHBB4B3I4x4x4x4x", 0, size, size, 256, 0, level, disks, 1, 255, 1, 0, 0, 0)
    head += volume + place + b"".join(struct.pack("<I", number) for number in range(disks))
    head[36:40] = len(head).to_bytes(4, "little")
    head[32:36] = (sum(n for (n,) in struct.iter_unpack("<I", head)) & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(head[sector:]).ljust(-(-max(len(head) - sector, 0) // sector) * sector, b"\0") + bytes(
        head[:sector]
    ).ljust(2 * sector, b"\0")


def ddf(level: int, size: int) -> bytes:
    """The same of a RAID of a controller: the description, and its anchor in the last sector."""
    first = size // 512 - 10
    head = bytearray(b"\xde\x11\xde\x11".ljust(512, b"\xff"))
    struct.pack_into(">QQ", head, 96, first, (1 << 64) - 1)
    struct.pack_into(">II", head, 216, 2, 1)
    volume = b"\xee\xee\xee\xee".ljust(64, b"\xff") + bytes([0, 2, 7, level])
    return bytes(head + bytes(512)) + volume.ljust(512, b"\xff") + bytes(6 * 512) + bytes(head)


def summed(head: bytearray, at: int, width: int, length: int) -> bytes:
    """Return *head* with the number at *at* that makes all of the first *length* bytes zero together."""
    total = sum(int.from_bytes(head[n : n + width], "little") for n in range(0, length, width))
    head[at : at + width] = (-total % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(head)


def lsi(level: int, size: int) -> bytes:
    return b"$XIDE$".ljust(16, b"\0") + bytes([{0: 1, 1: 2, 10: 3}[level]]) + bytes(495)


def nvidia(level: int, size: int) -> bytes:
    head = bytearray(b"NVIDIA  ".ljust(1024, b"\0"))
    struct.pack_into("<I4xHBxI", head, 8, 30, 100, 0, size // 512)
    struct.pack_into("<I", head, 76, {0: 0x80, 1: 0x81, 5: 0x95, 10: 0x8180}[level])
    return summed(head, 12, 4, 120)


def promise(level: int, size: int) -> bytes:
    head = bytearray(b"Promise Technology, Inc.".ljust(63 * 512, b"\0"))
    head[0x21F:0x221] = bytes([min(level, 1), 4 if level == 10 else 2])
    return bytes(head)


def silicon(level: int, size: int) -> bytes:
    head = bytearray(512)
    head[96:100] = (0x2F000000).to_bytes(4, "little")
    head[0x104:0x10C] = struct.pack("<HHHH", 0x3112, 0x1095, 0, 2)
    head[0x117] = {0: 0, 1: 1, 10: 2, 5: 16}[level]
    return summed(head, 0x13E, 2, 320)


def jmicron(level: int, size: int) -> bytes:
    head = bytearray(b"JM\1\0".ljust(512, b"\0"))
    head[48] = {0: 0, 1: 1, 10: 2, 5: 5}[level]
    return summed(head, 4, 2, 128)


CARDS = {
    "lsi": (lsi, "an LSI RAID (MegaRAID)", "lsi_mega_raid_member"),
    "nvidia": (nvidia, "an NVIDIA RAID", "nvidia_raid_member"),
    "promise": (promise, "a Promise RAID (FastTrak)", "promise_fasttrack_raid_member"),
    "silicon": (silicon, "a Silicon Image RAID (Medley)", "silicon_medley_raid_member"),
    "jmicron": (jmicron, "a JMicron RAID", "jmicron_raid_member"),
}


@pytest.mark.parametrize("level", [0, 1, 10])
@pytest.mark.parametrize("raid", CARDS)
def test_a_disk_of_a_raid_of_a_mainboard_or_card(tmp_path, capsys, raid, level):
    image = tmp_path / "image"
    describe, name, probed = CARDS[raid]
    output_of("mkfs.ext4", "-q", str(image), "8M")
    end = describe(level, 8 * MIB)
    with open(image, "r+b") as file:
        file.seek(8 * MIB - len(end))
        file.write(end)
    assert main(["ls", str(image)]) == (0 if level == 1 else 2)
    assert (f"is a member of {name}, which cannot be read" in capsys.readouterr().err) == (level != 1)
    assert probed in output_of("blkid", "-p", "-o", "value", "-s", "TYPE", str(image), check=False) or (
        "ambivalent" in output_of("blkid", "-p", str(image), check=False)
    )


def lvm2(size: int) -> bytes:
    """A physical volume as pvcreate labels it (LVM2, lib/format_text/layout.h)."""
    return bytes(512) + struct.pack("<8sQII8s32sQ", b"LABELONE", 1, 0, 32, b"LVM2 001", b"x" * 32, size)


def zfs(size: int, kind: bytes = b"disk", more: bytes = b"") -> bytes:
    """The first label of a disk of a ZFS pool, as far as it matters."""
    words = struct.pack(">I8sIIQ", 7, b"version", 8, 1, 28) + more
    words += struct.pack(">I4sIII", 4, b"type", 9, 1, len(kind)) + kind.ljust(8, b"\0")
    words += struct.pack(">I8sIIQ", 5, b"asize", 8, 1, size - (9 << 19))
    return bytes(16 << 10) + b"\1\1\0\0".ljust(20, b"\0") + words


def test_a_disk_of_a_zfs_pool_says_its_size_if_it_has_all_of_the_data():
    size = 64 * MIB
    for head, known in ((zfs(size), True), (zfs(size, b"mirror"), True), (zfs(size, b"raidz"), False)):
        volume = file_system(Bytes(head.ljust(size // 2, b"\0")))
        assert isinstance(volume, Unread)
        assert volume.kind == "zfs"
        assert volume.cut == (f"it is cut off: it claims {size} bytes, and there are {size // 2}" if known else "")
        assert not file_system(Bytes(head.ljust(size, b"\0"))).cut


def ufs(size: int, kind: int = 2, order: str = "<") -> bytes:
    """The superblock of a UFS (FreeBSD, sys/ufs/ffs/fs.h)."""
    block = bytearray(1376)
    struct.pack_into(f"{order}II", block, 48, 16384, 2048)
    struct.pack_into(f"{order}I", block, 1372, {1: 0x011954, 2: 0x19540119}[kind])
    struct.pack_into(*((f"{order}I", block, 36) if kind == 1 else (f"{order}Q", block, 1080)), size // 2048)
    return bytes(8192 if order == ">" else 65536) + bytes(block)


@pytest.mark.parametrize(
    "head", [lvm2, ufs, lambda size: ufs(size, 1), lambda size: ufs(size, 2, ">"), lambda size: ufs(size, 1, ">")]
)
def test_what_says_its_size_in_a_way_of_its_own_is_told_to_be_cut_off(head):
    size = MIB
    for there in (size, size * 3 // 4):
        volume = file_system(Bytes(head(size).ljust(there, b"\0")))
        assert isinstance(volume, Unread)
        assert volume.cut == (
            "" if there == size else f"it is cut off: it claims {size} bytes, and there are {there}"
        )


@pytest.mark.parametrize("level", [0, 1, 5])
@pytest.mark.parametrize("raid", ["intel", "intel 4096", "intel of many", "ddf"])
def test_a_disk_of_a_raid_of_the_firmware(tmp_path, capsys, raid, level):
    """Its partition table is the RAID's, and reaches behind the disk."""
    image = tmp_path / "image"
    size = 8 * MIB
    kinds = {"intel 4096": {"sector": 4096}, "intel of many": {"disks": 9}}
    end = ddf(level, size) if raid == "ddf" else intel(level, size, **kinds.get(raid, {}))
    with open(image, "wb") as file:
        file.truncate(size if level == 1 else 2 * size)
    output_of("sfdisk", "-q", str(image), input="label: dos\nstart=2048, type=83\n")
    os.truncate(image, size)
    with open(image, "r+b") as file:
        file.seek(size - len(end))
        file.write(end)
    name = "a RAID of a controller (DDF)" if raid == "ddf" else "an Intel RAID (IMSM)"
    told = f"is a member of {name}, which cannot be read"
    assert main(["ls", str(image)]) == 2
    assert (told in capsys.readouterr().err) == (level != 1)
    assert main(["verify", str(image)]) == 0
    assert (told in capsys.readouterr().out) == (level != 1)
    assert main(["convert", str(image), "-f", "raw", "-o", str(tmp_path / "out")]) == 0
    assert (f"is not all there: it {told}" in capsys.readouterr().err) == (level != 1)
    probe = output_of("blkid", "-p", "-o", "value", "-s", "TYPE", str(image), check=False)
    assert ("4096" in raid) or (("ddf_raid_member" if raid == "ddf" else "isw_raid_member") in probe)


def test_a_short_magic_alone_is_none():
    short = next(mark for mark in MARKS if mark.kind == "hfs")
    assert file_system(Bytes(bytes(short.offset) + short.magic.ljust(64 << 10, b"\0"))) is None


def test_a_mark_far_behind_the_start_of_its_partition(tmp_path, capsys):
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(16 * MIB)
    output_of("sfdisk", "-q", str(image), input="label: dos\nstart=2048, type=fb\n")
    with open(image, "r+b") as file:
        file.seek(3 * MIB)
        file.write(b"\x5e\xf1\xab\x2f")
    assert main(["ls", str(image)]) == 2
    assert "partition 1 is a VMware VMFS file system, which cannot be read" in capsys.readouterr().err
    assert main(["inspect", str(image)]) == 0
    out = capsys.readouterr().out
    assert "VMware VMFS" in out.partition("vmfs, partition 1")[0]


def test_a_partition_that_is_not_read_is_told_beside_those_that_are(tmp_path, capsys):
    image = tmp_path / "image"
    with open(image, "wb") as file:
        file.truncate(32 * MIB)
    output_of("sgdisk", "-n", "1:2048:+8M", "-n", "2:0:+8M", "-n", "3:0:0", str(image))
    output_of("mke2fs", "-q", "-E", f"offset={MIB}", str(image), "8M")
    os.truncate(tmp_path / "image", 32 * MIB)
    with open(tmp_path / "swap", "wb") as file:
        file.truncate(8 * MIB)
    output_of("mkswap", "-q", str(tmp_path / "swap"))
    with open(image, "r+b") as file:
        file.seek(9 * MIB)
        file.write((tmp_path / "swap").read_bytes())
    assert main(["ls", str(image)]) == 0
    out, err = capsys.readouterr()
    assert "ext2:/lost+found" in out
    assert err == "note: partition 2 is a Linux swap area, which cannot be read\n"
    assert main(["cat", str(image), "/etc/passwd"]) == 2
    assert "partition 2 is a Linux swap area" in capsys.readouterr().err
    assert main(["ls", str(image), "swap:/"]) == 2
    assert "is a Linux swap area, which cannot be read" in capsys.readouterr().err


def test_the_page_names_them_all():
    page = (Path(__file__).parents[2] / "docs/images.md").read_text()
    assert all(f"| {mark.kind} | is {mark.name} |" in page for mark in MARKS)
