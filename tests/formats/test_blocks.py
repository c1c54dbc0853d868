"""The containers that leave unused blocks out: where they put what, beside what all readers agree on."""

from __future__ import annotations

import os
import re

import pytest
from support import disks, readers
from support.tools import output_of

from rumpbundle.disk.content import FileSlice
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, Extent
from rumpbundle.errors import InputError
from rumpbundle.formats import _blocks, qcow2, vmdk

QEMU_IMG = "7.2"
"""What another version of it lays out differently is no fault of ours."""
DRIVERS = {
    "vmdk": ("vmdk", "subformat=monolithicSparse"),
    "vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "vhdx": ("vhdx", "subformat=dynamic"),
    "qcow2": ("qcow2", "compat=v3"),
}
BLOCKS = ["vdi", *DRIVERS]
OWN = {
    # Our descriptor; the footer's time, id and creator in both places, and its sum; what opens and identifies a VHDX,
    # its log, and the id in its metadata.
    "vmdk": ((512, 21 * 512),),
    "vhd": ((0, 512), (-512, None)),
    "vhdx": ((8, 64), (0x10000, 0x11000), (0x20000, 0x21000), (MIB, 2 * MIB), (0x310010, 0x310020)),
    "qcow2": (),
}
"""What is ours alone, by start and end in the file."""


@pytest.fixture
def layout(tmp_path):
    payload = tmp_path / "payload"
    payload.write_bytes(disks.noise(3 * MIB + 700) + bytes(2 * MIB) + b"text " * 300_001)
    return disks.disk_of(
        1300 * MIB,
        disks.literal(0, b"boot"),
        disks.late(512, 512),
        disks.from_file(3 * MIB, payload),
        disks.literal(700 * MIB + 65536 * 3, b"x" * 65537),
        # At both sides of where a VHD has a bitmap.
        disks.literal(1200 * MIB - 100, b"y" * 100),
        disks.literal(1200 * MIB, b"z" * 100),
        disks.late(1300 * MIB - 16896, 16896),
    )


@pytest.mark.parametrize("name", DRIVERS)
def test_the_bytes_are_those_of_qemu_img(layout, tmp_path, name):
    version = re.search(r"version (\d+\.\d+)", output_of("qemu-img", "--version"))[1]
    if version != QEMU_IMG:
        pytest.skip(f"the layout is that of qemu-img {QEMU_IMG}, here is {version}")
    raw = readers.write_raw(layout, tmp_path / "raw")
    driver, options = DRIVERS[name]
    output_of("qemu-img", "convert", "-f", "raw", "-O", driver, "-o", options, str(raw), str(tmp_path / "theirs"))
    ours, theirs = (
        bytearray(path.read_bytes()) for path in (disks.write(layout, tmp_path / "ours", name), tmp_path / "theirs")
    )
    assert len(ours) == len(theirs)
    for start, end in OWN[name]:
        for image in (ours, theirs):
            image[start:end] = bytes(len(image[start:end]))
    assert ours == theirs


def test_a_qcow2_with_more_clusters_than_one_block_counts(tmp_path):
    """A byte in each of so many clusters makes more than 2 GiB of file, and takes little room."""
    clusters, size = 33_500, 64 << 10
    path = tmp_path / "payload"
    with path.open("wb") as file:
        file.truncate(clusters * size)
        for index in range(clusters):
            os.pwrite(file.fileno(), b"\x01", index * size)
    layout = disks.disk_of(2200 * MIB, disks.from_file(MIB, path))
    image = disks.write(layout, tmp_path / "image", "qcow2")
    assert image.stat().st_size > qcow2._COUNTS * size
    readers.qemu_agrees(image, "qcow2", readers.write_raw(layout, tmp_path / "raw"))


@pytest.mark.parametrize("name", BLOCKS)
def test_slices_at_any_place_of_a_file(tmp_path, name):
    path = tmp_path / "file"
    path.write_bytes(disks.noise(5 * MIB))
    file = InputFile(path)
    layout = disks.disk_of(
        16 * MIB,
        Extent(0, FileSlice(file, 100, 2 * MIB), "starts within a sector of the file"),
        Extent(3 * MIB + 8, FileSlice(file, 512, 2 * MIB), "starts within a sector of the disk"),
        Extent(6 * MIB, FileSlice(file, 512, 2 * MIB + 1), "ends within a sector"),
        Extent(9 * MIB, FileSlice(file, MIB, 3 * MIB), "whole sectors"),
    )
    image = disks.write(layout, tmp_path / "image", name)
    readers.qemu_agrees(image, name, readers.write_raw(layout, tmp_path / "raw"))


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("harm", [lambda file: file.write(b"changed"), lambda file: file.truncate(5000)])
def test_an_input_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch, name, harm):
    payload = tmp_path / "payload"
    payload.write_bytes(disks.noise(2 * MIB))
    os.utime(payload, (1, 1))
    layout = disks.disk_of(8 * MIB, disks.from_file(MIB, payload))
    write = _blocks.write_extents

    def changing(*words):
        with payload.open("r+b") as file:
            harm(file)
        return write(*words)

    monkeypatch.setattr(_blocks, "write_extents", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        disks.write(layout, tmp_path / "image", name)
    assert os.listdir(tmp_path) == ["payload"]


@pytest.mark.parametrize(("module", "name", "size"), [(vmdk, "vmdk", 2 << 40), (qcow2, "qcow2", 16 << 40)])
def test_more_than_the_tables_lead_to_is_refused(tmp_path, monkeypatch, module, name, size):
    monkeypatch.setattr(module, "used_blocks", lambda layout, block: [range(size // block)])
    with pytest.raises(InputError, match="the payload is too large for a"):
        disks.write(disks.disk_of(20 << 40), tmp_path / "image", name)
    assert os.listdir(tmp_path) == []
