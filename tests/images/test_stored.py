"""Where the parts of a disk are stored in an image's file: as ``qemu-img map`` has it, and so drawn."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tarfile
from xml.etree import ElementTree

import pytest
from support import disks
from support.tools import output_of

from rumpbundle.disk.layout import MIB
from rumpbundle.images.detect import open_disk
from rumpbundle.images.report import inspect
from rumpbundle.images.report.picture import svg
from rumpbundle.images.stored import MOST, stored

KINDS = {
    "qcow2": "qcow2",
    "qcow2 small": "qcow2 -o cluster_size=4096",
    "qcow2 extended l2": "qcow2 -o extended_l2=on",
    "vmdk": "vmdk",
    "vdi": "vdi",
    "vdi fixed": "vdi -o static=on",
    "vhd": "vpc -o force_size=on",
    "vhd fixed": "vpc -o subformat=fixed,force_size=on",
    "vhdx": "vhdx -o block_size=1M",
    "vhdx fixed": "vhdx -o subformat=fixed",
}
UNTOLD = ("vhdx", "vhdx fixed", "qcow2 extended l2")
"""Of which ``qemu-img map`` tells no places, or those of whole clusters that are there in part: by their bytes."""
PLACES = ((0, 70_000), (5 * MIB, 3 * MIB), (9 * MIB + 4096, 4096), (20 * MIB, MIB), (31 * MIB, MIB))


@pytest.fixture
def raw(tmp_path):
    """A disk of 32 MiB with a partition table (else nobody takes it for one) and noise in five places."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
        for at, length in PLACES:
            file.seek(at)
            file.write(disks.noise(length, at))
        file.seek(446)
        file.write(bytes.fromhex("00 000000 83 000000 00080000 00f00000".replace(" ", "")) + bytes(48) + b"\x55\xaa")
    return path


def drawn(image) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
    """What the picture of *image* says: by offset on the disk, the length there and the place in the file, and
    the length in the file and the place there."""
    on_disk, in_file = {}, {}
    for title in ElementTree.fromstring(svg(inspect(image, stored=True))).iter("{http://www.w3.org/2000/svg}title"):
        if found := re.fullmatch(r"(?:compressed )?at (\d+) of the file: (\d+) bytes at (\d+)", title.text):
            on_disk[int(found[3])] = int(found[2]), int(found[1])
        if found := re.fullmatch(r"disk from byte (\d+): (\d+) bytes at (\d+)", title.text):
            in_file[int(found[1])] = int(found[2]), int(found[3])
    assert on_disk.keys() == in_file.keys()
    return on_disk, in_file


def mapped(driver: str, image) -> dict[int, tuple[int, int]]:
    """What ``qemu-img map`` says, neighbours as one: by offset on the disk, the length and the place in the file."""
    found: list[list[int]] = []
    for entry in json.loads(output_of("qemu-img", "map", "--output=json", "-f", driver, str(image))):
        if "offset" not in entry:
            continue
        if found and found[-1][0] + found[-1][1] == entry["start"] and sum(found[-1][1:]) == entry["offset"]:
            found[-1][1] += entry["length"]
        else:
            found.append([entry["start"], entry["length"], entry["offset"]])
    return {start: (length, offset) for start, length, offset in found}


@pytest.mark.parametrize("name", KINDS)
def test_the_places_drawn_are_those_of_qemu_img_map(raw, tmp_path, name):
    image = tmp_path / "image"
    driver, *options = KINDS[name].split()
    output_of("qemu-img", "convert", "-f", "raw", "-O", driver, *options, str(raw), str(image))
    on_disk, in_file = drawn(image)
    assert in_file == on_disk
    if name in UNTOLD:
        disk, file = raw.read_bytes(), image.read_bytes()
        rest = bytearray(disk)
        for offset, (length, position) in on_disk.items():
            assert file[position : position + length] == disk[offset : offset + length]
            rest[offset : offset + length] = bytes(length)
        assert not any(rest)
    else:
        assert on_disk == mapped(driver, image)
    before = svg(inspect(image, stored=True))
    output_of("cp", "--sparse=never", str(image), str(tmp_path / "full"))
    (tmp_path / "full").rename(image)
    assert svg(inspect(image, stored=True)) == before, "the holes of the file are drawn"


def test_a_plain_disk_has_no_map(raw):
    assert inspect(raw, stored=True).stored == ()
    assert drawn(raw) == ({}, {})


