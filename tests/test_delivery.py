"""Every family's channel under QEMU: what was configured arrives byte for byte, up to the limits.

The test kernels play the guests: they report their command line and their modules. What a real guest of the family
would make of those bytes is told by the oracle that tests/guests uses.
"""

from __future__ import annotations

import dataclasses
import json
import zlib

import pytest
from support import ext2 as ext2_reader
from support import images, kernels, qemu, rumprun
from support.tools import output_of

from rumpbundle import Recipe, plan
from rumpbundle.config import Config, Network, Program
from rumpbundle.disk import tree
from rumpbundle.filesystems import cpio
from rumpbundle.grub import WORD_LIMIT, WORDS_LIMIT
from rumpbundle.guests import Data, Writable
from rumpbundle.guests.rumprun.dialect import dialect
from rumpbundle.kernels.unikernel import Family, Unikernel

pytestmark = pytest.mark.boot

PRINTABLE = "".join(map(chr, range(32, 127)))
CARRIED = PRINTABLE.translate({ord('"'): None, ord("\\"): None}) + "äöü€𝄞"


@pytest.fixture
def family(monkeypatch):
    """Return a function that makes every kernel pass for one of a family."""
    real = Unikernel.read

    def choose(family, **changes):
        def read(path, **options):
            return dataclasses.replace(real(path, **options), family=family, **changes)

        monkeypatch.setattr(Unikernel, "read", read)

    return choose


def booted(directory, kernel="multiboot", firmware="bios", **recipe):
    """Bundle and boot a test kernel; return its report and the image."""
    image = images.make(directory, kernels.build(kernel), **recipe)
    result = qemu.boot(image, firmware=firmware, bus="ahci")
    return kernels.Report.parse(result.serial), image


def _of_length(length: int) -> Config:
    """Return a configuration whose text is *length* bytes, with every character it can carry."""
    empty = Config(cmdline="a b", env={"ALL": CARRIED, "PAD": ""})
    frame = len(dialect(empty, Unikernel.read(kernels.build("multiboot"))))
    return empty.replace(env={"ALL": CARRIED, "PAD": "p" * (length - frame)})


@pytest.mark.parametrize(("length", "firmware"), [(4093, "bios"), (4094, "bios"), (4094, "uefi")])
def test_rumprun_by_module(family, length, firmware, tmp_path):
    family(Family.RUMPRUN, target="hw_virtio", drivers=frozenset({"virtio-blk"}))
    config = _of_length(length)
    report, _ = booted(tmp_path, firmware=firmware, config=config)
    planned = plan(Recipe(app=kernels.build("multiboot"), config=config))
    text = planned.delivery.config
    assert len(text) == length
    assert [(m.size, m.crc32) for m in report.modules] == [(length, zlib.crc32(text))]
    guest = rumprun.boot(report.cmdline.decode(), [text], {})
    assert (guest.env, guest.programs) == (config.env, [(["a", "b"], "")])


@pytest.mark.parametrize("length", [4095, 65536])
def test_rumprun_by_file(family, length, tmp_path):
    family(Family.RUMPRUN, target="hw_virtio", drivers=frozenset({"virtio-blk"}))
    config = _of_length(length)
    report, image = booted(tmp_path, config=config)
    assert report.modules == ()
    text = output_of("isoinfo", "-R", "-x", "/json.cfg", "-i", str(image)).encode()
    assert len(text) == length
    guest = rumprun.boot(report.cmdline.decode(), [], {"json.cfg": text})
    assert (guest.env, guest.programs) == (config.env, [(["a", "b"], "")])


LINE = "".join(c for c in PRINTABLE if c not in "\"'\\")
"""Everything that passes a command line; a word with blanks arrives in double quotes."""
WORD = LINE.replace(" ", "")


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_solo5_by_command_line(family, firmware, tmp_path):
    family(Family.SOLO5, target="virtio")
    config = Config(rc=(Program(bin="app", argv=("--ipv4=10.0.0.2/24", WORD, LINE)),))
    report, _ = booted(tmp_path, firmware=firmware, config=config)
    assert report.cmdline.decode() == f'multiboot --ipv4=10.0.0.2/24 {WORD} "{LINE}"'


