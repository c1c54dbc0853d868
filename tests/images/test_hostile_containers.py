"""Damaged and hostile containers end in one ImageError, in bounded memory and time."""

from __future__ import annotations

import contextlib
import gzip
import io
import resource
import tarfile
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import disks

from rumpbundle.disk.layout import MIB
from rumpbundle.errors import ImageError
from rumpbundle.events import silent
from rumpbundle.images.compression import Unpacked
from rumpbundle.images.detect import open_disk
from rumpbundle.images.records import qcow2, vdi, vhd, vmdk
from rumpbundle.images.volumes import select, volumes

CONTAINERS = ["vmdk:sparse", "vmdk:stream", "vdi:", "vhd:dynamic", "vhd:fixed", "vhdx:", "qcow2:", "ova:"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    directory = tmp_path_factory.mktemp("originals")
    layout = disks.disk_of(3 * MIB, disks.literal(0, disks.noise(70_000)), disks.literal(2 * MIB, b"text " * 9000))
    found = {}
    for container in CONTAINERS:
        name, _, subformat = container.partition(":")
        found[container] = disks.write(layout, directory / container, name, subformat).read_bytes()
    return found


def look(path) -> None:
    """Do what ls does, and read here and there; nothing but ImageError may come out."""
    with contextlib.suppress(ImageError):
        with open_disk(path) as disk:
            assert all(isinstance(value, str | int) for value in disk.facts.values())
            for _ in zip(range(1000), select(volumes(disk), ""), strict=False):
                pass
            for offset in (0, disk.size // 2, disk.size - 1, 2 * MIB):
                disk.read(offset, min(MIB, max(disk.size - offset, 0)))


@pytest.mark.parametrize("container", CONTAINERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations(originals, tmp_path, container, data):
    image = bytearray(originals[container])
    structures = [*range(512), *range(512, min(len(image), 2560))]
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["byte", "number", "cut", "anywhere"]))
        if kind == "cut":
            del image[data.draw(st.integers(0, len(image))) :]
        elif kind == "anywhere" and image:
            image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
        elif image:
            at = data.draw(st.sampled_from(structures)) % len(image)
            big = data.draw(st.sampled_from([b"\xff", b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7]))
            image[at : at + (1 if kind == "byte" else len(big))] = big[:1] if kind == "byte" else big
    path = tmp_path / "image"
    path.write_bytes(image)
    look(path)


_VHD_FOOTER = vhd.Footer(data_offset=512, disk_type=vhd.DYNAMIC, original_size=1 << 54, current_size=1 << 54).sealed()
_VHD_HEADER = vhd.DynamicHeader(table_offset=1536, blocks=0xFFFFFFFF, block_size=1 << 28).sealed()
_STREAM = vmdk.FLAG_NEWLINES | vmdk.FLAG_COMPRESSED | vmdk.FLAG_MARKERS

GIANT = {
    "vmdk": vmdk.SparseHeader(capacity=1 << 53, rgd_offset=21, gd_offset=26).pack(),
    "vmdk stream": vmdk.SparseHeader(
        version=3, flags=_STREAM, capacity=1 << 53, gd_offset=26, compression=vmdk.COMPRESS_DEFLATE
    ).pack(),
    "vdi": vdi.Header(data_offset=1 << 31, disk_size=(1 << 52) - MIB, blocks=0xFFFFFFFF).pack(),
    "qcow2": qcow2.Header(cluster_bits=21, disk_size=1 << 62, l1_size=0xFFFFFFFF, l1_offset=1 << 21).pack(),
    "vhd": _VHD_FOOTER.pack() + _VHD_HEADER.pack(),
}
"""Disks of exabytes in a file that has only a header."""


@pytest.mark.parametrize("name", GIANT)
def test_giant_counts_cost_nothing(tmp_path, name):
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.write(GIANT[name])
        file.truncate(1 << 40)
    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    look(path)
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def archive(name: str, content: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_inflated_data_can_be_read_in_any_order(tmp_path):
    content = disks.noise(9 * MIB) + bytes(40 * MIB) + disks.noise(MIB, 2)
    (tmp_path / "image.tar.gz").write_bytes(gzip.compress(archive("disk.raw", content), 1))
    with open_disk(tmp_path / "image.tar.gz") as disk:
        assert disk.size == len(content)
        for offset in (49 * MIB + 3, 0, 8 * MIB + 1, 49 * MIB, 100):
            assert disk.read(offset, 5000) == content[offset : offset + 5000]
        with pytest.raises(ImageError, match="ends at byte"):
            disk.read(len(content) - 10, 11)


def test_a_gzip_bomb_is_not_unpacked_to_its_end():
    class Endless:
        size = 1 << 40

        def read(self, offset, length):
            raise AssertionError("was read")

    with pytest.raises(ImageError, match="too deep"):
        Unpacked(Endless(), "gzip", -1, silent, "x").read(1 << 60, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive("disk.raw", b"")[:100] + b"x" + archive("disk.raw", b"")[101:], "damaged"),
        (archive("other", b"x"), "holds no disk"),
        (archive("disk.raw", bytes(5000))[:2048], "ends at byte"),
        (b"", r"is empty \(after gunzip\)"),
    ],
)
def test_damaged_archives(tmp_path, content, message):
    (tmp_path / "x").write_bytes(gzip.compress(content))
    with pytest.raises(ImageError, match=message):
        with open_disk(tmp_path / "x") as disk:
            disk.read(0, disk.size)


def test_an_ova_in_an_ova_in_an_ova_ends(tmp_path):
    content = b"KDMV"
    for _ in range(2000):
        content = archive("disk.vmdk", content)[: 512 + len(content)]
        content += bytes(-len(content) % 512)
    (tmp_path / "x").write_bytes(content)
    look(tmp_path / "x")
