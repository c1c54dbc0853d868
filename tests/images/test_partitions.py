"""Partition tables of every kind, made by sfdisk and sgdisk, and by hand where they make none."""

from __future__ import annotations

import struct
import uuid
import zlib

import pytest
from support.media import Bytes, in_sectors_of
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.disk.layout import MIB
from rumpbundle.images.detect import open_disk
from rumpbundle.images.partitions import Table, tables
from rumpbundle.images.volumes import select, volumes

EXTENDED = {"05": "5", "0f": "f", "85": "85"}


def test_a_label_without_partitions_is_a_table(tmp_path, capsys):
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    output_of("sfdisk", "-q", str(image), input="label: dos\n")
    assert main(["verify", str(image)]) == 0
    assert main(["ls", str(image)]) == 2
    assert "holds no file system we can read" in capsys.readouterr().err
    assert main(["convert", str(image), "-f", "vdi", "-o", str(tmp_path / "disk.vdi"), "-q", "--no-sync"]) == 0
    assert "taken for a raw disk" not in capsys.readouterr().err


def partitioned(path, size, *script):
    with open(path, "wb") as file:
        file.truncate(size)
    output_of("sfdisk", "-q", str(path), input="\n".join(script))
    return path


def found(data) -> tuple[Table, ...]:
    return tables(Bytes(bytes(data)))