@pytest.mark.parametrize(
    ("length", "firmware"), [(4093, "bios"), (4094, "bios"), (4095, "bios"), (8191, "bios"), (8191, "uefi")]
)
def test_solo5_up_to_its_limit(family, length, firmware, tmp_path):
    family(Family.SOLO5, target="virtio")
    words = [WORD] * 40
    words.append("x" * (length - len(" ".join(words)) - 1))
    report, _ = booted(tmp_path, firmware=firmware, config=Config(rc=(Program(bin="app", argv=tuple(words)),)))
    assert report.cmdline.decode() == " ".join(["multiboot", *words])


@pytest.mark.parametrize("size", [1, WORD_LIMIT])
def test_unikraft_up_to_what_grub_reads(family, size, tmp_path):
    """Up to 64 KiB, which only many words can fill."""
    family(Family.UNIKRAFT)
    words = ["x" * size] * min(WORDS_LIMIT - 2, 65536 // (size + 1))
    report, _ = booted(tmp_path, config=Config(rc=(Program(bin="app", argv=tuple(words)),)))
    assert report.cmdline.decode() == " ".join(["multiboot --", *words])


def test_unikraft_by_command_line(family, tmp_path):
    family(Family.UNIKRAFT)
    network = Network(interface="eth0", type="inet", method="static", addr="10.0.0.2", mask=24, gw="10.0.0.1")
    value = WORD.replace("[", "").replace("]", "")
    config = Config(env={"A": value}, net=(network,), rc=(Program(bin="app", argv=("-c", "two words")),))
    report, _ = booted(tmp_path, config=config, cmdline="lib.param=1")
    assert report.cmdline.decode() == (
        f'multiboot lib.param=1 env.vars=[ A={value} ] netdev.ip=10.0.0.2/24:10.0.0.1 -- -c "two words"'
    )


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_linux_by_command_line_and_initrd(family, firmware, tmp_path):
    family(Family.LINUX)
    (tmp_path / "site").mkdir()
    for size in range(6):
        (tmp_path / "site" / f"f{size}").write_bytes(b"x" * size)
    data = Data(tree.scan(tmp_path / "site"), "/srv")
    initrd = b"first initrd, of odd length"
    report, _ = booted(
        tmp_path, "linux", firmware, config=Config(hostname="web1", env={"A": WORD}), data=(data,), cmdline="quiet",
        modules=[("initrd.img", initrd, "")],
    )  # fmt: skip
    assert report.arguments == f"quiet hostname=web1 A={WORD}"
    archive = cpio.archive(data.tree, mount="/srv", epoch=315532800).read()
    together = initrd.ljust(-(-len(initrd) // 4) * 4, b"\0") + archive
    assert [(m.size, m.crc32) for m in report.modules] == [(len(together), zlib.crc32(together))]


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_rumprun_with_data_and_a_volume(family, firmware, tmp_path):
    """The layout this guest needs: the ISO at the start, the volume as first partition of a plain MBR."""
    family(Family.RUMPRUN, target="hw_virtio", drivers=frozenset({"virtio-blk"}))
    for name in ("site", "db"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(name)
    report, image = booted(
        tmp_path, firmware=firmware, config=Config(cmdline="httpd"),
        data=(Data(tree.scan(tmp_path / "site"), "/data"),), volumes=(Writable(tree.scan(tmp_path / "db"), "/db"),),
    )  # fmt: skip
    expected = (
        b'{"blk":{"source":"dev","path":"/dev/ld0a","fstype":"blk","mountpoint":"/data"},\n'
        b'"blk":{"source":"dev","path":"/dev/ld0e","fstype":"blk","mountpoint":"/db"},\n"cmdline":"httpd"}'
    )
    assert [m.crc32 for m in report.modules] == [zlib.crc32(expected)]
    assert output_of("isoinfo", "-R", "-x", "/index.html", "-i", str(image)) == "site"
    table = json.loads(output_of("sfdisk", "--json", str(image)))["partitiontable"]
    assert (table["label"], [partition["type"] for partition in table["partitions"]]) == ("dos", ["83", "ef"])
    place = table["partitions"][0]
    with open(image, "rb") as disk:
        disk.seek(place["start"] * 512)
        (tmp_path / "volume").write_bytes(disk.read(place["size"] * 512))
    assert len(output_of("e2fsck", "-fn", str(tmp_path / "volume")).splitlines()) == 7
    assert ext2_reader.debugfs(tmp_path / "volume", "cat /index.html").endswith("db")
