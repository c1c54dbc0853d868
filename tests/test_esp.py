"""Our FAT volumes as fsck.fat and mtools see them."""

from __future__ import annotations

import pytest
from support.tools import output_of

from rumpbundle.disk.content import Content
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.errors import InputError
from rumpbundle.filesystems.fat import FatVolume


def write(root: Directory, path, offset: int = 0):
    volume = FatVolume(root, label="test", epoch=1_000_000_000)
    with path.open("wb") as file:
        file.truncate(volume.size)
        for extent in volume.extents(offset, lambda: 0x1234ABCD):
            file.seek(extent.offset - offset)
            for at in range(0, extent.length, 1 << 20):
                file.write(extent.source.read(at, min(1 << 20, extent.length - at)))
    return volume


def tree_of(*names: str, size: int = 3000) -> Directory:
    files = [File(name, Content.of_bytes(name.encode() * (size // len(name)))) for name in names]
    return Directory.of("", [Directory.of("EFI", [Directory.of("BOOT", list(files))])])


NAMES = (
    "BOOTX64.EFI", "grub.cfg", "a long name with blanks.efi", "thirteen char", "ünïcode.efi", "x" * 26,
    "two.dots.cfg", "noext",
)  # fmt: skip


def test_fsck_finds_nothing_and_mtools_reads_every_file(tmp_path):
    image = tmp_path / "esp.img"
    write(tree_of(*NAMES), image)
    assert "12 bit entries" in output_of("fsck.fat", "-n", "-v", str(image))
    out = tmp_path / "out"
    out.mkdir()
    output_of("mcopy", "-s", "-n", "-i", str(image), "::/EFI", str(out))
    found = {path.name: path.read_bytes() for path in (out / "EFI" / "BOOT").iterdir()}
    assert found == {name: name.encode() * (3000 // len(name)) for name in NAMES}
    assert "Serial Number is 1234-ABCD" in output_of("mdir", "-i", str(image), "::")


def test_a_directory_with_nothing_in_it_has_its_own_place(tmp_path):
    full = Directory.of("full", [File("x" * 120 + str(number), Content.of_bytes(b"")) for number in range(6)])
    root = Directory.of("", [Directory("empty directory"), full, File("f", Content.of_bytes(b"f"))])
    image = tmp_path / "fat"
    write(root, image)
    assert output_of("fsck.fat", "-n", "-V", str(image)).strip().endswith("clusters")
    assert output_of("mdir", "-b", "-i", str(image), "::/empty directory") == ""


@pytest.mark.parametrize(
    ("size", "bits"), [(1, 12), (7 << 20, 12), (8 << 20, 16), (60 << 20, 16), (200 << 20, 16), (500 << 20, 16)]
)
def test_the_fat_type_and_cluster_size_follow_the_content(tmp_path, size, bits):
    payload = tmp_path / "payload"
    with payload.open("wb") as file:
        file.truncate(size)
        file.seek(size - 1)
        file.write(b"!")
    image = tmp_path / "esp.img"
    volume = write(Directory.of("", [File("BIG.EFI", Content.of_file(InputFile(payload)))]), image)
    said = output_of("fsck.fat", "-n", "-v", str(image))
    assert f"{bits} bit entries" in said
    assert volume.size < size * 1.001 + 80_000
    output_of("cmp", str(payload), str(image), "0", str(volume.offset_of("/BIG.EFI")), "-n", str(size))


def test_files_stand_on_whole_blocks_so_the_iso_can_point_at_them(tmp_path):
    volume = write(tree_of(*NAMES), tmp_path / "esp.img")
    assert all(volume.offset_of(f"/EFI/BOOT/{name}") % 2048 == 0 for name in NAMES)
    assert volume.size % 2048 == 0


@pytest.mark.parametrize("name", ["colon:name", "question?", "ends with dot.", "ends with blank ", "new\nline"])
def test_a_name_fat_forbids_is_refused(name):
    volume = FatVolume(tree_of("OK"), label="x", epoch=315532800)
    assert volume.size
    with pytest.raises(InputError, match="is no name for a FAT file system"):
        FatVolume(tree_of(name), label="x", epoch=315532800)


def test_a_link_is_refused():
    with pytest.raises(InputError, match="link: FAT has no symbolic links"):
        FatVolume(Directory.of("", [Symlink("link", "x")]), label="x", epoch=315532800)


def test_more_than_2_gib_is_refused(tmp_path):
    payload = tmp_path / "payload"
    with payload.open("wb") as file:
        file.truncate(3 << 30)
    root = Directory.of("", [File("BIG.EFI", Content.of_file(InputFile(payload)))])
    with pytest.raises(InputError, match="more than 2 GiB, which FAT16 cannot hold"):
        FatVolume(root, label="x", epoch=315532800)
