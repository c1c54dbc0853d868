"""Containers against the rules VMware and VirtualBox hold images to, read at fixed offsets."""

from __future__ import annotations

import os
import re
import struct
import uuid

import pytest
from support import disks, streamvmdk

from rumpbundle.disk.layout import GIB, MIB

EPOCH = 1_700_000_000


@pytest.fixture
def write(tmp_path):
    def make(name, subformat="", size=40 * MIB, **changes):
        layout = disks.disk_of(size, disks.literal(0, disks.noise(200_000)), disks.late(33 * MIB, 5000))
        return disks.write(layout, tmp_path / "disk", name, subformat, epoch=EPOCH, **changes).read_bytes()

    return make


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def descriptor(data):
    text = data[u64(data, 0x1C) * 512 :][: u64(data, 0x24) * 512].rstrip(b"\0").decode("ascii")
    assert text.startswith("# Disk DescriptorFile\n")
    return text


def test_vmdk_descriptor(write):
    for subformat, create_type in (("sparse", "monolithicSparse"), ("stream", "streamOptimized")):
        text = descriptor(write("vmdk", subformat))
        values = dict(re.findall(r'^([\w.]+)\s*=\s*"?([^"\n]*)"?$', text, re.MULTILINE))
        assert values["version"] == "1", "VirtualBox insists on exactly this"
        assert values["parentCID"] == "ffffffff"
        assert re.fullmatch("[0-9a-f]{8}", values["CID"])
        assert values["CID"] not in ("ffffffff", "fffffffe")
        assert values["createType"] == create_type
        assert f'\nRW {40 * MIB // 512} SPARSE "disk"\n' in text
        assert uuid.UUID(values["ddb.uuid.image"]).int
        assert values["ddb.adapterType"] in ("ide", "lsilogic")
        heads, sectors = int(values["ddb.geometry.heads"]), int(values["ddb.geometry.sectors"])
        assert (heads, sectors) == ((16, 63) if values["ddb.adapterType"] == "ide" else (255, 63))


@pytest.mark.parametrize(
    ("name", "shown"), [(b'a"b', b"a_b"), (b"a\nb", b"a_b"), ("ä b".encode(), "ä b".encode()), (b"\xff", b"\xff")]
)
def test_vmdk_extent_name_stays_on_its_line(tmp_path, name, shown):
    data = disks.write(disks.disk_of(MIB), tmp_path / os.fsdecode(name), "vmdk", "stream").read_bytes()
    line = next(line for line in data[512:10752].split(b"\n") if line.startswith(b"RW "))
    assert line == b'RW 2048 SPARSE "' + shown + b'"'


