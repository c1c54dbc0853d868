"""Images in gzip, xz, bzip2 and zstd: unpacked once, no further than somebody reads, never to more than is sane."""

from __future__ import annotations

import builtins
import bz2
import gzip
import lzma
import subprocess
import sys

import pytest
from support import disks
from support.tools import output_of

from rumpbundle.cli import main
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import ImageError
from rumpbundle.events import Advanced, Finished, Started
from rumpbundle.images import compression
from rumpbundle.images.compression import decoder
from rumpbundle.images.detect import NoImageError, open_disk

PROGRAMS = {
    "gzip": ["gzip", "-1"],
    "xz": ["xz", "-T1", "-1"],
    "bzip2": ["bzip2", "-1"],
    "zstd": ["zstd", "-q", "-1"],
    "zstd long": ["zstd", "-q", "-1", "--long=27", "-T2"],
    "xz threads": ["xz", "-T2", "-1", "--block-size=1MiB"],
}


def packed(name: str, data: bytes) -> bytes:
    argv = [*PROGRAMS[name], "-c"]
    output_of(argv[0], "--version", check=False)
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True).stdout


CONTENT = disks.noise(700_001) + bytes(5 * MIB) + disks.noise(3000, 2) + bytes(MIB)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_raw_disk(tmp_path, name):
    (tmp_path / "x").write_bytes(packed(name, CONTENT))
    with open_disk(tmp_path / "x") as disk:
        assert (disk.container, disk.around, disk.size) == ("raw", (name.split()[0],), len(CONTENT))
        for offset in (len(CONTENT) - 4000, 0, 700_000, 5 * MIB + 700_000, 12):
            assert disk.read(offset, 3999) == CONTENT[offset : offset + 3999]
        assert disk.read(0, disk.size) == CONTENT


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
def test_several_streams_are_one_and_what_follows_them_is_not_looked_at(tmp_path, name):
    one, two = packed(name, CONTENT[:1_000_000]), packed(name, CONTENT[1_000_000:])
    (tmp_path / "x").write_bytes(one + two + b"a signature of somebody")
    with open_disk(tmp_path / "x") as disk:
        assert disk.read(0, disk.size) == CONTENT


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
def test_a_container(tmp_path, name):
    layout = disks.disk_of(3 * MIB, disks.literal(0, disks.noise(70_000)))
    for format, subformat in (("qcow2", ""), ("vmdk", "sparse"), ("vhd", "fixed"), ("vdi", "")):
        data = disks.write(layout, tmp_path / f"{format}.image", format, subformat).read_bytes()
        (tmp_path / "x").write_bytes(packed(name, data))
        with open_disk(tmp_path / "x") as disk:
            assert disk.read(0, 70_000) == disks.noise(70_000)
            assert disk.size == layout.size


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello\n" * 100, "is a text file (after {}), no disk image"),
        (b"\x7fELF" + bytes(1000), "is an ELF program or kernel (after {}), no disk image"),
        (b"", "is empty (after {})"),
        (b"\xfd7zXZ\0" + bytes(1000), "is xz-compressed (after {}), which is not read"),
        (b"PK\x03\x04" + bytes(1000), "is a zip archive (after {}), which is not read"),
    ],
)
def test_what_is_no_disk(tmp_path, name, content, message):
    (tmp_path / "x").write_bytes(packed(name, content))
    program = {"gzip": "gunzip", "xz": "unxz", "bzip2": "bunzip2", "zstd": "unzstd"}[name]
    with pytest.raises(NoImageError) as caught, open_disk(tmp_path / "x"):
        pass
    assert caught.value.problem == message.format(program)


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
def test_damage(tmp_path, name):
    good = packed(name, CONTENT)
    for data in (good[:-400_000], good[:100_000] + bytes(100) + good[100_100:]):
        (tmp_path / "x").write_bytes(data)
        with pytest.raises(ImageError, match=r"cut off|does not decompress"):
            with open_disk(tmp_path / "x") as disk:
                disk.read(0, disk.size)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("rumpbundle.images.compression._FREE", 4 * MIB)
    monkeypatch.setattr("rumpbundle.images.compression._EXPANDS", 10)
    (tmp_path / "x").write_bytes(bz2.compress(bytes(64 * MIB)))
    with pytest.raises(ImageError, match="expands to more than 4194304 bytes") as caught, open_disk(tmp_path / "x"):
        pass
    assert caught.value.hint == "unpack it with bunzip2 and look into that"


