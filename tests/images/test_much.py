"""A disk may have more than is looked at; then it is told, and not called damaged, and takes no longer."""

from __future__ import annotations

import functools
import json
import struct

import pytest
from support.media import Bytes
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.images import budget, filesystem, volumes
from rumpbundle.images.budget import Budget
from rumpbundle.images.containers.vdi import Vdi
from rumpbundle.images.medium import Run, Tables
from rumpbundle.images.records import vdi
from rumpbundle.images.volumes import problems

MIB = 1 << 20
OTHERS = "what is wrong with the others was not looked at"


class _Sparse(Bytes):
    """A medium with zeros behind what is in memory."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length].ljust(length, b"\0")


def made(tmp_path, kind: str) -> bytes:
    image, top = tmp_path / "image", tmp_path / "top"
    top.mkdir()
    for number in range(20):
        (top / f"file{number}").write_bytes(b"x" * 9000)
    if kind == "iso9660":
        output_of("genisoimage", "-quiet", "-R", "-o", str(image), str(top))
    elif kind == "ext4":
        output_of("mke2fs", "-q", "-t", "ext4", "-d", str(top), str(image), "4M")
    else:
        output_of("mkfs.fat", "-C", "-F", "12", str(image), "4096")
        output_of("mcopy", "-i", str(image), *map(str, top.iterdir()), "::/")
    return image.read_bytes()


@pytest.mark.parametrize("kind", ["iso9660", "ext4", "fat12"])
@pytest.mark.parametrize("scarce", ["entries", "directories", "pointers", "spans"])
def test_what_is_not_looked_at_is_not_damaged(tmp_path, monkeypatch, kind, scarce):
    data = made(tmp_path, kind)
    monkeypatch.setattr(filesystem, "Budget", functools.partial(Budget, **{scarce: 3}))
    found = list(problems(Bytes(data)))
    if (kind, scarce) not in [("iso9660", "pointers")]:  # it follows none
        assert {problem.consequence for problem in found} == {OTHERS}
    assert {problem.severity for problem in found} <= {"remark"}


@pytest.mark.parametrize("kind", ["iso9660", "ext4"])
@pytest.mark.parametrize("room", [0, 1 << 40])
def test_a_directory_larger_than_its_disk_is_damaged(tmp_path, monkeypatch, kind, room):
    """And so is one that is larger than the blocks that an inode has; one flipped bit makes it so."""
    (tmp_path / "top" / "under").mkdir(parents=True)
    image = tmp_path / "image"
    if kind == "iso9660":
        output_of("genisoimage", "-quiet", "-R", "-o", str(image), str(tmp_path / "top"))
        data = bytearray(image.read_bytes())
        at = data.index(b"\5UNDER") - 32
        data[at + 10 : at + 18] = struct.pack("<I", 1 << 28) + struct.pack(">I", 1 << 28)
    else:
        output_of("mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-d", str(tmp_path / "top"), str(image), "4M")
        output_of("debugfs", "-w", "-R", f"set_inode_field /under size {1 << 28}", str(image))
        data = bytearray(image.read_bytes())
    disk = Bytes(bytes(data)) if not room else _Sparse(bytes(data), room)
    damaged = [problem for problem in problems(disk) if problem.severity == "damage"]
    # An ISO's directory has no other size to compare with.
    assert bool(damaged) == (not room or kind == "ext4")


def disk_of(count: int, piece: bytes) -> bytes:
    """Return a disk with a GPT of *count* partitions of a MiB that begin with *piece*."""
    from rumpbundle.disk.gpt import GptEntry, GptHeader

    size = (count + 2) * MIB
    disk = bytearray(size)
    disk[446:462] = bytes([0, 0, 2, 0, 0xEE, 255, 255, 255, 1, 0, 0, 0]) + (size // 512 - 1).to_bytes(4, "little")
    disk[510:512] = b"\x55\xaa"
    entries = b"".join(
        GptEntry(type_guid=b"\1" * 16, unique_guid=number.to_bytes(16, "little"), first_lba=first,
                 last_lba=first + 2047).pack()
        for number, first in enumerate(range(2048, 2048 * (count + 1), 2048), 1)
    )  # fmt: skip
    from zlib import crc32

    last = size // 512 - 1
    for at, other, lba in ((1, last, 2), (last, 1, last - 256)):
        header = GptHeader(
            my_lba=at, alternate_lba=other, first_usable_lba=2048, last_usable_lba=last - 257, disk_guid=b"\3" * 16,
            entries_lba=lba, entry_count=count, entries_crc32=crc32(entries),
        )  # fmt: skip
        disk[512 * at : 512 * at + 512] = header.replace(header_crc32=crc32(header.pack()[:92])).pack().ljust(512)
        disk[512 * lba : 512 * lba + len(entries)] = entries
    for at in range(MIB, (count + 1) * MIB, MIB):
        disk[at : at + len(piece)] = piece
    return bytes(disk)


@pytest.fixture
def piece(tmp_path):
    output_of("mkfs.fat", "-C", str(tmp_path / "fat"), "1024")
    (tmp_path / "f").write_text("f")
    output_of("mcopy", "-i", str(tmp_path / "fat"), str(tmp_path / "f"), "::/F")
    return (tmp_path / "fat").read_bytes()


@pytest.mark.parametrize("count", [128, 300])
def test_all_partitions_are_looked_at_or_told(tmp_path, capsys, piece, count):
    (tmp_path / "disk").write_bytes(disk_of(count, piece))
    looked = min(count, 255)
    assert main(["ls", str(tmp_path / "disk")]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == looked
    assert err == ("" if looked == count else "note: of its 300 partitions the first 255 are looked at\n")
    assert main(["verify", str(tmp_path / "disk")]) == 0
    assert ("first 255" in capsys.readouterr().out) == (looked < count)


def test_the_files_of_all_file_systems_together_are_bounded(monkeypatch, piece):
    disk = Bytes(disk_of(4, piece))
    assert list(problems(disk)) == []
    monkeypatch.setattr(volumes.Budget, "LISTINGS", 0)
    assert [problem.where for problem in problems(disk) if problem.severity == "remark"] == [
        f"fat12, partition {number}" for number in (2, 3, 4)
    ]


def test_each_file_system_is_listed_with_a_budget_of_its_own(tmp_path, monkeypatch, capsys, piece):
    """Two volumes of ours may each have as many files as one can."""
    disk = str(tmp_path / "disk")
    (tmp_path / "disk").write_bytes(disk_of(12, piece))
    monkeypatch.setattr(budget, "MAX_ENTRIES", 1)
    monkeypatch.setattr(volumes, "Budget", functools.partial(Budget, entries=1))
    monkeypatch.setattr(volumes.Budget, "LISTINGS", 12, raising=False)
    assert main(["ls", disk]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 12
    assert main(["ls", disk, "--json"]) == 0
    assert [row["path"] for row in json.loads(capsys.readouterr().out)] == ["/F"] * 12
    monkeypatch.setattr(volumes.Budget, "LISTINGS", 8, raising=False)
    assert main(["ls", disk, "--json"]) == 2
    out, err = capsys.readouterr()
    assert (out, "before fat-10" in err, "fat-10:/" in err) == ("", True, True)
    assert main(["ls", disk, "fat-10:/"]) == 0


def test_other_readers_find_no_damage_in_what_is_not_listed(tmp_path, monkeypatch, capsys):
    made(tmp_path, "iso9660")
    monkeypatch.setattr(filesystem, "Budget", functools.partial(Budget, entries=3))
    assert main(["verify", str(tmp_path / "image")]) == 0
    assert "damage" not in capsys.readouterr().out


def test_diff_tells_what_it_does_not_compare(tmp_path, monkeypatch, capsys):
    one = made(tmp_path, "fat12")
    (tmp_path / "one").write_bytes(one)
    output_of("mdel", "-i", str(tmp_path / "image"), "::/file0")
    monkeypatch.setattr(filesystem, "Budget", functools.partial(Budget, entries=18))
    assert main(["diff", str(tmp_path / "one"), str(tmp_path / "image")]) == 1
    out = capsys.readouterr().out
    assert "not all files are compared: there are more than" in out
    assert "only in the" not in out


class _Counted(Bytes):
    """A medium that knows how often it was read."""

    reads = 0

    def read(self, offset: int, length: int) -> bytes:
        self.reads += 1
        return super().read(offset, length)


def test_to_find_one_block_not_all_of_a_great_map_is_read():
    medium = _Counted(b"\xff" * (16 << 20))
    assert 1 <= Tables(medium).same(0, 4 << 20, b"\xff" * 4) < 4 << 20
    assert medium.reads < 100


@pytest.mark.parametrize("at", [4093, 4094, 4096])
def test_numbers_that_stand_in_two_pages_are_counted(at):
    number = bytes.fromhex("feffffff")
    for count in (1, 2, 1024, 3000):
        medium = _Plain(bytes(at) + number * count + bytes(9000))
        assert Tables(medium).same(at, count + 5, number) == count
        zeros = _Plain(b"\x01" * at + bytes(4 * count) + b"\x01" * 9000)
        assert Tables(zeros).same(at, count + 5, bytes(4)) == count


class _Plain(Bytes):
    def runs(self, offset=0, length=None):
        yield Run(offset, self.size - offset if length is None else length, None)


def test_a_vdi_whose_map_stands_between_pages_is_read():
    header = vdi.Header(blocks_offset=4094, data_offset=8192, disk_size=8 * MIB, blocks=8)
    disk = Vdi(Bytes(header.pack().ljust(4094, b"\0") + struct.pack("<I", vdi.ZERO) * 8))
    assert sum(run.length for run in disk.runs()) == disk.size
    assert disk.read(0, MIB) == bytes(MIB)
