"""verify: a whole image is whole, and whatever is changed in one is told with its place."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from support import kernels, synthetic

import rumpbundle
from rumpbundle.cli import main
from rumpbundle.cli import verify as verify_command
from rumpbundle.errors import HostError
from rumpbundle.images.detect import NoImageError
from rumpbundle.images.records.vmdk import SparseHeader


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A raw image with a module, a directory of data and a volume."""
    top = tmp_path_factory.mktemp("verify")
    app = top / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    (top / "module").write_bytes(b"module " * 30_000)
    argv = ["raw", str(app), "-q", "-o", str(top / "app.raw"), "--module", f"{top / 'module'}:m"]
    assert main([*argv, "--cmdline", "one"]) == 0
    return top / "app.raw"


def changed(image: Path, tmp_path: Path, at: int, data: bytes) -> Path:
    content = bytearray(image.read_bytes())
    assert content[at : at + len(data)] != data
    content[at : at + len(data)] = data
    path = tmp_path / image.name
    path.write_bytes(content)
    return path


def place(image: Path, path: str) -> int:
    """Return where the file *path* begins on the disk of *image*."""
    from rumpbundle.images.detect import file_system, open_disk

    with open_disk(image) as disk:
        entry = file_system(disk).find(path)
        return entry.spans[0].offset