def test_stream_vmdk_is_a_chain_of_markers_with_footer_and_end(write):
    """Walk it as an importer that cannot seek does: VirtualBox reads on past a missing end-of-stream marker."""
    data = write("vmdk", "stream")
    assert (data[:4], u32(data, 4), u32(data, 8)) == (b"KDMV", 3, 0x30001)
    assert data[0x49:0x4D] == b"\n \r\n"
    assert struct.unpack_from("<H", data, 0x4D) == (1,)
    assert u64(data, 0x38) == 0xFFFFFFFFFFFFFFFF, "the directory is at the end"
    grains, tables = {}, {}
    for piece in streamvmdk.pieces(data):
        if piece.kind == "grain":
            assert piece.lba > max(grains, default=-1)
            assert len(piece.data) == 65536, "EC2: uncompressed data has invalid length"
            grains[piece.lba] = piece.sector
        elif piece.kind == "table":
            tables[piece.sector] = piece.numbers
        elif piece.kind == "directory":
            directory = piece
        elif piece.kind == "footer":
            assert piece.data[:4] == b"KDMV"
            assert u64(piece.data, 0x38) == directory.sector
    assert [entry for entry in directory.numbers if entry] == list(tables)
    for lba, sector in grains.items():
        number, index = divmod(lba // 128, 512)
        assert tables[directory.numbers[number]][index] == sector
    assert {lba // 128 for lba in grains} == {0, 1, 2, 3, 528}


def test_sparse_vmdk(write):
    data = write("vmdk")
    assert (data[:4], u32(data, 4), u32(data, 8)) == (b"KDMV", 1, 3)
    assert u64(data, 0x0C) == 40 * MIB // 512
    assert u64(data, 0x14) == 128
    assert u32(data, 0x2C) == 512
    assert data[0x48] == 0, "closed cleanly"


def test_vdi(write):
    data = write("vdi")
    assert u32(data, 0x40) == 0xBEDA107F
    assert u32(data, 0x44) == 0x00010001
    assert u32(data, 0x48) == 400
    assert u32(data, 0x4C) == 1
    blocks, first = u32(data, 0x154), u32(data, 0x158)
    assert blocks >= 0x48 + 400
    assert first >= blocks + 4 * 40
    assert first % MIB == 0
    assert u32(data, 0x168) == 512
    assert u64(data, 0x170) == 40 * MIB
    assert u32(data, 0x178) == MIB
    assert u32(data, 0x180) == 40
    table = [u32(data, blocks + 4 * i) for i in range(40)]
    allocated = [entry for entry in table if entry != 0xFFFFFFFF]
    assert allocated == list(range(u32(data, 0x184)))
    assert len(data) == first + len(allocated) * MIB
    create, modify, linkage, parent = (data[at : at + 16] for at in (0x188, 0x198, 0x1A8, 0x1B8))
    assert any(create)
    assert any(modify)
    assert create != modify
    assert not any(linkage + parent)


def footer_of(data, kind):
    footer = data[-512:]
    assert footer[:8] == b"conectix"
    total = ~(sum(footer) - sum(footer[64:68])) & 0xFFFFFFFF
    assert struct.unpack_from(">I", footer, 64) == (total,)
    assert struct.unpack_from(">I", footer, 24) == (EPOCH - 946684800,)
    assert struct.unpack_from(">QQ", footer, 40) == (40 * MIB, 40 * MIB), "no rounding to cylinders"
    assert struct.unpack_from(">I", footer, 60) == (kind,)
    assert any(footer[68:84])
    return footer


def test_vhd(write):
    fixed = write("vhd", "fixed")
    footer_of(fixed, 2)
    assert len(fixed) == 40 * MIB + 512
    dynamic = write("vhd", "dynamic")
    assert dynamic[:512] == footer_of(dynamic, 3), "EC2: footers not identical"
    header = dynamic[512:1536]
    assert header[:8] == b"cxsparse"
    assert struct.unpack_from(">I", header, 36) == (~(sum(header) - sum(header[36:40])) & 0xFFFFFFFF,)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_vhdx(write):
    data = write("vhdx")
    assert data[8:32].decode("utf-16-le").rstrip("\0") == "rumpbundle"
    for sequence, at in ((1, 0x10000), (2, 0x20000)):
        header = bytearray(data[at : at + 4096])
        assert header[:4] == b"head"
        assert u64(header, 8) == sequence
        assert header[0x30:0x40] == bytes(16), "no log to replay"
        checksum = u32(header, 4)
        header[4:8] = bytes(4)
        assert crc32c(header) == checksum
    log, length = u64(data, 0x10048), u32(data, 0x10044)
    assert not any(data[log : log + length])


@pytest.mark.parametrize(("name", "subformat", "size"), [("vhd", "dynamic", 2041 * GIB), ("vhdx", "", 65 << 40)])
def test_what_the_format_cannot_hold_is_refused(write, name, subformat, size):
    from rumpbundle.errors import InputError

    with pytest.raises(InputError, match="is more than the"):
        write(name, subformat, size)


def test_no_two_formats_share_an_id(write):
    """VirtualBox refuses a second disk with a UUID it knows."""
    ids = set()
    for other in ("vmdk:sparse", "vmdk:stream", "vdi:", "vhd:dynamic", "vhd:fixed"):
        data = write(*other.split(":"))
        if other.startswith("vmdk"):
            ids.add(re.search('ddb.uuid.image="(.*)"', descriptor(data))[1])
        else:
            ids.add(
                str(uuid.UUID(bytes_le=data[0x188:0x198]) if other == "vdi:" else uuid.UUID(bytes=data[-444:-428]))
            )
    assert len(ids) == 5
