"""``rumpbundle ls`` and ``cat`` open what we write in every format, down to the files."""

from __future__ import annotations

import json
import os

import pytest
from support import kernels
from support.tools import output_of

import rumpbundle
from rumpbundle import formats
from rumpbundle.cli import main
from rumpbundle.disk.layout import MIB
from rumpbundle.events import Note
from rumpbundle.images.compression import Unpacked
from rumpbundle.images.detect import open_disk

KERNEL = "/boot/kernel/app.bin"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A directory with app.bin, a data file, and an image of each disk format of them."""
    directory = tmp_path_factory.mktemp("images")
    (directory / "app.bin").write_bytes(kernels.build("multiboot").read_bytes())
    (directory / "data").mkdir()
    (directory / "data" / "hello").write_text("hello, volume\n")
    names = [name for name in formats.names() if name != "xen"]
    vhds = ["vmdk:stream", "vhd:fixed"]
    volume = f"{directory}/data:/data:2M"
    argv = ["build", f"{directory}/app.bin", "-f", ",".join([*names, *vhds]), "-o", str(directory), "-q"]
    assert main([*argv, "--volume", volume, "--cmdline", "x"]) in (0, 2)
    if not (directory / "app.iso").exists():
        assert main(argv) == 0  # a guest that can be given no volume
    return directory


def run(capsysbinary, *argv: str) -> tuple[int, bytes, str]:
    status = main(argv)
    out, err = capsysbinary.readouterr()
    return status, out, err.decode()


def outputs() -> list[str]:
    files = []
    for name in formats.names():
        if name != "xen":
            files += [f"app{formats.find(name).suffix.rstrip('/')}"]
    return [*files, "app.stream.vmdk", "app.fixed.vhd"]


@pytest.mark.parametrize("name", outputs())
def test_every_format_shows_the_same_files(images, capsysbinary, name):
    status, out, err = run(capsysbinary, "ls", str(images / name), "--json")
    assert (status, err) == (0, "")
    listed = json.loads(out)
    assert listed == json.loads(run(capsysbinary, "ls", str(images / "app.iso"), "--json")[1])
    assert {entry["volume"] for entry in listed} >= {"iso9660", "fat"}
    status, out, err = run(capsysbinary, "cat", str(images / name), KERNEL)
    assert (status, err) == (0, "")
    assert out == (images / "app.bin").read_bytes()


def test_a_compressed_disk_is_inflated_no_further_than_needed(images, capsysbinary, monkeypatch):
    """Google's archive holds a whole GiB, at whose end there is only the backup GPT."""
    furthest = []
    read = Unpacked.read
    monkeypatch.setattr(Unpacked, "read", lambda self, at, n: furthest.append(at + n) or read(self, at, n))
    assert run(capsysbinary, "ls", str(images / "app.gce.tar.gz"))[0] == 0
    assert max(furthest) < 32 * MIB


def test_the_backup_gpt_serves_where_the_primary_is_damaged(images, capsysbinary, tmp_path):
    disk = bytearray((images / "app.raw").read_bytes())
    disk[512:1024] = bytes(512)
    (tmp_path / "damaged").write_bytes(disk)
    assert (
        run(capsysbinary, "ls", str(tmp_path / "damaged"))[1] == run(capsysbinary, "ls", str(images / "app.raw"))[1]
    )


@pytest.mark.parametrize("size", [0, 64 * MIB, 100 * MIB + 1])
def test_every_format_honours_the_size(tmp_path, size):
    app = kernels.build("multiboot")
    for name in ("raw", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ova", "iso"):
        for subformat in formats.find(name).variants or ("",):
            path = tmp_path / f"{name}{subformat}"
            rumpbundle.bundle(app, name, output=path, subformat=subformat, size=size)
            with open_disk(path) as disk:
                unit = 2048 if name == "iso" else MIB
                assert disk.size % unit == 0
                assert size <= disk.size < max(size, 4 * MIB) + unit
                assert path.stat().st_blocks * 512 < 20 * MIB, "what is not used costs nothing"


def test_a_path_may_name_its_file_system(images, capsysbinary):
    image = str(images / "app.vmdk")
    loader = run(capsysbinary, "cat", image, "fat:/EFI/BOOT/BOOTX64.EFI")[1]
    assert loader.startswith(b"MZ")
    assert run(capsysbinary, "cat", image, "iso9660:EFI/BOOT/BOOTX64.EFI/")[1] == loader
    lines = run(capsysbinary, "ls", image, "fat:/EFI")[1].decode().splitlines()
    assert [line.split()[-1] for line in lines][:2] == ["fat:/EFI", "fat:/EFI/BOOT"]
    assert lines[0].startswith("d?????????")
    size = os.path.getsize(images / "app.bin")
    assert run(capsysbinary, "ls", image, KERNEL)[1].decode() == f"-rw-r--r-- {size:>12} iso9660:{KERNEL}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("cat", "app.iso", "/nope"), "error: /nope: no such file in the image"),
        (("ls", "app.iso", "fat:/boot"), "error: fat:/boot: no such file in the image"),
        (("cat", "app.iso", "/boot"), "error: /boot: is a directory, no file"),
        (("cat", "app.iso", "/"), "error: /: is a directory, no file"),
        (("ls", "app.bin"), "error: app.bin: is an ELF program or kernel, no disk image"),
        (("cat", "app.bin", "/x"), "error: app.bin: is an ELF program or kernel, no disk image"),
        (("ls", "nope"), "error: nope: no such file"),
        (("ls", "data"), "error: data: is a directory without a disk of ours"),
    ],
)
def test_what_is_not_there_is_one_line(images, capsysbinary, monkeypatch, argv, message):
    monkeypatch.chdir(images)
    status, out, err = run(capsysbinary, *argv)
    assert (status, out) == (2, b"")
    assert err.splitlines()[0] == message


