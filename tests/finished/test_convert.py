"""convert: one of ours becomes what bundling gives, another keeps its disk."""

from __future__ import annotations

import filecmp
import json
import random
import zlib
from pathlib import Path

import pytest
from support import kernels
from support.media import in_sectors_of
from support.tools import output_of

from rumpbundle import formats
from rumpbundle.cli import main
from rumpbundle.disk.gpt import GptHeader
from rumpbundle.disk.layout import MIB
from rumpbundle.images.detect import open_disk
from rumpbundle.images.partitions import tables
from rumpbundle.images.records import vhdx

RUMPRUN = b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"
ALL = ",".join(
    f"{format.name}:{name}" if name else format.name
    for format in formats.formats()
    for name in format.variants or ("",)
)
KITS = ("ec2", "gce", "azure", "xen")


def same(one: Path, other: Path) -> None:
    names = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    assert len(names) > 12
    for name in names:
        assert filecmp.cmp(one / name, other / name, shallow=False), name


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A directory with the same bundle in every format."""
    top = tmp_path_factory.mktemp("bundled")
    (top / "module").write_bytes(random.Random(1).randbytes(2 << 20) + bytes(3 << 20) + b"end")
    app = top / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    argv = ["build", str(app), "-q", "-f", ALL, "-o", str(top / "out"), "--module", f"{top / 'module'}:m"]
    assert main([*argv, "--cmdline", "one  two", "--size", "9M"]) == 0
    return top / "out"


@pytest.mark.parametrize(
    "source",
    ["app.raw", "app.vdi", "app.qcow2", "app.stream.vmdk", "app.ova", "app.ec2", "app.gce.tar.gz", "app.xen"],
)
def test_one_of_ours_becomes_what_bundling_gives(bundled, tmp_path, source):
    image = bundled / source
    name = tmp_path / f"app{image.suffix}"
    name.symlink_to(image)
    assert main(["convert", str(name), "-q", "-f", ALL, "-o", str(tmp_path / "out")]) == 0
    same(bundled, tmp_path / "out")


def test_another_name_or_size_is_what_bundling_with_it_gives(tmp_path, bundled):
    app = tmp_path / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    options = ["--name", "other", "--size", "3M", "-q"]
    assert main(["raw", str(app), "-q", "-o", str(tmp_path / "a.raw")]) == 0
    assert main(["convert", str(tmp_path / "a.raw"), "-f", "vdi", "-o", str(tmp_path / "b.vdi"), *options]) == 0
    assert main(["vdi", str(app), "-o", str(tmp_path / "c.vdi"), *options]) == 0
    assert filecmp.cmp(tmp_path / "b.vdi", tmp_path / "c.vdi", shallow=False)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A GPT disk that starts under UEFI, as nobody here makes them."""
    top = tmp_path_factory.mktemp("foreign")
    raw, esp = top / "disk.raw", top / "esp"
    with raw.open("wb") as file:
        file.truncate(40 << 20)
    output_of("sfdisk", "-q", str(raw), input="label: gpt\nstart=2048, size=16384, type=U\nsize=20480, type=L\n")
    output_of("mkfs.fat", "-C", "-F", "12", str(esp), "8192")
    (top / "BOOTX64.EFI").write_bytes(b"MZ" + random.Random(2).randbytes(50_000))
    output_of("mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT")
    output_of("mcopy", "-i", str(esp), str(top / "BOOTX64.EFI"), "::/EFI/BOOT/BOOTX64.EFI")
    with raw.open("r+b") as file:
        file.seek(1 << 20)
        file.write(esp.read_bytes())
        file.seek(25 << 20)
        file.write(b"linux" * 100_000)
    return raw


def test_a_foreign_disk_is_the_same_whatever_it_came_in(foreign, tmp_path):
    made = {"raw": foreign}
    for name, options in {"qcow2": ("-c",), "vmdk": (), "vdi": (), "vhdx": ()}.items():
        made[name] = tmp_path / f"{name}.source"
        output_of("qemu-img", "convert", *options, "-f", "raw", "-O", name, str(foreign), str(made[name]))
    full = tmp_path / "full.source"
    full.write_bytes(foreign.read_bytes())
    outputs = []
    for name, source in {**made, "full": full}.items():
        link = tmp_path / name / "disk.image"
        link.parent.mkdir()
        link.symlink_to(source)
        outputs.append(tmp_path / name / "out")
        assert main(["convert", str(link), "-q", "-f", ALL, "-o", str(outputs[-1])]) == 0
    for other in outputs[1:]:
        same(outputs[0], other)
    for suffix in ("vdi", "qcow2", "vmdk", "vhdx", "vhd"):
        output_of("qemu-img", "compare", str(outputs[0] / f"disk.{suffix}"), str(foreign))