@pytest.mark.parametrize("options", ["vmdk -o subformat=streamOptimized", "qcow2 -c", "qcow2 -c -o compat=0.10"])
def test_compressed_parts_are_drawn_where_they_are(raw, tmp_path, options):
    image = tmp_path / "image"
    driver, *options = options.split()
    output_of("qemu-img", "convert", "-f", "raw", "-O", driver, *options, str(raw), str(image))
    on_disk, in_file = drawn(image)
    assert {offset - offset % MIB for offset in on_disk} <= {0, 5 * MIB, 9 * MIB, 20 * MIB, 31 * MIB}
    assert sum(length for length, _ in on_disk.values()) < 7 * MIB
    for offset, (length, position) in in_file.items():
        if driver == "vmdk":  # a grain begins with the sector it is for
            assert int.from_bytes(image.read_bytes()[position : position + 8], "little") * 512 == offset
        # Noise does not compress: what is stored takes about its size.
        assert length >= min(on_disk[offset][0], 4096) * 0.9


def test_what_stands_in_an_archive_is_drawn_where_the_archive_has_it(raw, tmp_path):
    inside = tmp_path / "inside.vmdk"
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vmdk", str(raw), str(inside))
    with tarfile.open(tmp_path / "machine.ova", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(raw, "notes.txt")
        archive.add(inside, "inside.vmdk")
    with tarfile.open(tmp_path / "machine.ova") as archive:
        start = archive.getmember("inside.vmdk").offset_data
        notes = archive.getmember("notes.txt").offset_data
    on_disk, _ = drawn(tmp_path / "machine.ova")
    assert on_disk == {at: (n, place + start) for at, (n, place) in mapped("vmdk", inside).items()}
    assert f"notes.txt: {32 * MIB} bytes at {notes}</title>" in svg(inspect(tmp_path / "machine.ova", stored=True))


def test_the_pieces_of_a_sparse_archive_are_drawn(raw, tmp_path):
    output_of("fallocate", "-d", str(raw))
    subprocess.run(["tar", "-C", tmp_path, "--format=oldgnu", "-Scf", tmp_path / "gce.tar", "disk.raw"], check=True)
    _, in_file = drawn(tmp_path / "gce.tar")
    disk, archive = raw.read_bytes(), (tmp_path / "gce.tar").read_bytes()
    assert len(in_file) >= 4
    assert sum(length for length, _ in in_file.values()) < 6 * MIB
    for offset, (length, position) in in_file.items():
        assert archive[position : position + length] == disk[offset : offset + length]


def test_what_is_compressed_around_the_disk_is_one_part(raw, tmp_path):
    (tmp_path / "disk.raw.gz").write_bytes(gzip.compress(raw.read_bytes()))
    size = (tmp_path / "disk.raw.gz").stat().st_size
    assert drawn(tmp_path / "disk.raw.gz") == ({0: (32 * MIB, 0)}, {0: (size, 0)})


def test_of_many_parts_the_nearest_are_drawn_as_one(tmp_path):
    """Every second cluster is there: far more parts than a picture has room for, and three groups of them."""
    raw, image = tmp_path / "raw", tmp_path / "image"
    with raw.open("wb") as file:
        file.truncate(1 << 30)
        for at in (*range(64), *range(4000, 4200), *range(8000, 8191)):
            file.seek(2 * at * 65536)
            file.write(disks.noise(65536, at))
    output_of("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image))
    with open_disk(image) as disk:
        found = stored(disk)
    assert len(found) == MOST
    assert sum(part.parts for part in found) == 64 + 200 + 191
    ends = [part.offset + part.length for part in found]
    assert all(end <= part.offset for end, part in zip(ends, found[1:], strict=False))
    assert {0, 8000 * 65536, 16000 * 65536} <= {part.offset for part in found}, "a group was drawn with another"


def test_the_map_of_a_disk_of_petabytes_is_quick(tmp_path):
    image = tmp_path / "image"
    output_of("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", str(image), "1P")
    with open_disk(image) as disk:
        assert stored(disk) == ()


def test_a_part_behind_the_end_of_the_file_is_told_and_not_drawn(raw, tmp_path):
    image = tmp_path / "image"
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vdi", str(raw), str(image))
    with image.open("r+b") as file:
        file.seek(512 + 4 * 20)  # the map's entry of the block at 20 MiB
        file.write((99).to_bytes(4, "little"))
    report = inspect(image, stored=True)
    assert any("behind the end of the file" in flaw for flaw in report.flaws)
    on_disk, _ = drawn(image)
    assert sorted(on_disk) == [0, 5 * MIB, 9 * MIB, 31 * MIB]
