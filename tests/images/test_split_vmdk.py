"""VMDKs of several files: read through their descriptor, out of its own directory and nowhere else."""

from __future__ import annotations

import os
import re

import pytest
from support import disks
from support.tools import output_of

from rumpbundle.disk.content import FileSlice, Zeros
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import ImageError, RumpbundleError
from rumpbundle.images.detect import open_disk
from rumpbundle.images.node import node_of
from rumpbundle.images.records import vmdk

SUBFORMATS = ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"]


@pytest.fixture
def raw(tmp_path):
    """A disk of a little more than two parts of 2 GB, with bytes around the seams."""
    path = tmp_path / "raw"
    with path.open("wb") as file:
        file.truncate((4 << 30) + 5 * MIB)
        for offset in (0, 2047 * MIB - 700, (2 << 30) - 700, (4 << 30) + 4 * MIB):
            os.pwrite(file.fileno(), disks.noise(5000, offset), offset)
    return path


@pytest.mark.parametrize("subformat", SUBFORMATS)
def test_what_qemu_img_splits(raw, tmp_path, subformat):
    (tmp_path / "d").mkdir()
    image = tmp_path / "d" / "disk.vmdk"
    output_of("qemu-img", "convert", "-O", "vmdk", "-o", f"subformat={subformat}", str(raw), str(image))
    with open_disk(image) as disk:
        assert disk.container == "vmdk (split)"
        assert {os.path.basename(file.path) for file in disk.others} == set(os.listdir(image.parent)) - {"disk.vmdk"}
        for offset in (0, 2047 * MIB - 700, (2 << 30) - 700, (4 << 30) + 4 * MIB):
            assert disk.read(offset, 5000) == disks.noise(5000, offset)
        found = [run for run in disk.runs() if isinstance(run.source, FileSlice)]
        assert sum(run.length for run in found) < MIB
        for run in found:
            assert run.source.read(0, run.length) == disk.read(run.offset, run.length)
        with pytest.raises(ImageError, match="stands in other files"):
            node_of(disk)


def descriptor(*extents: str, more: str = "") -> bytes:
    lines = "\n".join(extents)
    head = f"# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n{more}"
    return f'{head}createType="custom"\n{lines}\n#DDB\n'.encode()


@pytest.fixture
def place(tmp_path):
    """A directory with part.bin of 64 KiB in it, and a secret beside it."""
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "part.bin").write_bytes(disks.noise(65536))
    (inside / "link").symlink_to("../secret")
    (inside / "near").symlink_to("part.bin")
    (inside / "directory").mkdir()
    os.mkfifo(inside / "fifo")
    return inside


def test_parts_and_zeros_end_to_end(place):
    (place / "x.vmdk").write_bytes(
        descriptor('RW 16 FLAT "part.bin" 8', "RW 8 ZERO", 'RDONLY 8 VMFS "part.bin"', 'rw 4 flat "part.bin" 0')
    )
    noise = disks.noise(65536)
    expected = noise[4096:12288] + bytes(4096) + noise[:4096] + noise[:2048]
    with open_disk(place / "x.vmdk") as disk:
        assert disk.read(0, disk.size) == expected
        assert b"".join(run.source.read(0, run.length) for run in disk.runs()) == expected
        assert [isinstance(run.source, Zeros) for run in disk.runs()] == [False, True, False, False]
        assert [os.path.basename(file.path) for file in disk.others] == ["part.bin"]


