"""What qemu-img is given to read: the input files themselves, and nothing that grows with them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from support import disks, readers

from rumpbundle.disk.content import FileSlice
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, Extent
from rumpbundle.errors import HostError, InputError, ToolError
from rumpbundle.formats import _qemu_img, _written
from rumpbundle.host import programs

THROUGH_QEMU_IMG = ["vmdk", "vhd", "vhdx", "qcow2"]


@pytest.fixture
def runs(monkeypatch):
    """Collect the open files every program gets, as (inode, bytes on disk)."""
    seen = []
    run = programs.run

    def watched(argv, **kwargs):
        status = [os.fstat(fd) for fd in kwargs.get("pass_fds", ())]
        seen.append([(s.st_ino, s.st_blocks * 512) for s in status])
        return run(argv, **kwargs)

    monkeypatch.setattr(programs, "run", watched)
    return seen


@pytest.mark.parametrize("name", THROUGH_QEMU_IMG)
def test_there_is_no_raw_copy_of_the_disk(tmp_path, runs, name):
    payload = tmp_path / "payload"
    payload.write_bytes(disks.noise(24 * MIB + 700))
    layout = disks.disk_of(64 * MIB, disks.late(512, 512), disks.from_file(MIB, payload), disks.late(63 * MIB, 16896))
    image = disks.write(layout, tmp_path / "image", name)
    (files,) = [files for files in runs if files]
    temporary = [size for inode, size in files if inode != payload.stat().st_ino]
    assert len(temporary) == len(files) - 1, "the payload is read in place"
    assert sum(temporary) < MIB
    assert sorted(os.listdir(tmp_path)) == ["image", "payload"]
    readers.qemu_agrees(image, name, readers.write_raw(layout, tmp_path / "raw"))


def test_many_large_files_stay_below_the_limit_of_open_files(tmp_path, runs):
    extents = []
    for number in range(_qemu_img.MOST_REFERENCED + 30):
        path = tmp_path / f"{number:03}"
        with path.open("wb") as file:
            file.write(b"%d" % number * 100)
            file.truncate(MIB + number)
        extents.append(disks.from_file((2 * number + 1) * MIB, path))
    layout = disks.disk_of(512 * MIB, *extents)
    image = disks.write(layout, tmp_path / "image", "qcow2")
    (files,) = [files for files in runs if files]
    assert len(files) == _qemu_img.MOST_REFERENCED + 2
    readers.qemu_agrees(image, "qcow2", readers.write_raw(layout, tmp_path / "raw"))


def test_slices_that_are_no_whole_sectors_are_copied(tmp_path):
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
    image = disks.write(layout, tmp_path / "image", "vmdk")
    readers.qemu_agrees(image, "vmdk", readers.write_raw(layout, tmp_path / "raw"))


def test_a_colon_in_the_outputs_name_is_no_protocol(tmp_path, monkeypatch):
    """Where files without names cannot be made, the output is written under a name beside its own."""
    monkeypatch.setattr(os, "O_TMPFILE", 0)
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    (tmp_path / "nbd:").mkdir()
    monkeypatch.chdir(tmp_path)
    layout = disks.disk_of(MIB, disks.literal(0, b"boot"))
    image = disks.write(layout, Path("nbd:/json:x"), "qcow2")
    readers.qemu_agrees(image.resolve(), "qcow2", readers.write_raw(layout, tmp_path / "raw"))
    assert os.listdir("nbd:") == ["json:x"]


def test_an_input_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    payload = tmp_path / "payload"
    payload.write_bytes(disks.noise(2 * MIB))
    os.utime(payload, (1, 1))
    layout = disks.disk_of(8 * MIB, disks.from_file(MIB, payload))
    run = programs.run

    def changing(argv, **kwargs):
        if "convert" in argv:
            with payload.open("r+b") as file:
                file.write(b"changed")
        return run(argv, **kwargs)

    monkeypatch.setattr(programs, "run", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        disks.write(layout, tmp_path / "image", "qcow2")
    assert os.listdir(tmp_path) == ["payload"]


def test_a_full_disk_is_the_machines_fault(tmp_path, monkeypatch):
    def full(argv, **kwargs):
        if "convert" in argv:
            raise ToolError("qemu-img failed with status 1: error while writing at byte 0: No space left on device")
        return b"qemu-img version 7.2.0"

    monkeypatch.setattr(programs, "run", full)
    with pytest.raises(HostError, match="no space left"):
        disks.write(disks.disk_of(MIB), tmp_path / "image", "qcow2")


@pytest.mark.parametrize("name", THROUGH_QEMU_IMG)
@pytest.mark.parametrize(
    ("harm", "whole"),
    [
        *((harm, 0) for harm in ("append", "cut", "flip late", "elsewhere", "swap")),
        # Of large disks only samples are compared.
        ("flip", _written.WHOLE),
    ],
)
def test_what_qemu_img_wrote_wrong_with_status_0_is_noticed(tmp_path, monkeypatch, name, harm, whole):
    monkeypatch.setattr(_written, "WHOLE", whole)
    payload = tmp_path / "payload"
    payload.write_bytes(disks.noise(12 * MIB))
    layout = disks.disk_of(
        48 * MIB, disks.literal(0, b"boot"), disks.late(512, 512), disks.from_file(2 * MIB, payload)
    )
    run = programs.run

    def harming(argv, **kwargs):
        said = run(argv, **kwargs)
        if "convert" in argv:
            with open(argv[-1], "r+b") as file:
                _harm(file, harm)
        return said

    disks.write(layout, tmp_path / "good", name)
    monkeypatch.setattr(programs, "run", harming)
    with pytest.raises(ToolError, match="qemu-img wrote what rumpbundle cannot seal: "):
        disks.write(layout, tmp_path / "image", name)
    assert sorted(os.listdir(tmp_path)) == ["good", "payload"]


def _harm(file, harm: str) -> None:
    data = file.read()
    noise = disks.noise(12 * MIB)
    match harm:
        case "append":
            file.write(b"x")
        case "cut":
            file.truncate(len(data) - 1)
        case "flip":
            _flip(file, data.index(noise[5 * MIB : 5 * MIB + 512]) + 77)
        case "flip late":
            _flip(file, data.index(b"\xff" * 512, data.index(b"boot")))
        case "elsewhere":
            # What should be zero, in a block that has a place.
            _flip(file, data.index(b"boot") + 2048)
        case "swap":
            one, two = (data.index(noise[at : at + 512]) for at in (4 * MIB, 6 * MIB))
            for at, start in ((one, 6 * MIB), (two, 4 * MIB)):
                file.seek(at)
                file.write(noise[start : start + 64 * 1024])


def _flip(file, at: int) -> None:
    file.seek(at)
    byte = file.read(1)[0]
    file.seek(at)
    file.write(bytes([byte ^ 1]))