def test_a_decoder_that_wants_too_much_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 1 << 29}]
    (tmp_path / "x").write_bytes(lzma.compress(bytes(1000), filters=filters))
    with pytest.raises(ImageError, match="needs more than 128 MiB of memory") as caught, open_disk(tmp_path / "x"):
        pass
    assert caught.value.hint == "unpack it with unxz and look into that"
    assert main(["verify", str(tmp_path / "x")]) == 2, "it is not damaged"


@pytest.mark.parametrize("padding", [4, 256 << 10, (1 << 20) + 4])
def test_padding_of_xz_may_be_long(tmp_path, padding):
    one, two = (lzma.compress(part, preset=1) for part in (CONTENT[:1_000_000], CONTENT[1_000_000:]))
    (tmp_path / "x").write_bytes(one + bytes(padding) + two + bytes(padding))
    with open_disk(tmp_path / "x") as disk:
        assert disk.read(0, disk.size) == CONTENT
        assert disk.layers[0].used == (tmp_path / "x").stat().st_size


@pytest.mark.parametrize(("name", "padding", "used"), [("gzip", 512, True), ("xz", 5, False), ("bzip2", 4, False)])
def test_which_zeros_are_padding(tmp_path, name, padding, used):
    data = packed(name, CONTENT)
    (tmp_path / "x").write_bytes(data + bytes(padding))
    with open_disk(tmp_path / "x") as disk:
        assert disk.layers[0].used == len(data) + (padding if used else 0)


def test_frames_that_zstd_skips(tmp_path):
    first, last = (bytes([byte, 0x2A, 0x4D, 0x18, 5, 0, 0, 0]) + b"12345" for byte in (0x50, 0x5E))
    (tmp_path / "x").write_bytes(first + packed("zstd", CONTENT) + last)
    with open_disk(tmp_path / "x") as disk:
        assert disk.read(0, disk.size) == CONTENT
        assert disk.layers[0].used == (tmp_path / "x").stat().st_size


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
def test_thousands_of_streams_cost_little_each(tmp_path, monkeypatch, name):
    """Each is given only a little of what follows it, which is copied; and no library is looked for again."""
    decoder(name)  # which has found it
    given, imported = [], []
    before, importing = compression._DECODERS[name], builtins.__import__

    class Watched:
        def __init__(self):
            self._decoder = before()

        def __getattr__(self, attribute):
            return getattr(self._decoder, attribute)

        def decompress(self, data, length):
            given.append(len(data))
            return self._decoder.decompress(data, length)

    monkeypatch.setitem(compression._DECODERS, name, Watched)
    (tmp_path / "x").write_bytes(packed(name, b"") * 30_000 + packed(name, CONTENT))
    with monkeypatch.context() as watched:
        watched.setattr(builtins, "__import__", lambda name, *more: imported.append(name) or importing(name, *more))
        with open_disk(tmp_path / "x") as disk:
            assert disk.read(0, disk.size) == CONTENT
    assert sum(given) < 30_000 * 8192 + (tmp_path / "x").stat().st_size
    assert len(imported) < 10_000


def test_without_the_library_zstd_is_named(tmp_path, monkeypatch):
    for module in ("compression.zstd", "backports", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(compression, "_library", compression._library.__wrapped__)
    with pytest.raises(ImageError, match="compressed with zstd, which this Python cannot read") as caught:
        decoder("zstd")
    assert "rumpbundle[zstd]" in caught.value.hint


def test_it_tells_how_far_it_is(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(CONTENT, 1))
    told = []
    with open_disk(tmp_path / "x.gz", told.append):
        pass
    size = (tmp_path / "x.gz").stat().st_size
    assert told[0] == Started("unpacking x.gz", size)
    assert told[-1] == Finished("unpacking x.gz")
    assert sum(event.count for event in told if isinstance(event, Advanced)) == size