def test_there_and_back_is_the_same_disk(foreign, tmp_path):
    for step, (format, source) in enumerate([("vmdk", foreign), ("vdi", None), ("qcow2", None), ("raw", None)]):
        image = source or tmp_path / str(step - 1)
        assert main(["convert", str(image), "-q", "-f", format, "-o", str(tmp_path / str(step))]) == 0
    assert filecmp.cmp(tmp_path / "3", foreign, shallow=False)


def test_where_the_disk_grows_its_backup_gpt_moves(foreign, tmp_path):
    assert main(["convert", str(foreign), "-q", "-f", "raw", "--size", "64M", "-o", str(tmp_path / "a.raw")]) == 0
    assert (tmp_path / "a.raw").stat().st_size == 64 << 20
    assert "No problems found" in output_of("sgdisk", "-v", str(tmp_path / "a.raw"))
    assert "No errors detected" in output_of("sfdisk", "-V", str(tmp_path / "a.raw"))
    assert partitions(foreign) == partitions(tmp_path / "a.raw")


def partitions(disk: Path) -> list:
    table = json.loads(output_of("sfdisk", "--json", str(disk)))["partitiontable"]
    return [(one["start"], one["size"], one["type"], one["uuid"]) for one in table["partitions"]]


@pytest.mark.parametrize("sector", [1024, 2048, 4096])
def test_a_table_in_other_sectors_goes_only_where_it_is_right(foreign, tmp_path, capfd, sector):
    image = tmp_path / "disk.raw"
    image.write_bytes(in_sectors_of(sector, foreign.read_bytes()))
    for format in ("vdi", "vmdk", "vhdx", "ova", "ec2"):
        assert main(["convert", str(image), "-f", format, "-o", str(tmp_path / "no")]) == 2
        err = capfd.readouterr().err
        assert err.startswith(
            f"error: {image}: its GPT counts in sectors of {sector} bytes, and a disk in {format} has"
        )
        assert not (tmp_path / "no").exists()
    assert main(["convert", str(image), "-f", "raw", "-o", str(tmp_path / "larger"), "--size", "64M"]) == 0
    with open_disk(image) as before, open_disk(tmp_path / "larger") as after:
        old, new = tables(before)[-1], tables(after)[-1]
    assert (new.whole, new.sector, new.slots) == (True, sector, old.slots)
    assert new.flaws == old.flaws == (f"the GPT counts in sectors of {sector} bytes",)
    assert main(["convert", str(image), "-f", "qcow2", "-o", str(tmp_path / "yes.qcow2")]) == 0
    assert f"logical_block_size={sector}" in capfd.readouterr().err
    assert main(["diff", str(image), str(tmp_path / "yes.qcow2")]) == 0


