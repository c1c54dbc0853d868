"""What is not read is named, with what to do; it is never taken for a raw disk. docs/images.md says the same."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import pytest
from support import disks
from support.tools import output_of

import rumpbundle
from rumpbundle.cli import main
from rumpbundle.disk import signatures
from rumpbundle.disk.layout import MIB
from rumpbundle.disk.signatures import KERNELS, KINDS, Kind
from rumpbundle.errors import ImageError
from rumpbundle.images.detect import NoImageError, open_disk
from rumpbundle.images.node import node_of
from rumpbundle.images.records import vdi, vhd, vhdx

UNREAD = [kind for kind in (*KINDS, *KERNELS) if kind.role in ("unread", "file")]
PAGE = (Path(rumpbundle.__file__).parents[1] / "docs" / "images.md").read_text("utf-8")


def of(kind: Kind, size: int = 70_000) -> bytes:
    data = bytearray(size)
    at = kind.offset % size
    data[at : at + len(kind.magic)] = kind.magic
    return bytes(data)


@pytest.mark.parametrize("kind", UNREAD, ids=lambda kind: f"{kind.name}-{kind.magic[:4].hex()}".replace(" ", "-"))
def test_each_is_named_and_told_what_to_do(tmp_path, kind):
    (tmp_path / "x").write_bytes(of(kind))
    with pytest.raises(NoImageError) as caught, open_disk(tmp_path / "x"):
        pass
    assert caught.value.problem.startswith(f"is {kind.name}, ")
    assert caught.value.problem.endswith("no disk image" if kind.role == "file" else "which is not read")
    assert (caught.value.hint or "") == kind.hint


def test_ls_cat_inspect_and_run_say_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for kind in UNREAD:
        if kind in KERNELS:
            continue  # inspect knows more of those
        Path("x").write_bytes(of(kind))
        for argv in (["ls", "x"], ["cat", "x", "/a"], ["inspect", "x"], ["run", "x", "--dry-run"]):
            assert main(argv) == 2
            out, err = capsys.readouterr()
            assert out == ""
            assert err.startswith(f"error: x: is {kind.name}"), argv


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_a_zlib_stream_is_no_raw_disk(tmp_path, capsys, level):
    packed = zlib.compress(bytes(446) + bytes(range(1, 65)) * 4096, level)
    (tmp_path / "x").write_bytes(packed)
    assert main(["ls", str(tmp_path / "x")]) == 2
    assert "is zlib-compressed, which is not read\nhint: unpack it with pigz -dz\n" in capsys.readouterr().err
    assert ("zlib-compressed", signatures.ZLIB.hint) in rows()
    (tmp_path / "x").write_bytes(packed[:2] + b"\xff\0" * 2048)  # what only begins like one
    with open_disk(tmp_path / "x") as disk:
        assert disk.container == "raw"


def test_an_erased_flash_is_no_text():
    assert not signatures.is_text(b"\xff" * 4096)
    assert signatures.is_text("Привет, мир\n".encode("koi8-r"))


def test_no_kind_stands_in_another_s_way():
    for kind in KINDS:
        data = of(kind)
        found = signatures.find(len(data), lambda offset, length, data=data: data[offset : offset + length])
        assert found is not None
        assert found.name == kind.name


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-O", "qed"], "is a QED image, which is not read"),
        (["-O", "parallels"], "is a Parallels image, which is not read"),
        (["-O", "qcow"], "is a qcow image of version 1, which is not read"),
        (["-O", "qcow2", "-o", "data_file=data,data_file_raw=on"], "qcow2: keeps its data in another file, data"),
    ],
)  # fmt: skip
def test_what_qemu_img_writes_and_we_do_not_read(tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    Path("raw").write_bytes(disks.noise(MIB))
    output_of("qemu-img", "convert", *argv, "raw", "image")
    with pytest.raises(ImageError, match=message) as caught, open_disk("image"):
        pass
    assert caught.value.hint


def test_children_of_a_vdi_and_a_vhd(tmp_path):
    layout = disks.disk_of(3 * MIB, disks.literal(0, disks.noise(70_000)))
    data = bytearray(disks.write(layout, tmp_path / "x.vhd", "vhd", "dynamic").read_bytes())
    footer = vhd.Footer.unpack(bytes(data[-512:])).replace(disk_type=vhd.DIFFERENCING).sealed().pack()
    data[-512:] = data[:512] = footer
    (tmp_path / "x.vhd").write_bytes(data)
    with pytest.raises(ImageError, match="only what differs from a parent"), open_disk(tmp_path / "x.vhd"):
        pass


@pytest.mark.parametrize("field", ["uuid_linkage", "uuid_parent_modify"])
def test_a_vdi_that_names_a_parent_is_not_given_to_qemu(tmp_path, field):
    layout = disks.disk_of(3 * MIB, disks.literal(0, disks.noise(70_000)))
    data = disks.write(layout, tmp_path / "x.vdi", "vdi", "").read_bytes()
    header = vdi.Header.unpack(data).replace(**{field: b"p" * 16})
    (tmp_path / "x.vdi").write_bytes(header.pack() + data[vdi.Header.SIZE :])
    with open_disk(tmp_path / "x.vdi") as disk:  # of a type that has none
        assert disk.read(0, 70_000) == disks.noise(70_000)
        assert node_of(disk) is None
        assert [each.what for each in disk.problems()] == ["a disk without a parent names one"]


def test_a_zip_and_an_empty_file_and_a_bit_of_something(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("disk.raw", bytes(1000))
    for name, data, message in (
        ("x.zip", None, "is a zip archive"),
        ("empty", b"", "is empty"),
        ("little", b"\1\2\3", "is no disk image: shorter than a sector, 3 of 512 bytes"),
        ("text", b"hello\n", "is a text file, no disk image"),
    ):
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(NoImageError, match=message), open_disk(tmp_path / name):
            pass


@pytest.mark.parametrize(("method", "name"), [(1, "AES"), (2, "LUKS"), (7, "method 7")])
def test_an_encrypted_qcow2(tmp_path, method, name):
    image = tmp_path / "x"
    output_of("qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M")
    data = bytearray(image.read_bytes())
    data[32:36] = method.to_bytes(4, "big")
    image.write_bytes(data)
    with pytest.raises(ImageError, match=rf"qcow2: is encrypted \({name}\)"), open_disk(image):
        pass


def test_facts_of_a_qcow2(tmp_path):
    image = str(tmp_path / "x")
    output_of("qemu-img", "create", "-q", "-f", "qcow2", "-o", "extended_l2=on,refcount_bits=64", image, "1M")
    output_of("qemu-img", "snapshot", "-c", "one", image)
    data = bytearray((tmp_path / "x").read_bytes())
    data[79] |= 3  # dirty and corrupt
    (tmp_path / "x").write_bytes(data)
    with open_disk(image) as disk:
        facts = disk.facts
    assert (facts["extended_l2"], facts["refcount_bits"]) == ("yes", 64)
    assert str(facts["internal_snapshots"]).startswith("1, not read")
    assert str(facts["dirty"]).startswith("yes") and str(facts["corrupt"]).startswith("yes")  # noqa: PT018


def test_bitmaps_of_a_qcow2_are_no_lost_clusters(tmp_path):
    image = str(tmp_path / "x")
    output_of("qemu-img", "create", "-q", "-f", "qcow2", image, "1M")
    output_of("qemu-img", "bitmap", "--add", image, "one")
    with open_disk(image) as disk:
        found = list(disk.problems())
    assert [each.what for each in found] == [
        "it has bitmaps of what changed, so its reference counts were not compared"
    ]
    assert found[0].severity == "remark"


def test_a_vhdx_of_large_sectors_says_so(tmp_path):
    image = tmp_path / "x"
    output_of("qemu-img", "create", "-q", "-f", "vhdx", str(image), "64M")
    data = bytearray(image.read_bytes())
    place = data.index(vhdx.SECTOR_SIZE.bytes_le)
    offset = int.from_bytes(data[place + 16 : place + 20], "little") + (place & ~0xFFFF)
    data[offset : offset + 4] = (4096).to_bytes(4, "little")
    image.write_bytes(data)
    with open_disk(image) as disk:
        assert disk.sector_size == 4096
        assert disk.facts["sector_size"] == 4096


def rows() -> list[tuple[str, str]]:
    """Return name and hint of each row of the page's table of what is refused."""
    table = PAGE.split("## Refused")[1]
    return [(name, hint) for name, hint in re.findall(r"^\| (.+?) \| (.*?) \|$", table, re.MULTILINE)][1:]


def test_the_page_says_what_is_so():
    wanted = {(kind.name, kind.hint) for kind in UNREAD if kind.role == "unread"}
    listed = set(rows())
    assert wanted <= listed, "\n".join(f"| {name} | {hint} |" for name, hint in sorted(wanted - listed))
