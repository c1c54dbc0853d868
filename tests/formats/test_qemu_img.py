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
from rumpbundle.formats import _qemu_img
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
