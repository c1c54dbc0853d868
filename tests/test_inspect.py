"""What inspect says of kernels and images, and the picture it draws."""

from __future__ import annotations

import json
import random
from xml.etree import ElementTree

import pytest
from blake3 import blake3
from support import images, kernels, synthetic
from support.tools import output_of

import rumpbundle
from rumpbundle import formats
from rumpbundle.cli import main
from rumpbundle.errors import RumpbundleError
from rumpbundle.images.report import ImageReport, inspect
from rumpbundle.images.report.picture import svg
from rumpbundle.kernels.unikernel import Unikernel

KERNEL_MARKS = b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """A test kernel that passes for a rumprun one, so that it can be given data and volumes."""
    path = tmp_path_factory.mktemp("app") / "app.bin"
    path.write_bytes(kernels.build("multiboot").read_bytes() + KERNEL_MARKS)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    top = tmp_path_factory.mktemp("data")
    (top / "sub").mkdir()
    (top / 'sub/<odd> & "name"').write_bytes(b"x" * 5000)
    (top / "big").write_bytes(random.Random(1).randbytes(3 << 20))
    for number in range(60):
        (top / f"file {number}").write_bytes(b"y" * number)
    return top


@pytest.fixture(scope="module")
def raw(app, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("raw") / "app.raw"
    assert main(["raw", str(app), "-q", "-o", str(out), "--volume", f"{data}:/data", "--arg", "hello"]) == 0
    return out


def layers(image: ImageReport) -> dict:
    """What an image holds, whatever it is packed in."""
    return {
        "tables": [(t.kind, t.id, t.flaws, [(s.number, s.type, s.name) for s in t.slots]) for t in image.tables],
        "volumes": [(v.kind, v.label, v.where, v.entries, v.boot_entries, v.flaws) for v in image.volumes],
        "texts": (image.boot_configs, image.guest_configs),
        "manifest": image.manifest,
    }


@pytest.mark.parametrize(("name", "subformat"), images.disk_formats())
def test_every_format_shows_the_same_layers(app, tmp_path, name, subformat):
    made = images.make(tmp_path, app, name, subformat=subformat)
    image = inspect(made)
    assert isinstance(image, ImageReport)
    assert image.flaws == ()
    assert image.container.split()[0] in ("vmdk" if name == "ova" else name, "raw")
    assert image.file_size == made.stat().st_size
    manifest = next(v for v in image.volumes if v.kind == "iso9660")
    assert {entry.path for entry in manifest.entries} >= {"/rumpbundle.json", "/boot/kernel/app.bin"}
    plain = inspect(images.make(tmp_path, app, "raw", force=True))
    assert layers(image) == layers(plain)
    assert image.digest == plain.digest


@pytest.mark.parametrize("name", ["ova", "ec2", "azure", "gce", "xen"])
def test_kits_and_archives_show_the_disk_inside(app, tmp_path, name):
    made = rumpbundle.bundle(app, name, output=tmp_path / f"app{formats.find(name).suffix.rstrip('/')}").paths[0]
    image = inspect(made)
    assert image.flaws == ()
    assert image.manifest["name"] == "app"
    kinds = [member.name.rpartition(".")[2] for member in image.members]
    assert kinds == (["ovf", "mf", "vmdk"] if name == "ova" else [])


def test_an_image_of_ours_in_every_layer(raw, data):
    image = inspect(raw)
    assert [(table.kind, [slot.type for slot in table.slots]) for table in image.tables] == [("mbr", ["83", "ef"])]
    assert [(volume.kind, volume.where) for volume in image.volumes] == [
        ("iso9660", "whole disk"), ("fat12", "partition 2"), ("ext2", "partition 1"),
    ]  # fmt: skip
    iso, _, ext2 = image.volumes
    assert [(entry.platform, entry.bootable) for entry in iso.boot_entries] == [("bios", True), ("uefi", True)]
    assert {entry.path for entry in ext2.entries} == {"/lost+found"} | {
        f"/{path.relative_to(data)}" for path in data.rglob("*")
    }
    assert [text.path for text in image.boot_configs] == ["/boot/grub/grub.cfg", "/EFI/BOOT/grub.cfg"]
    assert "hello" in image.guest_configs[0].text
    entry = next(entry for entry in iso.entries if entry.path == "/rumpbundle.json")
    at = entry.spans[0].offset
    assert image.digest == blake3(raw.read_bytes()[at : at + entry.size]).hexdigest()


def test_an_image_that_is_not_ours(tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t/grub").mkdir()
    (tmp_path / "t/grub/grub.cfg").write_text("boot\n")
    output_of("genisoimage", "-quiet", "-R", "-V", "OTHER", "-o", str(tmp_path / "a.iso"), str(tmp_path / "t"))
    image = inspect(tmp_path / "a.iso")
    assert (image.manifest, image.digest) == (None, "")
    assert [(volume.kind, volume.label) for volume in image.volumes] == [("iso9660", "OTHER")]
    assert [text.text for text in image.boot_configs] == ["boot\n"]


def test_a_kernel(app, capfd):
    assert isinstance(inspect(app), Unikernel)
    assert main(["inspect", str(app), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["kind"], said["family"], said["target"]) == ("kernel", "rumprun", "hw_virtio")
    assert said["boot"] == {"bios": "multiboot", "uefi": "multiboot"}
    assert said["blake3"] == blake3(app.read_bytes()).hexdigest()
    assert main(["inspect", str(app)]) == 0
    assert "  drivers    virtio-blk, virtio-net" in capfd.readouterr().out.splitlines()


def test_what_is_neither_is_an_error(tmp_path, capfd):
    for content in (b"", b"hello", random.Random(3).randbytes(70000)):
        (tmp_path / "x").write_bytes(content)
        assert main(["inspect", str(tmp_path / "x")]) == 2
        assert capfd.readouterr().err.startswith("error: ")
    assert main(["inspect", str(tmp_path / "nothing")]) == 2
    assert "no such file" in capfd.readouterr().err
    (tmp_path / "x").write_bytes(bytes(1 << 20))
    assert main(["inspect", str(tmp_path / "x")]) == 2
    assert "begins with nothing but zeros, and is no disk image\nhint: give a kernel" in capfd.readouterr().err


def test_a_directory_that_is_no_kit_is_an_error(tmp_path, capfd):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "a directory without a disk of ours" in capfd.readouterr().err


def test_damage_below_the_container_is_told_and_the_rest_shown(raw, tmp_path, capfd):
    damaged = bytearray(raw.read_bytes())
    ext2 = inspect(raw).volumes[2].offset
    damaged[ext2 + 1024 + 24 : ext2 + 1024 + 28] = b"\xff\xff\xff\xff"
    (tmp_path / "d.raw").write_bytes(damaged)
    assert main(["inspect", str(tmp_path / "d.raw")]) == 0
    out = capfd.readouterr().out
    assert "partition 1: ext2: the superblock is damaged" in out
    assert "/boot/kernel/app.bin" in out


def test_the_human_table(raw, capfd):
    assert main(["inspect", str(raw)]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "app.raw"
    for line in ("bundle (/rumpbundle.json)", "El Torito boot catalog", "  … and 24 more (--all)"):
        assert line in lines
    assert not any(line.endswith(" ") or "\x1b" in line for line in lines)
    assert main(["inspect", str(raw), "--all"]) == 0
    assert "more (--all)" not in capfd.readouterr().out


def test_room_in_a_boot_configuration_is_one_line(raw, capfd):
    (text,) = {each.text for each in inspect(raw).boot_configs}
    assert text.endswith("#" * 63 + "\n")
    capfd.readouterr()
    assert main(["inspect", str(raw)]) == 0
    out = capfd.readouterr().out
    room = len(text) - len(text.rstrip("#\n"))
    assert out.count(f"# {room} bytes of room for another configuration") == 1
    assert "####" not in out


def test_json_holds_everything(raw, data, capfd):
    assert main(["inspect", str(raw), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    image = inspect(raw)
    assert said["digest"] == image.digest
    assert said["manifest"] == image.manifest
    big = next(entry for entry in said["volumes"][2]["entries"] if entry["path"] == "/big")
    assert raw.read_bytes()[big["offset"] :][: big["bytes"]] == (data / "big").read_bytes()


# -- the picture -----------------------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def boxes(picture: str) -> dict[str, tuple[float, float]]:
    """Left edge and width of every box, by its tip."""
    found = {}
    for group in ElementTree.fromstring(picture).iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        found[group.find(f"{SVG}title").text] = (float(rect.get("x")), float(rect.get("width")))
    return found


def test_the_picture_is_well_formed_and_the_same_each_time(raw, tmp_path):
    picture = svg(inspect(raw))
    assert picture == svg(inspect(raw))
    assert main(["inspect", str(raw), "--svg", str(tmp_path / "a.svg"), "--json"]) == 0
    assert (tmp_path / "a.svg").read_text() == picture
    assert main(["inspect", str(raw), "--svg", str(tmp_path / "a.svg")]) == 2


def test_boxes_stand_in_the_order_of_the_disk_inside_the_picture(raw):
    found = boxes(svg(inspect(raw)))
    places = {tip: int(tip.rsplit(" at ", 1)[1]) for tip in found}
    ordered = sorted(found, key=places.get)
    lefts = [found[tip][0] for tip in ordered]
    assert lefts == sorted(lefts)
    assert min(lefts) >= 0
    assert max(left + width for left, width in found.values()) <= 980.5
    assert min(width for _, width in found.values()) >= 3
    assert len(found) < 40


def test_two_boxes_of_middle_size_are_to_scale(tmp_path):
    """Without gaps to compress, a file twice as large is drawn twice as wide."""
    (tmp_path / "t").mkdir()
    for name, size in (("a", 1 << 20), ("b", 2 << 20), ("c", 1 << 20), ("d", 1 << 20)):
        (tmp_path / "t" / name).write_bytes(random.Random(name).randbytes(size))
    output_of("genisoimage", "-quiet", "-R", "-o", str(tmp_path / "a.iso"), str(tmp_path / "t"))
    widths = {tip.split(":")[0]: width for tip, (_, width) in boxes(svg(inspect(tmp_path / "a.iso"))).items()}
    assert widths["/a"] == pytest.approx(widths["/d"], abs=0.2)
    assert 1.4 < widths["/b"] / widths["/a"] <= 2.05


def test_a_kernel_that_bundling_warns_of(tmp_path, capfd):
    high = tmp_path / "high"
    high.write_bytes(
        synthetic.elf([synthetic.Segment(synthetic.multiboot1() + bytes(64), paddr=0x90000000)], bits=32)
    )
    assert main(["inspect", str(high)]) == 0
    assert "mind " in (said := capfd.readouterr().out)
    assert "more than 2 GiB of memory below its devices" in said
    assert main(["inspect", "--json", str(high)]) == 0
    assert "2 GiB" in json.loads(capfd.readouterr().out)["warnings"][0]


def test_a_kernel_has_no_picture(app, tmp_path, capfd):
    assert main(["inspect", str(app), "--svg", str(tmp_path / "a.svg")]) == 2
    assert not (tmp_path / "a.svg").exists()


@pytest.mark.parametrize("seed", range(30))
def test_damaged_images_are_described_or_refused(raw, tmp_path, seed):
    chance = random.Random(seed)
    data = bytearray(raw.read_bytes()[: 2 << 20])
    for _ in range(chance.randrange(1, 40)):
        at = chance.choice((chance.randrange(70000), chance.randrange(len(data))))
        data[at] = chance.randrange(256)
    (tmp_path / "d.raw").write_bytes(data)
    try:
        image = inspect(tmp_path / "d.raw")
    except RumpbundleError:
        return
    if isinstance(image, ImageReport):
        ElementTree.fromstring(svg(image))


def test_a_kernel_tells_its_devices_notes_and_troubles(tmp_path, capfd):
    notes = synthetic.solo5_notes(3, ("storage", 1), ("service", 2))
    path = tmp_path / "solo5.bin"
    multiboot = synthetic.Segment(synthetic.multiboot1() + bytes(64))
    path.write_bytes(synthetic.elf([multiboot, synthetic.Segment(notes, type=synthetic.NOTE)]))
    assert main(["inspect", str(path)]) == 0
    out = capfd.readouterr().out
    assert "devices it asks for\n  block  storage\n  net    service" in out
    assert main(["inspect", str(path), "--json"]) == 0
    assert [each["kind"] for each in json.loads(capfd.readouterr().out)["devices"]] == ["block", "net"]


def test_a_manifest_that_is_none_is_told(raw, tmp_path):
    data = bytearray(raw.read_bytes())
    at = next(e for e in inspect(raw).volumes[0].entries if e.path == "/rumpbundle.json").spans[0].offset
    data[at : at + 1] = b"["
    (tmp_path / "d.raw").write_bytes(data)
    image = inspect(tmp_path / "d.raw")
    assert image.manifest is None
    assert image.flaws == ("/rumpbundle.json is no readable JSON",)
