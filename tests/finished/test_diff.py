"""diff: the same disk in any container, or what differs, from the top."""

from __future__ import annotations

import json

import pytest
from support import kernels
from support.media import in_sectors_of
from support.tools import output_of

import rumpbundle
from rumpbundle.cli import main


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    top = tmp_path_factory.mktemp("diff")
    app = top / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    (top / "module").write_bytes(b"m" * 5000)
    common = [str(app), "-q", "--module", str(top / "module")]
    formats = ["-f", "raw,vmdk:stream,qcow2,vdi", "-o", str(top / "one")]
    assert main(["build", *common, *formats, "--cmdline", "one"]) == 0
    (top / "module").write_bytes(b"n" * 5000)
    assert main(["build", *common, *formats[:-1], str(top / "two"), "--cmdline", "two"]) == 0
    return top


def test_one_disk_in_two_containers_is_the_same(built, capsys):
    capsys.readouterr()
    for name in ("app.stream.vmdk", "app.qcow2", "app.vdi"):
        assert main(["diff", str(built / "one" / "app.raw"), str(built / "one" / name)]) == 0
    assert capsys.readouterr().out == ""
    assert rumpbundle.diff(built / "one" / "app.raw", built / "one" / "app.vdi") == ()


def test_what_differs_is_told_from_the_top(built, capsys):
    capsys.readouterr()
    assert main(["diff", str(built / "one" / "app.vdi"), str(built / "two" / "app.stream.vmdk"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["same"] is False
    order = ["manifest", "file", "partition", "size", "bytes"]
    kinds = [each["kind"] for each in told["differences"]]
    assert kinds == sorted(kinds, key=order.index)
    assert set(kinds) == {"manifest", "file", "partition", "bytes"}
    words = {each["where"]: each["what"] for each in told["differences"]}
    assert words["command line"] == "'app.bin one', 'app.bin two'"
    assert words["module module"].startswith("content ")
    assert words["iso9660, whole disk: /boot/modules/0/module"] == "another content"
    assert "iso9660, whole disk: /boot/kernel/app.bin" not in words
    assert "backup GPT" in words


@pytest.mark.parametrize("sector", [512, 4096])
def test_foreign_disks_differ_in_their_tables(tmp_path, capsys, sector):
    for name in ("a", "b"):
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(4 << 20)
        output_of(
            "sgdisk", "-n", "1:2048:+1M", "-u", "1:1", "-U", f"{name * 8}-0000-0000-0000-000000000000", str(image)
        )
        image.write_bytes(in_sectors_of(sector, image.read_bytes()))
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    out = capsys.readouterr().out
    assert "GPT: id 'aaaaaaaa-0000-0000-0000-000000000000', 'bbbbbbbb-0000-0000-0000-000000000000'\n" in out
    assert f"MBR and GPT at byte {sector}: " in out
    assert "backup GPT at byte" in out
    assert "free space" not in out


def test_a_foreign_disk_differs_in_a_file(tmp_path, capsys):
    for name, text in (("a", "one"), ("b", "two")):
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(1 << 20)
        output_of("mkfs.fat", "-i", "12345678", "--invariant", str(image))
        (tmp_path / "file").write_text(text * 300)
        output_of("mcopy", "-m", "-i", str(image), str(tmp_path / "file"), "::/file")
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    out = capsys.readouterr().out
    assert "fat, whole disk: /file: another content\n" in out or "/FILE: another content\n" in out
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "file")]) == 2


def test_what_differs_in_a_file_system_that_is_not_read_is_not_called_free(tmp_path, capsys):
    for name, magic, data in (("a", b"XFSB", b"x"), ("b", b"XFSB", b"y"), ("c", b"bluestore block device", b"x")):
        disk = bytearray(2 << 20)
        disk[: len(magic)] = magic
        disk[1 << 20 : (1 << 20) + 1] = data
        (tmp_path / name).write_bytes(disk)
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    out = capsys.readouterr().out
    assert out == "xfs, whole disk at byte 1048576: 512 bytes differ, in whole sectors, up to byte 1049088\n"
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "c")]) == 1
    out = capsys.readouterr().out
    assert "xfs, whole disk at byte 0: this file system is only in the first\n" in out
    assert "bluestore, whole disk at byte 0: this file system is only in the second\n" in out


def test_of_a_file_system_that_cannot_be_listed_no_file_is_missing(tmp_path, capsys):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    whole, damaged = tmp_path / "a.iso", tmp_path / "b.iso"
    output_of("genisoimage", "-quiet", "-R", "-o", str(whole), str(tmp_path / "tree"))
    with_root = bytearray(whole.read_bytes())
    with_root[0x8000 + 156 + 10 : 0x8000 + 156 + 18] = b"\xff\xff\xff\x7f\x7f\xff\xff\xff"  # the root's length
    damaged.write_bytes(with_root)
    assert main(["diff", str(whole), str(damaged)]) == 1
    out = capsys.readouterr().out
    assert "not all files are compared" in out
    assert "only in" not in out