@pytest.mark.parametrize(("said", "counted"), [(4096, 512), (512, 4096)])
def test_a_vhdx_grows_whatever_its_table_counts_in(foreign, tmp_path, said, counted):
    """What the container says of sectors is no damage to a table; raw has them as the table counts."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(foreign.read_bytes() if counted == 512 else in_sectors_of(counted, foreign.read_bytes()))
    made = tmp_path / "disk.vhdx"
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vhdx", str(raw), str(made))
    data = bytearray(made.read_bytes())
    with open_disk(made) as disk:
        at = disk.items[vhdx.SECTOR_SIZE]
    data[at : at + 4] = said.to_bytes(4, "little")
    made.write_bytes(data)
    assert main(["convert", str(made), "-q", "-f", "raw", "--size", "64M", "-o", str(tmp_path / "a.raw")]) == 0
    with open_disk(tmp_path / "a.raw") as disk:
        table = tables(disk)[-1]
    assert (table.whole, table.sector, len(table.slots)) == (True, counted, 2)


@pytest.mark.parametrize("count", [0, 128])
def test_a_table_whose_copies_share_their_entries_grows(tmp_path, count):
    """Both headers name the same entries; of an empty table they may stand anywhere, also in front."""
    size, raw = 8 * MIB, tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(size)
    output_of("sgdisk", "-n", "1:2048:+2M", str(raw))
    data = bytearray(raw.read_bytes())
    for at in (512, size - 512):
        header = GptHeader.unpack(data, at).replace(entries_lba=2 if count else 0, entry_count=count, header_crc32=0)
        header = header.replace(entries_crc32=zlib.crc32(data[1024 : 1024 + 128 * count]))
        data[at : at + 92] = header.replace(header_crc32=zlib.crc32(header.pack())).pack()
    raw.write_bytes(data)
    assert main(["convert", str(raw), "-q", "-f", "raw", "--size", "16M", "-o", str(tmp_path / "larger")]) == 0
    with open_disk(raw) as before, open_disk(tmp_path / "larger") as after:
        old, new = tables(before)[-1], tables(after)[-1]
    assert (new.whole, new.slots, len(new.slots)) == (True, old.slots, int(count > 0))
    assert not new.flaws


@pytest.mark.parametrize(("order", "grows"), [("1", False), ("1:EE", False), ("", True)])
def test_a_hybrid_mbr_protects_what_it_did(tmp_path, order, grows):
    """Its protective entry ends in front of the partition that the others name (gdisk's manual, hybrid MBRs)."""
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(8 * MIB)
    output_of("sgdisk", "-n", "1:4096:+2M", *(["-h", order] if order else []), str(raw))
    assert main(["convert", str(raw), "-q", "-f", "raw", "--size", "16M", "-o", str(tmp_path / "larger")]) == 0
    assert (raw.read_bytes()[446:510] != (tmp_path / "larger").read_bytes()[446:510]) == grows
    assert "overlap" not in output_of("sgdisk", "-v", str(tmp_path / "larger"))


def test_a_partition_over_the_old_backup_keeps_its_bytes(tmp_path):
    """The disk was made larger, and the partition by a program that left the backup where it was."""
    size, raw = 8 * MIB, tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(size)
    output_of("sgdisk", "-n", "1:2048:+2M", str(raw))
    data = bytearray(raw.read_bytes()).ljust(2 * size, b"\0")
    last = (2 * size >> 9) - 40
    for at, entries in ((512, 1024), (size - 512, size - 33 * 512)):
        data[entries + 40 : entries + 48] = last.to_bytes(8, "little")
        header = GptHeader.unpack(data, at).replace(header_crc32=0, last_usable_lba=last)
        header = header.replace(entries_crc32=zlib.crc32(data[entries : entries + 16384]))
        data[at : at + 92] = header.replace(header_crc32=zlib.crc32(header.pack())).pack()
    raw.write_bytes(data)
    assert main(["convert", str(raw), "-q", "-f", "raw", "--size", "24M", "-o", str(tmp_path / "larger")]) == 0
    larger = (tmp_path / "larger").read_bytes()
    assert larger[MIB : (last + 1) * 512] == data[MIB : (last + 1) * 512]
    with open_disk(tmp_path / "larger") as disk:
        assert tables(disk)[-1].whole


def test_what_is_no_damage_to_a_table_lets_it_grow(foreign, tmp_path):
    raw = tmp_path / "disk.raw"
    data = bytearray(foreign.read_bytes())
    data[446:510] = bytes(64)  # no protective MBR
    raw.write_bytes(data)
    assert main(["convert", str(raw), "-q", "-f", "raw", "--size", "64M", "-o", str(tmp_path / "a.raw")]) == 0
    with open_disk(tmp_path / "a.raw") as disk:
        assert tables(disk)[-1].whole


@pytest.mark.parametrize("mark", [b"", b"\0"])
def test_what_bears_no_mark_of_a_disk_is_said(tmp_path, capfd, mark):
    (tmp_path / "disk.raw").write_bytes((mark or b"what is this?").ljust(1 << 20, b"\0"))
    assert main(["convert", str(tmp_path / "disk.raw"), "-f", "qcow2", "-o", str(tmp_path / "out")]) == 0
    warned = "warning: disk.raw has no partition table and no file system that is known; it is taken for a raw disk\n"
    assert (warned in capfd.readouterr().err) == (not mark)  # an empty disk is one


def test_why_nothing_starts_is_said(tmp_path, capfd):
    (tmp_path / "disk.raw").write_bytes(bytes(1 << 20))
    assert main(["convert", str(tmp_path / "disk.raw"), "-f", "vdi", "-o", str(tmp_path / "disk.vdi")]) == 0
    assert "does not boot: it has neither boot code" in capfd.readouterr().err


def test_a_disk_that_has_grown_already_is_converted_all_the_same(tmp_path, capfd):
    """qemu-img rounds a VHD up to whole cylinders, and leaves the backup GPT where the disk ended."""
    raw, vhd = tmp_path / "a.raw", tmp_path / "a.vhd"
    with raw.open("wb") as file:
        file.truncate(33 << 20)
    output_of("sfdisk", "-q", str(raw), input="label: gpt\n2048,,U\n")
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vpc", str(raw), str(vhd))
    assert main(["convert", str(vhd), "-f", "vdi", "-q", "-o", str(tmp_path / "a.vdi")]) == 0, capfd.readouterr()
    output_of("qemu-img", "convert", "-f", "vdi", "-O", "raw", str(tmp_path / "a.vdi"), str(tmp_path / "b.raw"))
    assert "No problems found" in output_of("sgdisk", "-v", str(tmp_path / "b.raw"))


def test_a_kit_announces_what_the_disk_starts_under(foreign, tmp_path, capfd):
    assert main(["convert", str(foreign), "-q", "-f", "ec2", "-o", str(tmp_path / "a.ec2")]) == 0
    manifest = json.loads((tmp_path / "a.ec2" / "manifest.json").read_text())
    assert manifest["register_image"]["BootMode"] == "uefi"
    argv = ["convert", str(foreign), "-f", "ec2", "-o", str(tmp_path / "b.ec2"), "--firmware", "bios"]
    assert main(argv) == 2
    assert "does not start under BIOS (it has uefi)" in capfd.readouterr().err
    assert not (tmp_path / "b.ec2").exists()


@pytest.mark.parametrize("kit", KITS)
def test_what_starts_only_from_a_cd_is_no_kit(tmp_path, capfd, kit):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "boot.img").write_bytes(b"x" * 2048)
    iso = tmp_path / "cd.iso"
    output_of("genisoimage", "-quiet", "-b", "boot.img", "-no-emul-boot", "-o", str(iso), str(tmp_path / "tree"))
    assert main(["convert", str(iso), "-f", kit, "-o", str(tmp_path / "out")]) == 2
    assert "starts only from a CD" in capfd.readouterr().err
    assert main(["convert", str(iso), "-q", "-f", "vdi", "-o", str(tmp_path / "cd.vdi")]) == 0