@pytest.mark.parametrize("kind", EXTENDED)
def test_logical_partitions(tmp_path, kind):
    image = partitioned(
        tmp_path / "disk", 64 * MIB,
        "label: dos", "start=2048,size=16384,type=ef", f"start=18432,size=100000,type={EXTENDED[kind]}",
        "start=20480,size=20480,type=83", "start=45056,size=4096,type=82", "start=53248,size=20480,type=83",
    )  # fmt: skip
    output_of("mke2fs", "-q", "-E", f"offset={53248 * 512}", str(image), "10M")
    with open_disk(image) as disk:
        (mbr,) = tables(disk)
        paths = {(volume.name, volume.place.where, entry.path) for volume, entry in select(volumes(disk), "")}
    assert mbr.flaws == ()
    assert [(s.number, s.type, s.offset // 512, s.size // 512) for s in mbr.slots] == [
        (1, "ef", 2048, 16384),
        (2, kind, 18432, 100000),
        (5, "83", 20480, 20480),
        (6, "82", 45056, 4096),
        (7, "83", 53248, 20480),
    ]
    assert ("ext2", "partition 7", "/lost+found") in paths


@pytest.mark.parametrize("second", [18432, 53248 - 2048])
def test_a_chain_of_logical_partitions_that_bites_its_tail(tmp_path, second):
    image = partitioned(
        tmp_path / "disk", 64 * MIB,
        "label: dos", "start=18432,size=100000,type=5", "start=20480,size=20480,type=83",
        "start=53248,size=20480,type=83",
    )  # fmt: skip
    data = bytearray(image.read_bytes())
    at = (53248 - 2048) * 512 + 446 + 16
    data[at : at + 16] = struct.pack("<B3xB3xII", 0, 5, second - 18432, 20480)
    (mbr,) = found(data)
    assert [slot.number for slot in mbr.slots] == [1, 5, 6]
    if second > 18432:  # an offset of 0 in the extended partition is its own beginning: it ends a chain
        assert mbr.flaws == ("the tables of the extended partition have no end",)


def test_a_chain_that_leads_nowhere(tmp_path):
    image = partitioned(
        tmp_path / "disk", 64 * MIB, "label: dos", "start=18432,size=100000,type=5", "start=20480,size=20480,type=83"
    )
    data = bytearray(image.read_bytes())
    data[18432 * 512 + 510] = 0
    (mbr,) = found(data)
    assert mbr.flaws == ("no table of the extended partition stands here",)
    assert mbr.problems[0].offset == 18432 * 512


def test_partitions_behind_the_disk_and_over_each_other(tmp_path):
    image = partitioned(tmp_path / "disk", 64 * MIB, "label: dos", "start=2048,size=4096", "start=8192,size=90000")
    data = bytearray(image.read_bytes())
    assert found(data[: 32 * MIB])[0].flaws == ("partition 2 ends behind the disk",)
    data[446 + 16 + 8 : 446 + 16 + 12] = struct.pack("<I", 4096)
    assert found(data)[0].flaws == ("partitions 1 and 2 overlap",)


@pytest.fixture
def gpt(tmp_path):
    """A disk of 64 MiB with two partitions."""
    image = tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    output_of("sgdisk", "-n", "1:2048:+8M", "-c", "1:one", "-n", "2:0:0", "-c", "2:two", str(image))
    return image


def test_a_hybrid_mbr(gpt):
    output_of("sgdisk", "-h", "1", str(gpt))
    with open_disk(gpt) as disk:
        mbr, table = tables(disk)
    assert sorted(slot.type for slot in mbr.slots)[-1] == "ee"
    assert any(slot.offset == MIB for slot in mbr.slots)
    assert [slot.name for slot in table.slots] == ["one", "two"]
    assert mbr.flaws == table.flaws == ()


def test_the_front_destroyed(gpt):
    data = bytearray(gpt.read_bytes())
    data[512:1024] = bytes(512)
    _, table = found(data)
    assert table.flaws == ("the primary GPT is missing",)
    assert [slot.name for slot in table.slots] == ["one", "two"]


def test_a_disk_that_has_grown_is_whole(gpt):
    data = gpt.read_bytes() + bytes(16 * MIB)
    _, table = found(data)
    assert [(each.what, each.severity) for each in table.problems] == [
        ("the backup GPT is not at the end of the disk", "remark")
    ]
    place = int.from_bytes(data[512 + 32 : 512 + 40], "little") * 512
    _, table = found(data[:place] + bytes(512) + data[place + 512 :])
    assert "damage" in [each.severity for each in table.problems if "at the end of the disk" in each.what]


def test_the_front_destroyed_and_the_disk_grown(gpt):
    data = bytearray(gpt.read_bytes())
    data[512:1024] = bytes(512)
    _, table = found(data + bytes(16 * MIB))
    assert table.flaws == ("the primary GPT is missing", "the backup GPT is not at the end of the disk")
    assert [slot.name for slot in table.slots] == ["one", "two"]


def test_both_copies_destroyed(gpt):
    data = bytearray(gpt.read_bytes())
    data[520] ^= 1
    data[-500] ^= 1
    _, table = found(data)
    assert table.flaws == ("the primary GPT has a wrong checksum", "the backup GPT has a wrong checksum")
    assert [problem.offset for problem in table.problems] == [512, 64 * MIB - 512]
    assert table.slots == ()
    data[512:520] = data[-512:-504] = bytes(8)
    assert found(data)[-1].flaws == ("the primary GPT is missing", "the backup GPT is missing")


def test_one_of_them_stale(gpt):
    before = gpt.read_bytes()
    output_of("sgdisk", "-d", "2", str(gpt))
    data = bytearray(gpt.read_bytes())
    data[-33 * 512 :] = before[-33 * 512 :]
    _, table = found(data)
    assert table.flaws == ("the backup GPT has other partitions than the primary",)
    assert [slot.name for slot in table.slots] == ["one"]


def test_a_gpt_without_its_protective_mbr(gpt):
    data = bytearray(gpt.read_bytes())
    data[:512] = bytes(512)
    (table,) = found(data)
    assert table.flaws == ("the protective MBR is missing",)
    assert [slot.name for slot in table.slots] == ["one", "two"]


@pytest.mark.parametrize("sector", [1024, 2048, 4096])
def test_other_sectors(gpt, sector, capsys):
    output_of("sgdisk", "-d", "2", "-n", "2:32768:65535", "-c", "2:two", str(gpt))
    data = in_sectors_of(sector, gpt.read_bytes())
    mbr, table = found(data)
    assert table.sector == mbr.sector == sector
    assert mbr.flaws == ()
    assert table.flaws == (f"the GPT counts in sectors of {sector} bytes",)
    assert [problem.severity for problem in table.problems] == ["remark"]
    assert [(slot.name, slot.offset, slot.size) for slot in table.slots] == [
        ("one", MIB, 8 * MIB),
        ("two", 16 * MIB, 16 * MIB),
    ]
    gpt.write_bytes(data)
    with open_disk(gpt) as disk:
        assert tables(disk) == (mbr, table)
    for format in ("vmdk", "vdi", "vpc", "qcow2"):
        made = str(gpt.with_name(format))
        output_of("qemu-img", "convert", "-f", "raw", "-O", format, str(gpt), made)
        assert main(["verify", made]) == (0 if format == "qcow2" else 5)
        assert "a machine that sees sectors of 512 bytes finds no partitions" in capsys.readouterr().out
        assert main(["inspect", made]) == 0
        assert f"GPT: the GPT counts in sectors of {sector} bytes" in capsys.readouterr().out
    damaged = bytearray(data)
    damaged[sector : sector + 104] = bytes(104)
    assert found(damaged)[-1].flaws == ("the primary GPT is missing", *table.flaws)
    assert found(damaged)[-1].slots == table.slots


def test_a_boot_sector_is_no_table(tmp_path):
    image = tmp_path / "fat"
    with open(image, "wb") as file:
        file.truncate(4 * MIB)
    output_of("mkfs.fat", str(image))
    data = bytearray(image.read_bytes())
    data[446:462] = b"\0" + b"\x5a" * 15
    assert found(data) == ()


def test_a_large_table(gpt):
    output_of("sgdisk", "-S", "4096", "-d", "2", "-a", "1", str(gpt))
    output_of("sgdisk", "-n", "4096:20480:0", "-c", "4096:last", str(gpt))
    with open_disk(gpt) as disk:
        table = tables(disk)[-1]
    assert [(slot.number, slot.name) for slot in table.slots] == [(1, "one"), (4096, "last")]
    assert table.flaws == ()


def test_a_partition_that_ends_before_it_begins(gpt):
    data = bytearray(gpt.read_bytes())
    for header, entries in ((512, 1024), (len(data) - 512, len(data) - 33 * 512)):
        data[entries + 40 : entries + 48] = (5).to_bytes(8, "little")
        data[header + 88 : header + 92] = zlib.crc32(data[entries : entries + 16384]).to_bytes(4, "little")
        data[header + 16 : header + 20] = bytes(4)
        data[header + 16 : header + 20] = zlib.crc32(data[header : header + 92]).to_bytes(4, "little")
    table = found(data)[-1]
    assert table.flaws == ("partition 1 ends before it begins",)
    assert [slot.name for slot in table.slots] == ["two"]


def vhdx_of(image, sector):
    """Write *image* as a VHDX that says its sectors have *sector* bytes; QEMU makes those of 512."""
    output = image.with_suffix(".vhdx")
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vhdx", str(image), str(output))
    data = bytearray(output.read_bytes())
    entry = data.index(uuid.UUID("8141bf1d-a96f-4709-ba47-f233a8faab5f").bytes_le)  # [MS-VHDX] 2.6.2.4
    at = data.index(b"metadata") + struct.unpack_from("<I", data, entry + 16)[0]
    assert data[at : at + 4] == struct.pack("<I", 512)
    struct.pack_into("<I", data, at, sector)
    output.write_bytes(data)
    return output


@pytest.mark.parametrize("table", [512, 4096])
def test_a_vhdx_of_4096_byte_sectors(gpt, table, capfd):
    gpt.write_bytes(in_sectors_of(table, gpt.read_bytes()))
    image = vhdx_of(gpt, 4096)
    with open_disk(image) as disk:
        _, found = tables(disk)
    assert [slot.offset for slot in found.slots] == [MIB, 9 * MIB]
    # QEMU does not open it, which is no damage; what does not fit together is.
    assert main(["verify", str(image)]) == (5 if table == 512 else 0)
    told = "the GPT counts in sectors of 512 bytes, and the container says 4096; a machine that sees sectors of 4096"
    assert (told in capfd.readouterr().out) == (table == 512)
    assert main(["convert", str(image), "-f", "vdi", "-q", "-o", str(gpt) + ".vdi"]) == (0 if table == 512 else 2)


@pytest.mark.parametrize("sector", [512, 4096])
def test_an_mbr_counts_in_the_sectors_in_which_its_partitions_hold_something(tmp_path, capsys, sector):
    """It does not say how large they are; where nothing known begins, 512 bytes are meant."""
    script = ("label: dos", "start=2048,size=16384,type=83", "start=18432,size=40960,type=5", "start=20480,size=8192")
    image = partitioned(tmp_path / "disk", 32 * MIB, *script)
    output_of("mke2fs", "-q", "-E", f"offset={20480 * 512}", str(image), "4M")
    data = bytearray(image.read_bytes())
    for table in (0, 18432 * 512):
        for at in range(table + 446, table + 510, 16):
            first, count = struct.unpack_from("<II", data, at + 8)
            struct.pack_into("<II", data, at + 8, first * 512 // sector, count * 512 // sector)
    image.write_bytes(data)
    with open_disk(image) as disk:
        (mbr,) = tables(disk)
    assert (mbr.sector, [slot.offset for slot in mbr.slots]) == (sector, [MIB, 9 * MIB, 10 * MIB])
    assert main(["ls", str(image)]) == 0
    assert ":/lost+found\n" in capsys.readouterr().out
    assert main(["verify", str(image)]) == 0
    said = "the MBR counts in sectors of 4096 bytes; a machine that sees sectors of 512 bytes finds no partitions"
    assert (f"remark: MBR at byte 0: {said}" in capsys.readouterr().out) == (sector == 4096)
    assert main(["convert", str(image), "-f", "vdi", "-o", str(tmp_path / "out")]) == (0 if sector == 512 else 2)
    assert ("no machine would find its partitions" in capsys.readouterr().err) == (sector == 4096)
    data[10 * MIB + 1080 : 10 * MIB + 1082] = bytes(2)
    (mbr,) = found(data)
    assert mbr.sector == 512
