"""Where the bytes of a disk are, as its reader tells (``runs()``): what stands there is what the disk holds."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import disks
from support.tools import output_of

from rumpbundle.disk.content import FileSlice, Zeros
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB
from rumpbundle.images.detect import open_disk
from rumpbundle.images.medium import FdMedium, Patchwork, Piece

KINDS = {
    "raw": "raw",
    "qcow2": "qcow2",
    "qcow2 compressed": "qcow2 -c",
    "qcow2 zstd": "qcow2 -c -o compression_type=zstd",
    "qcow2 extended l2": "qcow2 -o extended_l2=on",
    "qcow2 2": "qcow2 -o compat=0.10",
    "qcow2 small": "qcow2 -o cluster_size=512",
    "qcow2 preallocated": "qcow2 -o preallocation=metadata",
    "vmdk": "vmdk",
    "vmdk stream": "vmdk -o subformat=streamOptimized",
    "vmdk flat": "vmdk -o subformat=monolithicFlat",
    "vmdk split": "vmdk -o subformat=twoGbMaxExtentSparse",
    "vmdk split flat": "vmdk -o subformat=twoGbMaxExtentFlat",
    "vdi": "vdi",
    "vdi fixed": "vdi -o static=on",
    "vhd": "vpc -o force_size=on",
    "vhd fixed": "vpc -o subformat=fixed,force_size=on",
    "vhdx": "vhdx -o block_size=1M",
    "vhdx fixed": "vhdx -o subformat=fixed",
}


def sparse_disk(path, size: int, seed: int) -> bytes:
    """Write a disk with noise here and there to *path* and return it."""
    random_places = random.Random(seed)
    content = bytearray(size)
    for _ in range(12):
        at, length = random_places.randrange(size), random_places.choice((1, 512, 4096, 70_000, 300_000))
        content[at : at + length] = random_places.randbytes(min(length, size - at))
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, 4096):
            if any(content[at : at + 4096]):
                os.pwrite(file.fileno(), content[at : at + 4096], at)
    return bytes(content)


def assembled(disk) -> bytes:
    """Return the disk as its runs tell it; each has to follow the one before."""
    parts = []
    at = 0
    for run in disk.runs():
        assert run.offset == at
        assert run.length > 0
        match run.source:
            case FileSlice() as source:
                assert source.length == run.length
                parts.append(source.read(0, run.length))
            case Zeros(length):
                assert length == run.length
                parts.append(bytes(length))
            case None:
                parts.append(disk.read(run.offset, run.length))
        at += run.length
    assert at == disk.size
    return b"".join(parts)


@pytest.mark.parametrize("name", KINDS)
def test_runs_give_the_disk_and_qemu_img_map_agrees(tmp_path, name):
    content = sparse_disk(tmp_path / "raw", 24 * MIB, seed=len(name))
    image = tmp_path / "image"
    driver, *options = KINDS[name].split()
    output_of("qemu-img", "convert", "-f", "raw", "-O", driver, *options, str(tmp_path / "raw"), str(image))
    with open_disk(image) as disk:
        assert assembled(disk) == content
        assert disk.read(0, disk.size) == content
        runs = list(disk.runs())
        split = name.split()[0] == "vmdk" and name.split()[-1] in ("flat", "split")
        assert {run.source.file.path for run in runs if isinstance(run.source, FileSlice)} <= (
            {file.path for file in disk.others} if split else {str(image)}
        )
        mapped = json.loads(output_of("qemu-img", "map", "--output=json", "-f", driver, str(image)))
        packed = [run for run in runs if run.source is None]
        assert bool(packed) == (name.split()[-1] in ("stream", "compressed", "zstd"))
        for entry in mapped:
            if entry["zero"]:
                continue
            for run in disk.runs(entry["start"], entry["length"]):
                # qemu-img knows no offset for what is compressed.
                if "offset" in entry and isinstance(run.source, FileSlice):
                    assert run.source.start - run.offset == entry["offset"] - entry["start"]


def test_qemu_img_reads_every_kind_as_we_do(tmp_path):
    """The disk that our reader gives, and the one that qemu-img writes out of the same file."""
    content = sparse_disk(tmp_path / "raw", 5 * MIB + 512, seed=7)
    for name, words in KINDS.items():
        driver, *options = words.split()
        image = tmp_path / f"{name}.image"
        output_of("qemu-img", "convert", "-f", "raw", "-O", driver, *options, str(tmp_path / "raw"), str(image))
        output_of("qemu-img", "convert", "-f", driver, "-O", "raw", str(image), str(tmp_path / "back"))
        with open_disk(image) as disk:
            assert disk.read(0, disk.size) == (tmp_path / "back").read_bytes()[: disk.size], name
            assert disk.read(0, len(content)) == content, name


@pytest.mark.parametrize("name", ["raw", "qcow2", "vmdk", "vdi", "vhdx", "vmdk split"])
def test_terabytes_of_nothing_cost_nothing(tmp_path, name):
    driver, *options = KINDS[name].split()
    image = tmp_path / "image"
    output_of("qemu-img", "create", "-q", "-f", driver, *options, str(image), "2T" if name == "vmdk split" else "8T")
    before = time.process_time()
    with open_disk(image) as disk:
        runs = list(disk.runs())
        assert len(runs) <= 2  # raw: its first sector is there
        assert sum(run.length for run in runs if isinstance(run.source, Zeros)) >= disk.size - 4096
    assert time.process_time() - before < 5


def test_a_member_of_an_archive_is_a_part_of_the_file(tmp_path):
    content = sparse_disk(tmp_path / "disk.raw", 3 * MIB, seed=3)
    subprocess.run(["tar", "-C", tmp_path, "--format=ustar", "-cf", tmp_path / "image", "disk.raw"], check=True)
    with open_disk(tmp_path / "image") as disk:
        assert assembled(disk) == content
        assert {run.source.file.path for run in disk.runs() if isinstance(run.source, FileSlice)} == {
            str(tmp_path / "image")
        }
    (tmp_path / "image.gz").write_bytes(gzip.compress((tmp_path / "image").read_bytes()))
    with open_disk(tmp_path / "image.gz") as disk:
        assert {run.source for run in disk.runs()} == {None}
        assert assembled(disk) == content


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), max_size=5),
    st.integers(0, 999),
    st.integers(0, 999),
)
def test_patchwork_is_what_it_is_laid_out_of(tmp_path_factory, gaps, one, two):
    data = disks.noise(1000)
    path = tmp_path_factory.mktemp("patchwork") / "file"
    path.write_bytes(data)
    pieces, expected, at = [], bytearray(20_000), 0
    for gap, length in gaps:
        at += gap
        start = min(at, 1000 - length)
        expected[at : at + length] = data[start : start + length]
        pieces.append((at, length, start))
        at += length
    with path.open("rb") as file:
        medium = FdMedium(file.fileno(), InputFile(path))
        patchwork = Patchwork(
            len(expected), [Piece(at, length, medium, start) for at, length, start in pieces if length]
        )
        low, high = min(one, two) * 20, max(one, two) * 20
        assert patchwork.read(low, high - low) == expected[low:high]
        found = b"".join(
            bytes(run.length)
            if run.source is None or isinstance(run.source, Zeros)
            else run.source.read(0, run.length)
            for run in patchwork.runs(low, high - low)
        )
        assert found == expected[low:high]