@pytest.mark.parametrize("path", ["/", "", "iso9660:", "iso9660:/"])
def test_the_root_is_a_directory_whatever_stands_first_in_it(images, tmp_path, capsysbinary, path):
    assert main(["volume", str(images / "data"), "-o", str(tmp_path / "v")]) == 0
    capsysbinary.readouterr()
    status, out, err = run(capsysbinary, "cat", str(tmp_path / "v"), path)
    shown = path or "''"
    assert (status, out, err.splitlines()[0]) == (2, b"", f"error: {shown}: is a directory, no file")


@pytest.mark.parametrize("argv", [("ls",), ("cat", "/rumpbundle.json"), ("inspect",)], ids=lambda argv: argv[0])
@pytest.mark.parametrize("name", outputs())
def test_a_cut_image_is_one_line(images, capsysbinary, tmp_path, name, argv):
    path = images / name
    path = path / "volume.raw" if path.is_dir() else path
    cut = tmp_path / path.name
    for thirds in (1, 2):
        with path.open("rb") as file:
            length = path.stat().st_size * thirds // 3
            cut.write_bytes(file.read(min(length, 64 * MIB)))
            os.truncate(cut, length)
        command, *rest = argv
        status, _, err = run(capsysbinary, command, str(cut), *rest)
        assert status in (0, 2)
        assert err.count("error:") == (status == 2)
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("app.raw", "a raw disk image"),
        ("app.iso", "an ISO image"),
        ("app.qcow2", "a qcow2 image"),
        ("app.vmdk", "a VMDK image"),
        ("app.vdi", "a VDI image"),
        ("app.vhdx", "a VHDX image"),
        ("app.fixed.vhd", "a VHD image"),
        ("app.azure.vhd", "a VHD image"),
    ],
)
def test_an_image_given_as_a_kernel_is_called_by_its_name(images, capsysbinary, monkeypatch, name, what):
    monkeypatch.chdir(images)
    status, out, err = run(capsysbinary, "ec2", name, "-o", "nothing")
    assert (status, out) == (2, b"")
    assert err.splitlines() == [f"error: {name}: is {what}", f"hint: rumpbundle convert {name} -f ec2"]


def test_a_file_without_any_permission_has_some(tmp_path, capsysbinary):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/secret").write_text("x")
    (tmp_path / "tree/secret").chmod(0)
    output_of("mke2fs", "-q", "-d", str(tmp_path / "tree"), str(tmp_path / "ext2"), "1M")
    status, out, _ = run(capsysbinary, "ls", str(tmp_path / "ext2"), "/secret")
    assert status == 0
    assert out.startswith(b"---------- ")


def test_python_hears_what_the_command_line_tells(tmp_path, capsysbinary):
    (tmp_path / "top").mkdir()
    (tmp_path / "top/file").write_text("hello\n")
    image, archive = tmp_path / "image", tmp_path / "archive.tar"
    output_of("mke2fs", "-q", "-t", "ext4", "-d", str(tmp_path / "top"), str(image), "8M")
    output_of("debugfs", "-w", "-R", "feature needs_recovery", str(image))
    for name in ("disk.raw", "./disk.raw"):
        output_of("tar", "-rf", str(archive), "-C", str(tmp_path), "--transform", f"s,.*,{name},", "image")
    journal = Note("ext4: its journal has not been replayed: what only the journal holds is not shown")
    second = "the archive holds 2 files called disk.raw: the first is read, and tar -x keeps the last"
    for path, wanted in ((image, [journal]), (archive, [Note(f"archive.tar: {second}"), journal])):
        told = "".join(f"note: {note.text}\n" for note in wanted)
        heard: list[Note] = []
        assert "/file" in [entry.path for _, entry in rumpbundle.ls(path, report=heard.append)]
        assert heard == wanted
        assert run(capsysbinary, "ls", str(path))[2] == told
        assert run(capsysbinary, "ls", "-q", str(path))[2] == ""
        heard.clear()
        assert b"".join(rumpbundle.cat(path, "/file", report=heard.append)) == b"hello\n"
        assert heard == wanted
        assert run(capsysbinary, "cat", str(path), "/file") == (0, b"hello\n", told)
