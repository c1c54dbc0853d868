"""FATs as others make them: FAT32 of few clusters, without a signature, without a name."""

from __future__ import annotations

import struct

import pytest
from support import hostile
from support.media import Bytes, listed
from support.tools import output_of

from rumpbundle.disk.layout import MIB
from rumpbundle.images.detect import file_system
from rumpbundle.images.filesystems.fat import check


def made(tmp_path, *options: str, size: int = 40 * MIB) -> bytearray:
    image = tmp_path / "fat"
    with open(image, "wb") as file:
        file.truncate(size)
    output_of("mkfs.fat", *options, str(image))
    (tmp_path / "file.txt").write_text("hello")
    output_of("mcopy", "-i", str(image), str(tmp_path / "file.txt"), "::/")
    return bytearray(image.read_bytes())


@pytest.mark.parametrize("per_cluster", ["2", "8", "64"])
def test_fat32_of_few_clusters(tmp_path, per_cluster):
    with open(tmp_path / "fat", "wb") as file:
        file.truncate(40 * MIB)
    output_of("mkfs.fat", "-F", "32", "-s", per_cluster, "-n", "SMALL", str(tmp_path / "fat"))
    image = bytearray((tmp_path / "fat").read_bytes())
    sectors, length = int.from_bytes(image[14:16], "little"), int.from_bytes(image[36:40], "little")
    root = (sectors + 2 * length) * 512
    image[root + 32 : root + 64] = b"FILE    TXT\x20" + bytes(14) + b"\3\0\5\0\0\0"
    at = root + int(per_cluster) * 512  # cluster 3; mtools, which would write it, take such a volume for FAT16
    image[at : at + 5] = b"hello"
    for table in (sectors, sectors + length):
        image[table * 512 + 12 : table * 512 + 16] = b"\xff\xff\xff\x0f"
    volume = file_system(Bytes(bytes(image)))
    assert (volume.kind, volume.label) == ("fat32", "SMALL")
    assert listed(volume) == {"/FILE.TXT": b"hello"}
    assert [each for each in volume.problems() if each.severity == "damage"] == []
    (tmp_path / "fat").write_bytes(image)
    assert "FILE.TXT" in output_of("7zz", "l", str(tmp_path / "fat"))


@pytest.mark.parametrize(("bits", "size"), [("12", 4 * MIB), ("16", 40 * MIB)])
def test_without_signature_or_name(tmp_path, bits, size):
    image = made(tmp_path, "-F", bits, "-n", "LABEL", size=size)
    image[510:512] = bytes(2)
    image[54:62] = b"\x90" * 8
    volume = file_system(Bytes(image))
    assert (volume.kind, volume.label) == (f"fat{bits}", "LABEL")
    image[38] = 0  # no further fields, no label: boot code stands there
    assert file_system(Bytes(image)).label == ""
    assert listed(volume) == {"/file.txt": b"hello"}


def test_what_only_looks_like_one(tmp_path):
    image = made(tmp_path)
    image[510:512] = bytes(2)
    image[54:62] = image[82:90] = bytes(8)
    reserved = int.from_bytes(image[14:16], "little") * 512
    image[reserved + 1] = 0
    assert file_system(Bytes(image)) is None


def test_a_mark_of_what_was_there_before(tmp_path):
    image = made(tmp_path)
    image[65600:65608] = b"_BHRfS_M"
    assert file_system(Bytes(image)).kind == "fat16"


def test_chains_that_all_files_share_are_not_followed_for_each(monkeypatch):
    count = 200_000
    pieces, size = hostile.fat(32, lambda cluster: cluster + 1, 16, count)
    image = bytearray(size)
    for at, data in (pieces | {32 * 512: struct.pack(f"<{count}I", *range(1, count + 1))}).items():
        image[at : at + len(data)] = data
    monkeypatch.setattr(check, "_SHORT", 0)
    found = [problem.what for problem in check.problems(file_system(Bytes(bytes(image))))]
    assert found.count("its files share so many clusters that not all are followed") == 1
    assert sum("belongs to another file, too" in what for what in found) < 8
