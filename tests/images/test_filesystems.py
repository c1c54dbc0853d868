"""Our readers of file systems and partition tables, against foreign writers and against damage."""

from __future__ import annotations

import os
import random
import struct
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.media import Bytes, expected, listed
from support.tools import output_of

from rumpbundle.errors import RumpbundleError
from rumpbundle.images.detect import file_system, open_disk
from rumpbundle.images.filesystem import FileSystem, Span
from rumpbundle.images.partitions import tables


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Files, directories and names that VFAT can hold too."""
    top = tmp_path_factory.mktemp("tree")
    (top / "EFI/BOOT").mkdir(parents=True)
    (top / "empty directory").mkdir()
    deep = top
    for level in range(7):
        deep = deep / f"level {level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep")
    (top / "EFI/BOOT/BOOTX64.EFI").write_bytes(random.Random(1).randbytes(100_000))
    (top / "nothing").write_bytes(b"")
    (top / ("a long name " * 10 + ".txt")).write_bytes(b"long")
    (top / "many").mkdir()
    for number in range(150):
        (top / "many" / f"file {number}").write_bytes(str(number).encode() * number)
    return top


@pytest.fixture(scope="module")
def unix(tree, tmp_path_factory):
    """The same, with what only Unix file systems have."""
    top = tmp_path_factory.mktemp("unix") / "tree"
    output_of("cp", "-a", str(tree), str(top))
    (top / "link").symlink_to("EFI/../nothing")
    (top / "long link").symlink_to("/" + "/".join(["component"] * 25))
    (top / "ünïcode").write_bytes(b"u")
    (top / os.fsdecode(b"latin1-\xe9")).write_bytes(b"l")
    with open(top / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    os.link(top / "sparse", top / "EFI/hard link")
    (top / "mode").write_bytes(b"")
    (top / "mode").chmod(0o4750)
    return top


def opened(image: Path) -> FileSystem:
    volume = file_system(Bytes(image.read_bytes()))
    assert volume is not None
    return volume


@pytest.mark.parametrize("tool", ["genisoimage", "xorriso"])
def test_iso_9660(unix, tmp_path, tool):
    image = tmp_path / "a.iso"
    command = ["xorriso", "-as", "mkisofs"] if tool == "xorriso" else ["genisoimage", "-quiet"]
    output_of(*command, "-R", "-V", "LABEL_1", "-o", str(image), str(unix))
    volume = opened(image)
    assert (volume.kind, volume.label) == ("iso9660", "LABEL_1")
    assert listed(volume) == expected(unix)


def test_iso_9660_without_rock_ridge_has_its_plain_names(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/readme").write_bytes(b"x")
    output_of("genisoimage", "-quiet", "-o", str(tmp_path / "a.iso"), str(tmp_path / "t"))
    assert listed(opened(tmp_path / "a.iso")) == {"/README": b"x"}


@pytest.mark.parametrize(("bits", "size"), [(12, 4 << 20), (16, 32 << 20), (32, 70 << 20)])
def test_fat(tree, tmp_path, bits, size):
    image = tmp_path / "a.img"
    with open(image, "wb") as file:
        file.truncate(size)
    # One sector a cluster makes long chains; -F 32 of 70 MiB is the smallest that is FAT32 by its cluster count.
    output_of("mkfs.fat", "-F", str(bits), "-s", "2" if bits == 12 else "1", "-n", "LABEL_1", str(image))
    for path in sorted(tree.iterdir()):
        output_of("mcopy", "-s", "-Q", "-i", str(image), str(path), "::/")
    volume = opened(image)
    assert (volume.kind, volume.label) == (f"fat{bits}", "LABEL_1")
    assert listed(volume) == expected(tree)


@pytest.mark.parametrize(("kind", "block"), [("ext2", 1024), ("ext2", 4096), ("ext3", 4096)])
def test_ext2(unix, tmp_path, kind, block):
    image = tmp_path / "a.img"
    output_of("mke2fs", "-q", "-t", kind, "-b", str(block), "-L", "label", "-d", str(unix), str(image), "32M")
    volume = opened(image)
    assert (volume.kind, volume.label) == (kind, "label")
    found = listed(volume)
    assert found.pop("/lost+found") == "directory"
    assert found == expected(unix)
    sparse = volume.find("/sparse")
    assert sparse is not None
    assert sparse.spans[0].offset is None, "the hole is known, not read"
    assert volume.find("/mode").mode == 0o4750


def test_what_is_no_file_system_is_none():
    assert file_system(Bytes(b"")) is None
    assert file_system(Bytes(bytes(100_000))) is None
    assert file_system(Bytes(random.Random(2).randbytes(100_000))) is None


def test_partition_tables(tmp_path):
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    output_of("sgdisk", "-n", "1:2048:+8M", "-t", "1:ef00", "-c", "1:boot ä", "-n", "3:0:0", str(image))
    with open_disk(image) as disk:
        mbr, gpt = tables(disk)
    assert [slot.type for slot in mbr.slots] == ["ee"]
    assert gpt.flaws == mbr.flaws == ()
    assert [(s.number, s.offset, s.size, s.name, s.meaning) for s in gpt.slots] == [
        (1, 1 << 20, 8 << 20, "boot ä", "EFI system partition"),
        (3, 9 << 20, (55 << 20) - 33 * 512, "", "Linux file system"),
    ]
    with open(image, "r+b") as file:
        file.truncate(80 << 20)
    with open_disk(image) as disk:
        assert tables(disk)[1].flaws == ("the backup GPT is not at the end of the disk",)


def test_a_plain_mbr(tmp_path):
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    output_of("sh", "-c", f"printf '2048,16384,83,*\\n,,ef\\n' | sfdisk -q {image}")
    with open_disk(image) as disk:
        (mbr,) = tables(disk)
    assert [(s.number, s.type, s.offset, s.size, s.active) for s in mbr.slots] == [
        (1, "83", 1 << 20, 8 << 20, True),
        (2, "ef", 9 << 20, 55 << 20, False),
    ]


# -- damage ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(tree, tmp_path_factory):
    """One small image of each kind, as bytes."""
    top = tmp_path_factory.mktemp("images")
    small = top / "tree"
    (small / "a/b").mkdir(parents=True)
    (small / "a/b/file").write_bytes(bytes(9000))
    (small / "a/link").symlink_to("b")
    output_of("genisoimage", "-quiet", "-R", "-b", "a/b/file", "-no-emul-boot", "-o", str(top / "iso"), str(small))
    output_of("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", str(small), str(top / "ext2"), "256")
    (small / "a/link").unlink()
    with open(top / "fat", "wb") as file:
        file.truncate(256 << 10)
    output_of("mkfs.fat", str(top / "fat"))
    output_of("mcopy", "-s", "-i", str(top / "fat"), str(small / "a"), "::/")
    with open(top / "disk", "wb") as file:
        file.truncate(256 << 10)
    output_of("sgdisk", "-a", "1", "-n", "1:0:0", str(top / "disk"))
    return {name: (top / name).read_bytes() for name in ("iso", "ext2", "fat", "disk")}


def look(data: bytes) -> None:
    """Read everything there is to read."""
    medium = Bytes(data)
    try:
        tables(medium)
        volume = file_system(medium)
        if volume is None:
            return
        assert list(map(str, volume.structures)) or volume.facts is not None
        _ = getattr(volume, "boot_entries", None)
        for entry in volume.entries():
            for _ in volume.chunks(entry):
                pass
    except RumpbundleError:
        pass


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["iso", "ext2", "fat", "disk"]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 18), st.binary(min_size=1, max_size=8)), max_size=6),
    length=st.one_of(st.none(), st.integers(0, 1 << 18)),
)
def test_damage_is_an_error_or_nothing(images, kind, changes, length):
    data = bytearray(images[kind])
    for at, new in changes:
        at %= len(data)
        data[at : at + len(new)] = new
    look(bytes(data[: len(images[kind])][:length]))


def test_directories_that_contain_themselves_end(images):
    data = bytearray(images["iso"])
    root = struct.unpack_from("<I", data, 16 * 2048 + 158)[0]
    at = data.index(b"\x01A", root * 2048) - 32
    data[at + 2 : at + 6] = struct.pack("<I", root)
    volume = file_system(Bytes(bytes(data)))
    with pytest.raises(RumpbundleError, match="in itself"):
        list(volume.entries())


def test_a_name_without_its_flags_is_none(images):
    """Found by fuzzing: a Rock Ridge NM entry that ends where its flags should be."""
    data = bytearray(images["iso"])
    at = data.index(b"NM", 20 * 2048)
    data[at + 2] = 4
    assert list(file_system(Bytes(bytes(data))).entries())


def test_a_chain_of_clusters_that_bites_its_tail_ends(images):
    data = bytearray(images["fat"])
    for at in range(512, 512 + 300):
        data[at] = 0x33  # every cluster is followed by 0x333
    start = time.monotonic()
    look(bytes(data))
    assert time.monotonic() - start < 20


def test_spans_past_the_end_are_an_error(images):
    volume = file_system(Bytes(images["iso"]))
    entry = next(entry for entry in volume.entries() if entry.kind == "file")
    from dataclasses import replace

    with pytest.raises(RumpbundleError):
        list(volume.chunks(replace(entry, place=(Span(1 << 40, entry.size),))))
    with pytest.raises(RumpbundleError, match="have no place"):
        list(volume.chunks(replace(entry, place=())))