@pytest.mark.parametrize(
    ("extent", "message"),
    [
        ('RW 8 FLAT "../secret" 0', "is not in its own directory"),
        ('RW 8 FLAT "/etc/hostname" 0', "is not in its own directory"),
        ('RW 8 FLAT "directory/x" 0', "is not in its own directory"),
        ('RW 8 FLAT "..\\secret" 0', "is not in its own directory"),
        ('RW 8 FLAT ".." 0', "is not in its own directory"),
        ('RW 8 FLAT "" 0', "is not in its own directory"),
        ("RW 8 FLAT", "is not in its own directory"),
        ('RW 8 FLAT "link" 0', "link cannot be opened: is a symbolic link"),
        ('RW 8 FLAT "near" 0', "near cannot be opened: is a symbolic link"),
        ('RW 8 FLAT "directory" 0', "is a directory"),
        ('RW 8 FLAT "fifo" 0', "is a FIFO"),
        ('RW 8 FLAT "missing" 0', "No such file"),
        ('RW 8 FLAT "json:{}" 0', "No such file"),
        ('RW 8 FLAT "part.bin" 128', "part.bin ends at byte 65536, 69632 are needed"),
        ('RW 8 SPARSE "part.bin"', "its part part.bin: is no sparse VMDK"),
        ('RW 8 VMFSRDM "part.bin"', "a part of type RW VMFSRDM"),
        ('RW 8 SESPARSE "part.bin"', "a part of type RW SESPARSE"),
        ('NOACCESS 8 FLAT "part.bin" 0', "a part of type NOACCESS FLAT"),
        ('RW 0 FLAT "part.bin" 0', "no disk"),
        ("", "no disk"),
        ("RW 99999999999999999999 ZERO", "a line that cannot be read"),
        ('RW x FLAT "part.bin"', "a line that cannot be read"),
    ],
)
def test_no_other_file_is_opened(place, extent, message):
    (place / "x.vmdk").write_bytes(descriptor(extent))
    with pytest.raises(ImageError, match=re.escape(message)), open_disk(place / "x.vmdk"):
        pass


def test_a_parent_is_refused(place):
    for more in ('parentFileNameHint="base.vmdk"\n', "parentCID=12345678\n"):
        (place / "x.vmdk").write_bytes(descriptor("RW 8 ZERO", more=more))
        with pytest.raises(ImageError, match="differs from a parent disk"), open_disk(place / "x.vmdk"):
            pass


def test_one_part_alone_is_no_disk(tmp_path):
    (tmp_path / "raw").write_bytes(disks.noise(MIB))
    output_of("qemu-img", "convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", f"{tmp_path}/raw",
              f"{tmp_path}/disk.vmdk")  # fmt: skip
    with pytest.raises(ImageError, match="is one part of a split VMDK"), open_disk(tmp_path / "disk-s001.vmdk"):
        pass


def test_a_part_that_changes_meanwhile_is_noticed(place):
    (place / "x.vmdk").write_bytes(descriptor('RW 128 FLAT "part.bin" 0'))
    with open_disk(place / "x.vmdk", watch="reads") as disk:
        disk.read(0, 512)
        (place / "part.bin").unlink()
        (place / "part.bin").symlink_to("../secret")
        with pytest.raises(RumpbundleError, match="symbolic link"):
            disk.read(0, 512)
        (place / "part.bin").unlink()
        (place / "part.bin").write_bytes(bytes(65536))
        with pytest.raises(RumpbundleError, match="changed while it was read"):
            disk.read(0, 512)


@pytest.fixture
def sparse(tmp_path):
    (tmp_path / "raw").write_bytes(disks.noise(MIB))
    output_of("qemu-img", "convert", "-O", "vmdk", f"{tmp_path}/raw", f"{tmp_path}/x.vmdk")
    return tmp_path / "x.vmdk"


def test_a_grain_table_that_differs_from_its_copy_is_damage(sparse):
    data = bytearray(sparse.read_bytes())
    header = vmdk.SparseHeader.unpack(bytes(data[:512]))
    table = int.from_bytes(data[header.gd_offset * 512 :][:4], "little") * 512
    for at, message in (
        (header.gd_offset * 512, "directory and its copy differ"),
        (table, "table and its copy differ"),
    ):
        damaged = bytearray(data)
        damaged[at : at + 4] = bytes(4)
        sparse.write_bytes(damaged)
        with pytest.raises(ImageError, match=message), open_disk(sparse) as disk:
            disk.read(0, disk.size)


def test_a_stream_without_markers_and_with_a_padded_footer(tmp_path):
    layout = disks.disk_of(MIB, disks.literal(0, disks.noise(300_000)))
    whole = disks.write(layout, tmp_path / "x", "vmdk", "stream").read_bytes()
    (tmp_path / "x.vmdk").write_bytes(whole + bytes(65536 - len(whole) % 65536))
    with open_disk(tmp_path / "x.vmdk") as disk:
        assert disk.read(0, 300_000) == disks.noise(300_000)
