"""Our readers on containers that qemu-img wrote, and on ones with a single field that is wrong."""

from __future__ import annotations

import os
import struct

import pytest
from support import disks, readers
from support.tools import output_of

from rumpbundle.disk.layout import MIB
from rumpbundle.errors import ImageError
from rumpbundle.images.detect import open_disk

FOREIGN = {
    "qcow2": "",
    "qcow2 compressed": "-c",
    "qcow2 version 2": "-o compat=0.10",
    "qcow2 small clusters": "-o cluster_size=512",
    "qcow2 large compressed clusters": "-c -o cluster_size=2M",
    "vmdk": "",
    "vmdk stream": "-o subformat=streamOptimized",
    "vdi": "",
    "vdi fixed": "-o static=on",
    "vpc dynamic": "",
    "vpc fixed": "-o subformat=fixed,force_size=on",
    "vhdx": "",
    "vhdx small blocks": "-o block_size=1M",
    "vhdx fixed": "-o subformat=fixed",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw disk of 20 MiB, and its layout."""
    layout = disks.disk_of(
        20 * MIB,
        disks.literal(0, disks.noise(100_000)),
        disks.literal(3 * MIB + 5, b"text " * 300_000),
        disks.literal(19 * MIB, disks.noise(MIB, 2)),
    )
    return readers.write_raw(layout, tmp_path_factory.mktemp("raw") / "raw"), layout


@pytest.mark.parametrize("name", FOREIGN)
def test_what_qemu_img_wrote(raw, tmp_path, name):
    path, layout = raw
    image = tmp_path / "image"
    output_of(
        "qemu-img", "convert", "-f", "raw", "-O", name.split()[0], *FOREIGN[name].split(), str(path), str(image)
    )
    with open_disk(image) as disk:
        assert readers.sha256_of(disk.read, layout) == readers.expected_sha256(layout)
        assert disk.size >= layout.size  # VHD without force_size is rounded up to cylinders
        assert disk.facts


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("create", "-f", "qcow2", "-b", "raw", "-F", "raw", "image"), "backing file"),
        (("create", "-f", "qcow2", "-o", "data_file=data", "image", "1M"), "keeps its data in another file"),
    ],
)
def test_what_we_do_not_read_says_so(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").write_bytes(bytes(MIB))
    output_of("qemu-img", *argv)
    with pytest.raises(ImageError, match=message), open_disk("image"):
        pass


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    directory = tmp_path_factory.mktemp("originals")
    layout = disks.disk_of(3 * MIB, disks.literal(0, disks.noise(70_000)))
    cases = [("vmdk", "sparse"), ("vmdk", "stream"), ("vdi", ""), ("vhd", "dynamic"), ("vhd", "fixed"), ("vhdx", ""),
             ("qcow2", "")]  # fmt: skip
    return {" ".join(case).strip(): disks.write(layout, directory / "x", *case).read_bytes() for case in cases}


@pytest.mark.parametrize(
    ("name", "offset", "value", "message"),
    [
        ("vmdk sparse", 4, struct.pack("<I", 4), "version 4"),
        ("vmdk sparse", 0x49, b"\n\r\n\r", "transferred as text"),
        ("vmdk sparse", 0x14, struct.pack("<Q", 100), "grains of 100 sectors"),
        ("vmdk sparse", 0x0C, struct.pack("<Q", 1 << 60), "larger than there can be"),
        ("vmdk sparse", 0x38, struct.pack("<Q", 1 << 40), "behind the end"),
        ("vmdk stream", 65536, b"\x01", "is not grain 0"),
        ("vmdk stream", 65536 + 12, b"\xff\xff", "does not decompress"),
        ("vdi", 0x46, b"\x02", "no VDI of version 1"),
        ("vdi", 0x4C, b"\x04", "a differencing disk"),
        ("vdi", 0x4C, b"\x03", "an undo disk"),
        ("vdi", 0x178, struct.pack("<I", 1000), "blocks of 1000 bytes"),
        ("vdi", 0x180, b"\x01", "a map of 1 blocks"),
        ("vhd dynamic", 512 + 40, b"x", "header is damaged"),
        ("vhd dynamic", -500, b"x", ""),
        ("vhd fixed", -500, b"x", "footer is damaged"),
        ("vhdx", 0x10004, b"x", ""),
        ("vhdx", 0x30000, b"x", ""),
        ("vhdx", 0x30010, b"x", ""),
        ("vhdx", 0x300000, b"x", "metadata table is damaged"),
        ("vhdx", 0x300020, b"x", "lacks the metadata item"),
        ("vhdx", 0x310000, b"\x01", "blocks of"),
        ("vhdx", 0x310004, b"\x02", "differs from a parent"),
        ("qcow2", 4, struct.pack(">I", 4), "version 2 or 3"),
        ("qcow2", 79, b"\x02", ""),
        ("qcow2", 79, b"\x20", "uses features 0x20"),
        ("qcow2", 20, struct.pack(">I", 30), r"clusters of 2\^30"),
        ("qcow2", 36, struct.pack(">I", 0), "a table of 0 entries"),
    ],
)
def test_a_wrong_field_is_named(originals, tmp_path, name, offset, value, message):
    image = bytearray(originals[name])
    at = offset % len(image)
    image[at : at + len(value)] = value
    (tmp_path / "image").write_bytes(image)
    if not message:  # there is a copy, or the rest is good
        with open_disk(tmp_path / "image") as disk:
            assert disk.read(0, disk.size)[:70_000] == disks.noise(70_000)
        return
    with pytest.raises(ImageError, match=message), open_disk(tmp_path / "image") as disk:
        disk.read(0, disk.size)


def test_a_vhd_without_its_footer_has_a_copy(originals, tmp_path):
    (tmp_path / "image").write_bytes(originals["vhd dynamic"][:-512])
    with open_disk(tmp_path / "image") as disk:
        assert disk.read(0, 70_000) == disks.noise(70_000)


def test_both_headers_of_a_vhdx_damaged(originals, tmp_path):
    image = bytearray(originals["vhdx"])
    image[0x10004] ^= 1
    image[0x20004] ^= 1
    (tmp_path / "image").write_bytes(image)
    with pytest.raises(ImageError, match="both headers are damaged"), open_disk(tmp_path / "image"):
        pass


@pytest.mark.parametrize(
    ("name", "end", "message"),
    [
        (
            "qcow2",
            70_000,
            "the file ends at byte 70000, and its level 1 table of 8 bytes is at 196608: ",
        ),
        ("qcow2", 60, "is cut off: of 104 bytes of a header there are 60"),
        ("vmdk sparse", 100, "is cut off: of 512 bytes of a header there are 100"),
        ("vdi", 100, "is cut off: of 512 bytes of a header there are 100"),
    ],
)
def test_what_is_cut_off_in_its_tables_is_told_so(originals, tmp_path, name, end, message):
    (tmp_path / "image").write_bytes(originals[name][:end])
    with pytest.raises(ImageError, match=message), open_disk(tmp_path / "image"):
        pass


@pytest.mark.parametrize("packed", [False, True])
def test_a_qcow2_without_its_last_clusters_is_cut_off(tmp_path, packed):
    (tmp_path / "raw").write_bytes(disks.noise(MIB))
    argv = ["qemu-img", "convert", "-O", "qcow2", *(["-c"] if packed else []), str(tmp_path / "raw")]
    output_of(*argv, str(tmp_path / "image"))
    os.truncate(tmp_path / "image", 10 * 65536)
    with open_disk(tmp_path / "image") as disk:
        found = [problem.what for problem in disk.problems() if problem.severity == "damage"]
        assert any(" and the file ends before, at byte 655360" in what for what in found), found
        assert not any("no cluster" in what for what in found)
        with pytest.raises(ImageError, match="cut off"):
            disk.read(0, disk.size)
        if not packed:
            with pytest.raises(ImageError, match="can hold: it is cut off"):
                list(disk.runs())


def test_it_is_the_file_that_ends_and_not_a_partition_in_it(tmp_path, capsys):
    from rumpbundle.cli import main

    raw, image = tmp_path / "raw", tmp_path / "image.vdi"
    with raw.open("wb") as file:
        file.truncate(8 * MIB)
    output_of("sfdisk", "-q", str(raw), input="label: dos\nstart=2048, type=83\n")
    output_of("mke2fs", "-q", "-E", f"offset={MIB}", str(raw), "7M")
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vdi", str(raw), str(image))
    with image.open("r+b") as file:
        file.truncate(MIB + 2048)
    assert main(["ls", str(image)]) == 2
    said = f"error: {image}: partition 1: the file ends at byte {MIB + 2048}, and "
    assert capsys.readouterr().err.startswith(said)