def test_a_whole_image_is_whole(raw, capsys):
    capsys.readouterr()
    assert main(["verify", str(raw)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{raw}: whole (raw, ")
    assert not err
    found = rumpbundle.verify(raw)
    assert found.compared
    assert not found.problems
    assert len(found.digest) == 64


def test_all_that_is_changed_is_told_with_its_place(raw, tmp_path, capsys):
    kernel, module = place(raw, "/boot/kernel/app.bin"), place(raw, "/boot/modules/0/module")
    image = changed(raw, tmp_path, kernel + 5000, b"X")
    image = changed(image, tmp_path, module + 7, b"Y")
    image = changed(image, tmp_path, 40, b"Z")
    end = image.stat().st_size
    image = changed(image, tmp_path, end - 512, b"EFI BART")
    image = changed(image, tmp_path, end - 40_000, b"left")
    capsys.readouterr()
    assert main(["verify", str(image), "--json"]) == 5
    out, err = capsys.readouterr()
    assert err == f"error: {image}: is damaged: {err.split()[-2]} findings\n"
    (told,) = json.loads(out)["images"]
    assert told["state"] == "damaged"
    by_place = {problem["offset"]: problem for problem in told["problems"]}
    assert by_place[kernel]["where"] == "/boot/kernel/app.bin"
    assert by_place[module]["where"] == "/boot/modules/0/module"
    assert by_place[None]["where"] == "boot code in the first sector"
    assert "backup GPT" in by_place[end - 512]["where"] + by_place[end - 512]["what"]
    assert by_place[end - 40_000]["where"] == "free space"
    assert all(problem["consequence"] for problem in told["problems"])


def test_an_iso_is_called_one_by_every_command(raw, tmp_path, capsys):
    """Our raw disk and our ISO are the same kind of bytes: the name tells which of them the user means."""
    from support.tools import output_of

    for name in ("app.iso", "APP.ISO"):
        (tmp_path / name).write_bytes(raw.read_bytes())
        assert rumpbundle.verify(tmp_path / name).container == "iso"
        assert rumpbundle.inspect(tmp_path / name).container == "iso"
    (tmp_path / "app.iso.gz").write_bytes(gzip.compress(raw.read_bytes()))
    assert rumpbundle.inspect(tmp_path / "app.iso.gz").container == "iso"
    (tmp_path / "app.iso.raw").write_bytes(raw.read_bytes())
    assert rumpbundle.verify(tmp_path / "app.iso.raw").container == "raw"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("hello")
    output_of("genisoimage", "-quiet", "-R", "-o", str(tmp_path / "plain.bin"), str(tmp_path / "tree"))
    assert rumpbundle.verify(tmp_path / "plain.bin").container == "iso", "it is nothing else"
    with (tmp_path / "lie.iso").open("wb") as file:
        file.truncate(4 << 20)
        file.seek(510)
        file.write(b"\x55\xaa")
    output_of("sfdisk", "-q", str(tmp_path / "lie.iso"), input="2048,,83\n")
    assert rumpbundle.verify(tmp_path / "lie.iso").container == "raw", "there is no ISO 9660 on it"


@pytest.mark.parametrize("name", ["raw", "iso"])
def test_a_sound_foreign_image_has_nothing_to_compare_with(name, tmp_path, capsys):
    from support.tools import output_of

    image = tmp_path / f"foreign.{name}"
    if name == "iso":
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "file").write_text("hello")
        output_of("xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(image), str(tmp_path / "tree"))
    else:
        with image.open("wb") as file:
            file.truncate(4 << 20)
        output_of("mkfs.fat", str(image))
    assert main(["verify", str(image)]) == 0
    out, _ = capsys.readouterr()
    assert f": whole ({name}, " in out
    assert "nothing to compare with: it was not made by rumpbundle" in out
    assert not rumpbundle.verify(image).compared


def test_a_date_that_no_file_system_can_say_is_damage(raw, tmp_path, capsys):
    """One flipped bit of the manifest: 1973."""
    at = raw.read_bytes().index(b'"epoch": 3') + 9
    assert main(["verify", str(changed(raw, tmp_path, at, b"1"))]) == 5
    assert "epoch" in capsys.readouterr().out


@pytest.mark.parametrize(
    "how",
    ["convert -O vpc", "convert -O vpc -o subformat=fixed", "resize 5M", "convert -c -O qcow2 -o cluster_size=4k"],
)
def test_what_another_program_makes_of_a_disk_of_ours_is_whole(raw, tmp_path, capsys, how):
    """A VHD of qemu-img is as large as heads and cylinders are; what is compressed begins between clusters."""
    from support.tools import output_of

    command, *options = how.split()
    made = tmp_path / "made"
    if command == "resize":
        made.write_bytes(raw.read_bytes())
        output_of("qemu-img", "resize", "-q", "-f", "raw", str(made), *options)
    else:
        output_of("qemu-img", "convert", "-f", "raw", *options, str(raw), str(made))
    argv = [str(made), "--rebuild", str(raw.parent / "app.bin"), "--cmdline", "one"]
    assert main(["verify", *argv, "--module", f"{raw.parent / 'module'}:m"]) == 0
    told = [line.split(": ", 2)[2] for line in capsys.readouterr().out.splitlines() if "remark" in line]
    grown = "the backup GPT is not at the end of the disk; the disk was made larger; sgdisk -e moves it"
    assert told == ([] if "-c" in options else [grown])


def test_words_behind_two_dashes_are_the_programs_when_it_is_bundled_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(synthetic.rumprun())
    assert main(["raw", "app.bin", "-q", "--", "-p", "80"]) == 0
    assert main(["verify", "app.raw", "--rebuild", "app.bin", "-q", "--", "-p", "80"]) == 0
    assert main(["verify", "app.raw", "--rebuild=app.bin", "-q", "--", "-p", "81"]) == 5
    Path("app.raw").rename("-app.raw")
    assert main(["verify", "-q", "--", "-app.raw"]) == 0


def test_what_stands_behind_the_end_of_a_disk_made_larger_is_damage(raw, tmp_path, capsys):
    image = tmp_path / "image"
    image.write_bytes(raw.read_bytes() + bytes(100_000))
    assert main(["verify", str(image)]) == 0
    image.write_bytes(image.read_bytes() + b"x")
    assert main(["verify", str(image)]) == 5
    assert "is not all zeros; nothing reads it, but it was not bundled" in capsys.readouterr().out


def deep(top: Path) -> Path:
    """A tree deeper than an ISO 9660 may be, so that its makers move a part of it."""
    for number in range(3):
        (top / f"{number}/a/b/c/d/e/f/g/h/i").mkdir(parents=True)
        (top / f"{number}/a/b/c/d/e/f/g/h/i/file").write_text("deep" * 1000)
    return top


@pytest.mark.parametrize(
    "options", ["-R", "-J", "-l", "-U", "-R -J -udf", "-apple -R", "-R -D", "zisofs 1", "zisofs 2"]
)
def test_sound_isos_of_others_are_whole_whatever_pycdlib_knows(options, tmp_path, capsys):
    from support.tools import output_of

    image, top = tmp_path / "image.iso", deep(tmp_path / "top")
    if options.startswith("zisofs"):
        version = ("-zisofs", f"version_2={'on' if options.endswith('2') else 'off'}")
        argv = ["-outdev", str(image), *version, "-map", str(top), "/", "-set_filter_r", "--zisofs", "/", "--"]
        output_of("xorriso", *argv, "-commit")
    else:
        output_of("genisoimage", "-quiet", *options.split(), "-o", str(image), str(top))
    status = main(["verify", str(image)])
    out, err = capsys.readouterr()
    assert status == 0, out + err
    breaks = "pycdlib cannot read the tree: it breaks at something it does not know; other readers may fail" in out
    assert breaks == (options == "-apple -R")  # an AttributeError of pycdlib's


def test_a_file_system_with_unknown_features_is_not_called_damaged(tmp_path, capsys):
    from support.tools import output_of

    image = tmp_path / "journal"
    output_of("mke2fs", "-q", "-O", "journal_dev", str(image), "8M")
    assert main(["verify", str(image)]) == 0
    assert "remark: " in (told := capsys.readouterr().out)
    assert "features that are not read: journal_dev; nothing in it was looked at" in told


def test_an_archive_without_a_disk_is_no_image(tmp_path, capsys):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(__file__, "file.py")
    assert main(["verify", str(tmp_path / "a.tar")]) == 2
    assert "the archive holds no disk" in capsys.readouterr().err


def test_what_is_no_image_is_an_error_and_the_others_are_looked_at(raw, tmp_path, capsys):
    (tmp_path / "noise").write_bytes(bytes(range(1, 256)) * 100)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "noise")]) == 2
    _, err = capsys.readouterr()
    assert err.startswith(f"error: {tmp_path / 'noise'}: is no disk image")
    assert main(["verify", str(tmp_path / "noise"), str(raw)]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{raw}: whole")
    with pytest.raises(NoImageError):
        rumpbundle.verify(tmp_path / "noise")


def test_a_disk_that_was_cut_off_is_damaged(raw, tmp_path):
    image = tmp_path / "app.raw"
    image.write_bytes(raw.read_bytes()[:-4096])
    found = rumpbundle.verify(image)
    assert any("backup GPT" in problem.what for problem in found.damage)


ALL = "iso,raw,vdi,qcow2,vhd,vhd:fixed,vhdx,vmdk,vmdk:stream,ova,ec2,gce,azure,xen"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A directory with one bundle in every format, and the list of checksums."""
    top = tmp_path_factory.mktemp("built")
    app = top / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    assert main(["build", str(app), "-q", "-f", ALL, "-o", str(top / "out"), "--checksums", "--cmdline", "one"]) == 0
    return top / "out"


def test_every_format_and_kit_is_whole(built, capsys):
    images = [path for path in sorted(built.iterdir()) if path.suffix != ".json"]
    assert len(images) == 15
    capsys.readouterr()
    assert main(["verify", "-q", *map(str, images)]) == 0
    out, err = capsys.readouterr()
    assert [line.partition(": ")[2].partition(" ")[0] for line in out.splitlines()] == ["whole"] * 15
    assert not err


@pytest.mark.parametrize("field", ["descriptor_offset", "descriptor_size", "capacity", "gd_offset", "overhead"])
@pytest.mark.parametrize("name", ["app.vmdk", "app.stream.vmdk"])
def test_a_vmdk_may_claim_any_sizes(built, tmp_path, name, field):
    image = tmp_path / name
    shutil.copyfile(built / name, image)
    data = image.read_bytes()
    changed = SparseHeader.unpack(data).replace(**{field: 1 << 62})
    image.write_bytes(changed.pack() + data[512:])
    assert rumpbundle.verify(image).state == "damaged"


@pytest.mark.parametrize(
    ("name", "at", "new", "said"),
    [
        ("app.qcow2", 99, b"\x1f", "reference counts of 2^31 bits"),
        ("app.qcow2", 31, b"\x80", "bytes, which are no whole sectors"),
        ("app.qcow2", 36, b"\0\0\0\x40", "the header has values that nothing here writes"),
        ("app.qcow2", 104, b"\1", "a type of compression without the mark for it"),
        ("app.qcow2", 105, b"\1", "the header has values that nothing here writes"),
        ("app.qcow2", 113, b"\1", "the header has values that nothing here writes"),
        ("app.qcow2", 116, b"\x7f", "a header extension of 2130706816 bytes is longer than the header's cluster"),
        ("app.qcow2", 119, b"\x90", "the header has values that nothing here writes"),
        ("app.qcow2", 327632, b"\xff" * 8, "where no cluster of the file begins"),
        ("app.vhdx", 3145752, b"\1", "the metadata is 0100000000000000, expected 0000000000000000"),
        ("app.vmdk", 528, b"\0", "the descriptor has no CID and no createType"),
        ("app.stream.vmdk", 528, b"\0", "the descriptor has no CID and no createType"),
    ],
)
def test_what_others_refuse_or_nobody_writes_is_damage(built, tmp_path, name, at, new, said):
    image = tmp_path / name
    data = (built / name).read_bytes()
    assert data[at : at + len(new)] != new
    image.write_bytes(data[:at] + new + data[at + len(new) :])
    assert any(said in problem.what for problem in rumpbundle.verify(image, opinions=False).damage)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vhdx", "64M"),
        ("vhdx", "5G"),
        ("vhdx", "200G"),
        ("vhd", "100G"),
        ("vdi", "1T"),
        ("qcow2", "1T"),
        ("vmdk", "3T"),
    ],
)
def test_one_with_much_that_is_empty_is_whole(built, tmp_path, name, size):
    """Its tables have entries of every kind, and the backup GPT is behind all that is compared one by one."""
    image = tmp_path / f"app.{name}"
    assert main([name, str(built.parent / "app.bin"), "-o", str(image), "--size", size, "--no-sync", "-q"]) == 0
    found = rumpbundle.verify(image)
    assert (found.problems, found.compared) == ((), True)


@pytest.mark.parametrize(
    ("name", "beside", "old", "new", "said"),
    [
        ("app.gce.tar.gz", "app.gce.json", b"from bundle ", b"from bundle 0000", "name"),
        ("app.azure.vhd", "app.azure.json", b'"uploadSizeBytes": 2', b'"uploadSizeBytes": 3', "it announces 3"),
        ("app.azure.vhd", "app.azure.json", b'"rumpbundle": "', b'"rumpbundle": "0000', "bundle"),
        ("app.xen", "app.xen/xl.cfg", b"# Bundle ", b"# Bundle 0000", "bundle"),
        ("app.ec2", "app.ec2/manifest.json", b'"Checksum": "', b'"Checksum": "AAAA', "the checksum of block 0"),
        ("app.ec2", "app.ec2/manifest.json", b'"DataLength": 5', b'"DataLength": 4', "the request for block 0"),
        ("app.ec2", "app.ec2/manifest.json", b'"LINEAR"', b'"LINEAS"', "completes the snapshot in another way"),
        ("app.ec2", "app.ec2/manifest.json", b'"size": 1073741824', b'"size": 1073741825', "it says 1073741825"),
        ("app.ec2", "app.ec2/manifest.json", b'"digest": "', b'"digest": "0000', "they do not belong together"),
    ],
)
def test_a_kit_whose_request_is_not_for_its_disk(built, tmp_path, name, beside, old, new, said):
    import shutil

    for path in {built / name, built / beside.partition("/")[0]}:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / path.name)
    text = (tmp_path / beside).read_bytes()
    assert old in text
    end = text.index(old) + len(old)
    changed = text.replace(old, new, 1) if len(new) == len(old) else text[:end] + new[len(old) :] + text[end + 4 :]
    (tmp_path / beside).write_bytes(changed)
    damage = rumpbundle.verify(tmp_path / name).damage
    assert damage
    assert any(said in problem.what or said in problem.consequence for problem in damage)


def test_what_no_program_is_needed_for_is_whole_until_it_is_changed(tmp_path):
    app = tmp_path / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    words = ["build", str(app), "-q", "-f", "iso,vdi,vhd:fixed,azure,ec2", "-o", str(tmp_path / "out")]
    assert main([*words, "--cmdline", "one"]) == 0
    images = [path for path in sorted((tmp_path / "out").iterdir()) if path.suffix != ".json"]
    assert len(images) == 5
    for image in images:
        assert rumpbundle.verify(image).damage == ()
        if image.is_dir():
            continue  # to hash its gigabyte once is enough
        with image.open("r+b") as file:
            file.seek(file.read(2 << 20).index(app.read_bytes()))
            file.write(b"another kernel")
        assert rumpbundle.verify(image).damage, image


def test_a_list_of_checksums(built, tmp_path, capsys):
    import shutil

    assert rumpbundle.verify(built / "SHA256SUMS").state == "whole"
    shutil.copy(built / "SHA256SUMS", tmp_path / "SHA256SUMS")
    shutil.copy(built / "app.raw", tmp_path / "app.iso")
    found = rumpbundle.verify(tmp_path / "SHA256SUMS")
    by_name = {problem.where: problem.what for problem in found.damage}
    assert "its SHA-256 is" in by_name["app.iso"]
    assert "no such file" in by_name["app.raw"].lower()
    assert any("SHA-256" in problem.what for problem in rumpbundle.verify(tmp_path / "app.iso").damage)
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  ../secret\n")
    assert "not in the directory" in rumpbundle.verify(tmp_path / "SHA256SUMS").damage[0].what


def test_what_is_no_checksum_in_a_list_beside_an_image_is_not_its_fault(tmp_path):
    from support.tools import output_of

    with open(tmp_path / "disk.img", "wb") as file:
        file.truncate(4 << 20)
    output_of("mkfs.fat", str(tmp_path / "disk.img"))
    digest = hashlib.sha256((tmp_path / "disk.img").read_bytes()).hexdigest()
    sums = tmp_path / "SHA256SUMS"
    sums.write_text(f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# disk.img\n{digest} *disk.img\n")
    assert rumpbundle.verify(tmp_path / "disk.img").state == "whole"
    sums.write_text(sums.read_text().replace(digest, "0" * 64))
    assert rumpbundle.verify(tmp_path / "disk.img").state == "damaged"
    sums.write_text(f"# as sha256sum skips them\n{digest} *disk.img\n")
    assert rumpbundle.verify(sums).state == "whole"


def test_a_list_of_checksums_says_how_many_files_it_names(tmp_path, capsys):
    one, two = (f"{hashlib.sha256(text).hexdigest()}  {text.decode()}\n" for text in (b"one", b"two"))
    sums = tmp_path / "SHA256SUMS"
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    for text, status, said in (
        (one, 0, "whole (it names 1 file, which is as it says)"),
        (one + two, 0, "whole (it names 2 files, all are as it says)"),
        (one + two.replace("  two", "  three"), 5, "damaged (it names 2 files, 1 is not as it says)"),
        ("", 5, "damaged (a list of checksums)\n  the list: it names no file; "),
    ):
        sums.write_text(text)
        assert main(["verify", str(sums)]) == status
        assert capsys.readouterr().out.startswith(f"{sums}: {said}")
    sums.write_text(one + two)
    assert main(["verify", str(sums), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"][0]["files"] == 2


def test_bundled_again_it_is_the_same_or_the_first_difference_is_named(built, capsys):
    app = str(built.parent / "app.bin")
    for name in ("app.raw", "app.stream.vmdk", "app.azure.vhd"):
        assert main(["verify", "-q", str(built / name), "--rebuild", app, "--cmdline", "one"]) == 0
    capsys.readouterr()
    assert main(["verify", "-q", str(built / "app.raw"), "--rebuild", app, "--cmdline", "two"]) == 5
    out, err = capsys.readouterr()
    assert ": different (raw" in out
    assert (
        "command line: the image has the first, bundled again it is the second: 'app.bin one', 'app.bin two'" in out
    )
    assert "protective MBR and GPT at byte 440: the first difference: " in out
    assert "is different: " in err
    assert main(["verify", str(built / "app.raw"), "--cmdline", "two"]) == 2
    assert "--cmdline: says how to bundle again" in capsys.readouterr().err


def test_what_other_readers_say_is_told(built, tmp_path, monkeypatch):
    import pycdlib

    def broken(self, file):
        raise pycdlib.pycdlibexception.PyCdlibInvalidISO("no tree")

    monkeypatch.setattr(pycdlib.PyCdlib, "open_fp", broken)
    found = rumpbundle.verify(built / "app.iso")
    assert found.damage[0].what == "pycdlib cannot read the tree: no tree"
    monkeypatch.undo()
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "qemu-img").write_text("#!/bin/sh\necho 'ERROR cluster 3' >&2\nexit 2\n")
    (bin / "qemu-img").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:/usr/bin:/bin")
    assert "ERROR cluster 3" in rumpbundle.verify(built / "app.qcow2").damage[0].what


def test_a_directory_record_that_is_cut_off_is_no_crash():
    from rumpbundle.images.filesystems.iso9660.check import _records

    assert list(_records(bytes(2040) + b"\x22" + bytes(7))) == []


def test_what_cannot_be_bundled_again_is_not_called_the_same(raw, tmp_path, capsys):
    app = str(raw.parent / "app.bin")
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  x\n")
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "xl.cfg").write_text("kernel = 'kernel'\n")
    for path, said in ((tmp_path / "SHA256SUMS", "a list of checksums"), (kit, "there is no manifest")):
        assert main(["verify", str(path), "--rebuild", app]) == 2
        assert f"error: --rebuild: {said}" in capsys.readouterr().err
    torn = changed(raw, tmp_path, place(raw, "/rumpbundle.json") + 5, b"XX")
    assert main(["verify", str(torn), "--rebuild", app]) == 5
    assert "it was not bundled again" in capsys.readouterr().out


def test_what_this_machine_lacks_for_one_image_hides_no_other(raw, monkeypatch, capfd):
    real = verify_command.verify

    def lacking(path, **more):
        if path.endswith("other.iso"):
            raise HostError("there is no memory left", where=path)
        return real(path, **more)

    monkeypatch.setattr(verify_command, "verify", lacking)
    assert main(["verify", "other.iso", str(raw)]) == 3
    out, err = capfd.readouterr()
    assert f"{raw}: whole" in out
    assert err == "error: other.iso: there is no memory left\n"


@pytest.mark.parametrize("name", ["SHA256SUMS", "cfg.json", "listed"])
def test_a_fifo_where_a_file_should_be_ends_the_wait(tmp_path, capsys, name):
    kit = tmp_path / "app.xen"
    assert main(["xen", str(kernels.build("xen-pvh")), "-q", "-o", str(kit)]) == 0
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  app.xen/listed\n")
    path = tmp_path / name if name == "SHA256SUMS" else kit / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    status = main(["verify", str(tmp_path / "SHA256SUMS"), str(kit)])
    out, err = capsys.readouterr()
    assert status in (2, 5)
    assert "is a FIFO" in out + err


def test_json_says_what_the_text_does(raw, tmp_path, capsys):
    assert main(["verify", str(tmp_path / "none"), str(raw), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)["images"]
    assert [each["state"] for each in found] == ["whole", None]
    assert found[1]["error"].endswith("no such file")
    assert found[1]["hint"] is None
