"""Long names of FAT whose parts are in odd order, missing, or another file's; 7-Zip and mtools see the same."""

from __future__ import annotations

import pytest
from support.media import Bytes, listed
from support.tools import output_of

from rumpbundle.images.detect import file_system
from rumpbundle.images.filesystems.fat.names import LongName, short_name

NAME = "a name so long that it takes four entries.txt"


@pytest.fixture
def image(tmp_path):
    with open(tmp_path / "fat", "wb") as file:
        file.truncate(1 << 20)
    output_of("mkfs.fat", str(tmp_path / "fat"))
    (tmp_path / NAME).write_text("x")
    output_of("mcopy", "-i", str(tmp_path / "fat"), str(tmp_path / NAME), "::/")
    return bytearray((tmp_path / "fat").read_bytes())


def parts(image) -> tuple[int, list[bytes]]:
    at = next(at for at in range(0, len(image), 32) if image[at] == 0x44 and image[at + 11] == 0x0F)
    return at, [bytes(image[at + 32 * n : at + 32 * n + 32]) for n in range(5)]


def names(image) -> list[str]:
    return list(listed(file_system(Bytes(bytes(image)))))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_parts_in_any_order(image, order):
    at, found = parts(image)
    image[at : at + 128] = b"".join(found[n] for n in order)
    assert names(image) == [f"/{NAME}"]


def test_a_part_missing(image):
    at, found = parts(image)
    image[at : at + 160] = found[0] + found[2] + found[3] + found[4] + bytes(32)
    assert names(image) == ["/ANAMES~1.TXT"]


def test_parts_of_another_file(image):
    at, found = parts(image)
    other = b"OTHER   TXT" + found[4][11:]
    image[at : at + 192] = b"".join(found[:4]) + other + found[4]
    assert names(image) == ["/OTHER.TXT", "/ANAMES~1.TXT"]


def test_parts_of_a_deleted_file(image):
    at, found = parts(image)
    image[at : at + 192] = b"".join(found[:4]) + b"\xe5" + found[4][1:] + found[4]
    assert names(image) == ["/ANAMES~1.TXT"]


def test_seven_zip_sees_the_same(image, tmp_path):
    (tmp_path / "image.img").write_bytes(image)
    assert NAME in output_of("7zz", "l", "-ba", "-tFAT", str(tmp_path / "image.img"))
    assert names(image) == [f"/{NAME}"]


def test_short_names():
    assert short_name(b"\x05BC     X  " + bytes(21)) == "σBC.X"
    assert short_name(b"README  TXT\x20\x18" + bytes(19)) == "readme.txt"
    assert LongName().of(b"README  TXT" + bytes(21)) == ""