def test_a_guest_that_would_look_elsewhere_is_bundled_again(tmp_path, capfd):
    app = tmp_path / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes() + RUMPRUN + b"ld_virtio\0vioscsi\0sd_scsibus\0")
    (tmp_path / "data").mkdir()
    argv = ["--data", f"{tmp_path / 'data'}:/data", "-q"]
    raw, made = tmp_path / "a.raw", tmp_path / "b.gce.tar.gz"
    assert main(["raw", str(app), *argv, "-o", str(raw)]) == 0
    status = main(["convert", str(raw), "-f", "gce", "-o", str(made)])
    said = capfd.readouterr().err
    assert (status, "bundle again" in said) in ((2, True), (0, False))
    assert main(["gce", str(app), *argv, "-o", str(tmp_path / "c.gce.tar.gz")]) == 0
    if status == 0:
        assert filecmp.cmp(made, tmp_path / "c.gce.tar.gz", shallow=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-f", "vdi", "--controller", "ide"], "--controller: no option of vdi"),
        (["-f", "vdi,raw", "--subformat", "x"], "stands for one format"),
        (["-f", "vdo"], "no such format: vdo"),
        (["-f", "vdi", "--size", "nonsense"], "expected a size"),
    ],
)
def test_wrong_words_say_so(foreign, tmp_path, capfd, words, message):
    assert main(["convert", str(foreign), *words, "-o", str(tmp_path / "out")]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_no_image_is_named(tmp_path, capfd):
    (tmp_path / "a.txt").write_text("hello\n" * 100)
    assert main(["convert", str(tmp_path / "a.txt"), "-f", "vdi", "-o", str(tmp_path / "out")]) == 2
    assert "is a text file, no disk image" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_an_input_is_no_output(foreign, tmp_path, capfd):
    copy = tmp_path / "disk.raw"
    copy.write_bytes(foreign.read_bytes())
    assert main(["convert", str(copy), "-f", "raw", "-o", str(copy), "--force"]) == 2
    assert "input" in capfd.readouterr().err
    assert copy.read_bytes() == foreign.read_bytes()


def test_a_disk_that_cannot_grow_is_named(tmp_path, capsys):
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    output_of("sfdisk", "-q", str(image), input="label: gpt\nstart=2048, size=2048\n")
    with image.open("r+b") as file:
        file.truncate(7 << 20)
    argv = ["convert", str(image), "-f", "vdi", "-o", str(tmp_path / "out.vdi"), "--size", "9M"]
    assert main(argv) == 2
    assert f"error: {image}: its GPT is damaged, so it cannot be moved" in capsys.readouterr().err
