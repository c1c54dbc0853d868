"""CDs as genisoimage and xorriso make them: deep directories, Joliet, compressed files, boot images of their own."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from support.media import Bytes, expected, listed
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.errors import ImageError
from rumpbundle.images.budget import MAX_UNPACKED
from rumpbundle.images.detect import file_system
from rumpbundle.images.filesystems.iso9660 import zisofs
from rumpbundle.images.filesystems.iso9660.eltorito import boot_entries


@pytest.fixture
def tree(tmp_path):
    deep = tmp_path / "tree" / "/".join("abcdefghijklmn")
    deep.mkdir(parents=True)
    (deep / "deep.txt").write_text("deep")
    (tmp_path / "tree/a/b/beside").write_text("beside")
    (tmp_path / "tree/Meta-Data with blanks").write_text("m")
    return tmp_path / "tree"


def opened(image):
    return file_system(Bytes(image.read_bytes()))


@pytest.mark.parametrize("more", [(), ("-xa",), ("-XA",)])
def test_relocated_directories_are_where_they_came_from(tree, tmp_path, more):
    output_of("genisoimage", "-quiet", "-R", *more, "-o", str(tmp_path / "iso"), str(tree))
    found = listed(opened(tmp_path / "iso"))
    assert found.pop("/rr_moved") == "directory"
    assert found == expected(tree)


def test_joliet_names_where_there_is_no_rock_ridge(tree, tmp_path):
    output_of("genisoimage", "-quiet", "-J", "-D", "-o", str(tmp_path / "iso"), str(tree))
    volume = opened(tmp_path / "iso")
    assert volume.facts == {"names": "Joliet"}
    assert listed(volume) == expected(tree)


def test_plain_names_where_there_is_nothing_else(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/readme").write_text("x")
    output_of("genisoimage", "-quiet", "-o", str(tmp_path / "iso"), str(tmp_path / "t"))
    assert listed(opened(tmp_path / "iso")) == {"/README": b"x"}


def in_blocks_of(size: int, image: bytes) -> bytes:
    """Return *image*, an ISO of one directory with plain names, with logical blocks of *size* bytes."""
    out, factor, primary = bytearray(image), 2048 // size, 16 * 2048

    def scale(*places: int, orders: str = "<>") -> None:
        for at, order in ((at + 4 * index, order) for at in places for index, order in enumerate(orders)):
            struct.pack_into(f"{order}I", out, at, int(struct.unpack_from(f"{order}I", out, at)[0] * factor))

    root, little = (struct.unpack_from("<I", image, primary + at)[0] * 2048 for at in (158, 140))
    scale(primary + 80, primary + 158)
    scale(primary + 140, little + 2, orders="<")
    scale(primary + 148, struct.unpack_from(">I", image, primary + 148)[0] * 2048 + 2, orders=">")
    at = root
    while out[at]:
        scale(at + 2)
        at += out[at]
    struct.pack_into("<H", out, primary + 128, size)
    struct.pack_into(">H", out, primary + 130, size)
    return bytes(out)


@pytest.mark.parametrize("size", [512, 1024, 2048])
def test_logical_blocks_smaller_than_a_sector(tmp_path, size):
    (tmp_path / "t").mkdir()
    for name in ("ONE", "TWO"):
        (tmp_path / "t" / name).write_text(name * 2000)
    output_of("genisoimage", "-quiet", "-o", str(tmp_path / "iso"), str(tmp_path / "t"))
    volume = file_system(Bytes(in_blocks_of(size, (tmp_path / "iso").read_bytes())))
    assert listed(volume) == {"/ONE": b"ONE" * 2000, "/TWO": b"TWO" * 2000}
    assert list(volume.problems()) == []


@pytest.mark.parametrize("size", [0, 256, 4096])
def test_logical_blocks_there_are_none_of(tmp_path, size):
    (tmp_path / "t").mkdir()
    output_of("genisoimage", "-quiet", "-o", str(tmp_path / "iso"), str(tmp_path / "t"))
    data = bytearray((tmp_path / "iso").read_bytes())
    struct.pack_into("<H", data, 16 * 2048 + 128, size)
    with pytest.raises(ImageError, match=f"blocks of {size} bytes, where there are 512, 1024 or 2048"):
        file_system(Bytes(bytes(data)))


@pytest.mark.parametrize("extra", ["", "block_size=128k"])
def test_zisofs(tmp_path, extra):
    text = b"line of text\n" * 20000 + bytes(200_000) + b"end"
    (tmp_path / "text").write_bytes(text)
    (tmp_path / "tiny").write_bytes(b"t")
    output_of(
        *("xorriso", "-outdev", str(tmp_path / "iso"), "-zisofs", f"level=9:{extra}" if extra else "default"),
        *("-map", str(tmp_path / "text"), "/text", "-map", str(tmp_path / "tiny"), "/tiny"),
        *("-set_filter_r", "--zisofs", "/", "--", "-commit"),
    )
    volume = opened(tmp_path / "iso")
    entry = volume.find("/text")
    assert (entry.packed, entry.size) == (True, len(text))
    assert listed(volume) == {"/text": text, "/tiny": b"t"}


def test_zisofs_damaged(tmp_path):
    (tmp_path / "text").write_bytes(b"line of text\n" * 20000)
    output_of(
        *("xorriso", "-outdev", str(tmp_path / "iso"), "-zisofs", "default"),
        *("-map", str(tmp_path / "text"), "/text", "-set_filter_r", "--zisofs", "/", "--", "-commit"),
    )
    data = (tmp_path / "iso").read_bytes()
    at = data.index(bytes.fromhex("37e45396c9dbd607"))
    for place, value in ((0, 0), (8, 1), (13, 40), (20, 255), (100, data[at + 100] ^ 0xFF)):
        damaged = bytearray(data)
        damaged[at + place] = value
        volume = file_system(Bytes(bytes(damaged)))
        with pytest.raises(ImageError, match="/text"):
            b"".join(volume.chunks(volume.find("/text")))
    entry = data.index(b"ZF\x10\x01pz")
    renamed = data[: entry + 4] + b"PZ" + data[entry + 6 :]
    volume = file_system(Bytes(renamed))
    with pytest.raises(ImageError, match="zisofs2"):
        list(volume.chunks(volume.find("/text")))


@pytest.fixture
def compressed(tmp_path):
    """An ISO with a compressed file, one of whose blocks is damaged, and a whole one behind it."""
    (tmp_path / "t").mkdir()
    for name in ("first", "second"):
        (tmp_path / "t" / name).write_text("".join(f"{name} {number}\n" for number in range(20000)))
    output_of(
        *("xorriso", "-outdev", str(tmp_path / "iso"), "-zisofs", "default", "-map", str(tmp_path / "t"), "/"),
        *("-set_filter_r", "--zisofs", "/", "--", "-commit"),
    )
    data = bytearray((tmp_path / "iso").read_bytes())
    data[data.index(bytes.fromhex("37e45396c9dbd607")) + 5000] ^= 1
    return file_system(Bytes(bytes(data)))


def test_damage_in_a_compressed_file_is_among_the_problems(compressed):
    (problem,) = compressed.problems()
    assert (problem.where, problem.severity) == ("/first", "damage")
    assert problem.what.startswith("a compressed block ")


def test_compressed_files_are_unpacked_up_to_a_bound_and_that_is_said(compressed, monkeypatch):
    read, chunk = [], bytes(1 << 24)

    def much(medium, entry):
        for _ in range(MAX_UNPACKED // len(chunk) + 8):
            read.append(entry.path)
            yield chunk

    monkeypatch.setattr(zisofs, "unpacked", much)
    (problem,) = compressed.problems()
    assert problem.severity == "remark"
    assert "compressed files hold more than the 256 MiB that are unpacked" in problem.what
    assert read == ["/first"] * (MAX_UNPACKED // len(chunk) + 1)
    assert sum(fund.spent for fund in compressed.funds) > 4  # what it costs a disk that has many such


def test_a_fat_that_only_the_boot_catalog_names(tmp_path, capsysbinary):
    (tmp_path / "t").mkdir()
    with open(tmp_path / "t/efi.img", "wb") as file:
        file.truncate(2 << 20)
    output_of("mkfs.fat", str(tmp_path / "t/efi.img"))
    (tmp_path / "loader").write_bytes(b"MZ loader")
    output_of("mcopy", "-i", str(tmp_path / "t/efi.img"), str(tmp_path / "loader"), "::/BOOTX64.EFI")
    output_of("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(tmp_path / "iso"), "-e", "efi.img",
              "-no-emul-boot", str(tmp_path / "t"))  # fmt: skip
    assert main(["cat", str(tmp_path / "iso"), "fat:/BOOTX64.EFI"]) == 0
    assert capsysbinary.readouterr().out == b"MZ loader"
    assert main(["inspect", str(tmp_path / "iso")]) == 0
    assert b"boot entry (uefi)" in capsysbinary.readouterr().out


def test_a_boot_entry_with_criteria_hides_none_behind_it(tmp_path):
    """El Torito 1.0, figure 6: an entry may go on in any number of others, which the section does not count."""
    record = bytes(71) + struct.pack("<I", 1)
    validation = struct.pack("<BB2x24xH2s", 1, 0, 0, b"\x55\xaa")
    summed = -sum(struct.unpack("<16H", validation)) & 0xFFFF
    validation = validation[:28] + struct.pack("<H", summed) + validation[30:]
    entries = [
        struct.pack("<BBHBxHI20x", 0x88, media, 0, 0, 4, block) for block, media in ((5, 0), (6, 0x20), (7, 0))
    ]
    header = struct.pack("<BBH28x", 0x91, 0xEF, 2)
    extension = struct.pack("<BB30x", 0x44, 0)
    catalog = validation + entries[0] + header + entries[1] + 2 * extension + entries[2]
    found = boot_entries(Bytes(bytes(2048) + catalog.ljust(2048, b"\0")), record)
    assert [(entry.platform, entry.offset // 2048, entry.emulation) for entry in found] == [
        ("bios", 5, 0), ("uefi", 6, 0), ("uefi", 7, 0)]  # fmt: skip


def test_udf_beside_it_is_told(tmp_path, capsys):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/file").write_text("x")
    output_of("genisoimage", "-quiet", "-R", "-udf", "-o", str(tmp_path / "iso"), str(tmp_path / "t"))
    assert main(["ls", str(tmp_path / "iso")]) == 0
    out, err = capsys.readouterr()
    assert "/file" in out
    assert re.fullmatch("note: iso9660: a UDF file system shares its blocks: .*\n", err)


def appended(tmp_path: Path, gap: int) -> Path:
    """Return an image of two sessions, the second *gap* sectors behind the first; it adds ``/later``."""
    first, second, added = tmp_path / "first", tmp_path / "second", tmp_path / "added"
    added.mkdir()
    (added / "later").write_text("y")
    start = first.stat().st_size // 2048 + gap
    options = ["-quiet", "-R", "-M", str(first), "-C", f"0,{start}"]
    output_of("genisoimage", *options, "-o", str(second), str(added))
    first.write_bytes(first.read_bytes() + bytes(2048 * gap) + second.read_bytes())
    return first


@pytest.mark.parametrize("gap", [0, 3, 31])
def test_a_later_session_is_told(tmp_path, capsys, gap):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/file").write_text("x")
    output_of("genisoimage", "-quiet", "-R", "-o", str(tmp_path / "first"), str(tmp_path / "t"))
    start = (tmp_path / "first").stat().st_size + 2048 * gap
    iso = appended(tmp_path, gap)
    told = f"another session begins at byte {start}: the first is shown, and what only a later one names is not"
    assert main(["ls", str(iso)]) == 0
    out, err = capsys.readouterr()
    assert "/file" in out
    assert "/later" not in out
    assert err == f"note: iso9660: {told}\n"
    assert main(["verify", str(iso)]) == 0
    assert told in capsys.readouterr().out


def test_isoinfo_sees_the_same_names(tree, tmp_path):
    output_of("genisoimage", "-quiet", "-R", "-J", "-o", str(tmp_path / "iso"), str(tree))
    said = output_of("isoinfo", "-R", "-f", "-i", str(tmp_path / "iso")).splitlines()
    ours = set(listed(opened(tmp_path / "iso")))
    assert {line for line in said if "rr_moved" not in line} <= ours
