"""Every container of a disk gives that disk's exact bytes to readers that are not ours, and to ours."""

from __future__ import annotations

import pytest
from support import disks, readers

from rumpbundle.images.detect import open_disk

CONTAINERS = [
    ("vmdk", "sparse"),
    ("vmdk", "stream"),
    ("vdi", ""),
    ("vhd", "dynamic"),
    ("vhd", "fixed"),
    ("vhdx", ""),
    ("qcow2", ""),
    ("ova", ""),
]
IDS = ["-".join(filter(None, c)) for c in CONTAINERS]
SHAPES = [
    "empty",
    "tiny",
    "full",
    "zeros",
    "mixed",
    "unallocated tail",
    "incompressible tail",
    "late tail",
    "odd size",
    "over 4 GiB",
]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shapes")
    made = disks.shapes(directory)
    assert list(made) == SHAPES
    return {
        name: (layout, readers.write_raw(layout, directory / f"{name}.raw"), readers.expected_sha256(layout))
        for name, layout in made.items()
    }


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "subformat"), CONTAINERS, ids=IDS)
def test_all_readers_agree(shapes, tmp_path, name, subformat, shape):
    layout, raw, sha256 = shapes[shape]
    image = disks.write(layout, tmp_path / "image", name, subformat)
    disk_file = readers.disk_of_ova(image) if name == "ova" else image
    readers.qemu_agrees(disk_file, name, raw)
    for reader in readers.FOREIGN[name]:
        with reader(disk_file, name) as read:
            assert readers.sha256_of(read, layout) == sha256, reader.__name__
    with open_disk(image) as disk:
        assert disk.size == layout.size
        assert readers.sha256_of(disk.read, layout) == sha256


@pytest.mark.parametrize(("name", "subformat"), CONTAINERS, ids=IDS)
def test_bytes_depend_on_nothing_but_the_disk(shapes, tmp_path, name, subformat):
    layout = shapes["mixed"][0]
    (tmp_path / "elsewhere").mkdir()
    one = disks.write(layout, tmp_path / "image", name, subformat, jobs=1)
    two = disks.write(layout, tmp_path / "elsewhere" / "image", name, subformat, jobs=5)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(("name", "subformat"), CONTAINERS, ids=IDS)
def test_other_bundles_get_other_ids(shapes, tmp_path, name, subformat):
    from rumpbundle.disk.identity import Identity

    other = Identity(lambda: "2" * 64)
    images = [
        disks.write(disks.disk_of(disks.MIB, disks.literal(0, b"same"), identity=identity), tmp_path / "image", name,
                    subformat).read_bytes()
        for identity in (disks.IDENTITY, other)
    ]  # fmt: skip
    assert (images[0] != images[1]) == (name != "qcow2"), "qcow2 alone has no ids"
