"""What is fuzzed: each target takes any bytes and does with them what a user would; only our own errors may come out.

Kernels and images are made from seeds: the first byte of an input chooses one, the rest changes it (:func:`changed`),
so inputs stay small and most of each file makes sense. A configuration or a command line is the input itself.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import accumulate
from pathlib import Path
from xml.etree import ElementTree

from support import disks, rumprun, stub, synthetic

from fuzz import commandlines
from fuzz.commandlines import scratch
from rumpbundle import config, guests, hybrid
from rumpbundle.disk.content import Content
from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.layout import MIB, DiskLayout
from rumpbundle.disk.tree import Directory, File, Symlink
from rumpbundle.errors import RumpbundleError
from rumpbundle.finished.origin import origin
from rumpbundle.images.detect import open_disk
from rumpbundle.images.report.image import look_into
from rumpbundle.images.report.picture import svg
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel, examine
from rumpbundle.kernels.view import View
from rumpbundle.manifest import Module, Volume
from rumpbundle.volume import ext2

SECTOR = 512
_CUT = 0xF0
"""Operations from here on cut the file off; smaller ones write up to 8 bytes."""


def changed(seed: bytes, orders: bytes) -> bytes:
    """Return *seed* with *orders* carried out: operation, three bytes of place, and the bytes to write there.

    A place counts the sectors that are not all zero, so that it is one with a meaning.
    """
    data = bytearray(seed)
    spots = _spots(seed)
    at = 0
    while at + 4 <= len(orders) and spots:
        operation, place = orders[at], int.from_bytes(orders[at + 1 : at + 4], "big")
        offset = spots[place // SECTOR % len(spots)] + place % SECTOR
        at += 4
        if operation >= _CUT:
            del data[offset:]
            continue
        new = orders[at : at + operation % 8 + 1]
        at += len(new)
        if offset + len(new) <= len(data):
            data[offset : offset + len(new)] = new
    return bytes(data)


@cache
def _spots(seed: bytes) -> tuple[int, ...]:
    zeros = bytes(SECTOR)
    return tuple(at for at in range(0, len(seed), SECTOR) if seed[at : at + SECTOR] != zeros)


def _chosen(seeds: tuple[bytes, ...], data: bytes) -> bytes:
    return changed(seeds[data[0] % len(seeds)], data[1:]) if data else b""


# -- kernels -----------------------------------------------------------------------------------------------


@cache
def kernel_seeds() -> tuple[bytes, ...]:
    multiboot2 = synthetic.multiboot2(synthetic.tag(1, bytes(8)), synthetic.tag(2, bytes(16)))
    elf = synthetic.multiboot_elf(multiboot2 + synthetic.multiboot1())
    notes = synthetic.solo5_notes(3, ("storage", 1), ("service", 2))
    return (
        elf,
        synthetic.multiboot_elf(synthetic.multiboot1(), bits=64),
        synthetic.rumprun(b"vioscsi"),
        synthetic.elf([synthetic.Segment(bytes(64)), synthetic.Segment(notes, type=synthetic.NOTE)]),
        synthetic.bzimage(payload=64),
        synthetic.pe(setup=synthetic.bzimage(payload=64)),
        synthetic.pe(sections=(".linux", ".initrd")),
        gzip.compress(elf, mtime=0),
    )


def kernels(data: bytes) -> None:
    kernel = _chosen(kernel_seeds(), data)

    def read(offset: int, length: int) -> bytes:
        return kernel[offset : offset + length]

    with contextlib.suppress(RumpbundleError):
        found = examine("app.bin", View(len(kernel), read), Content.of_bytes(kernel))
        for firmware in Firmware:
            found.protocol_for(firmware)
        found.content.digest()


# -- configurations ----------------------------------------------------------------------------------------


def _kernel(family: Family, target: str = "", drivers: str = "") -> Unikernel:
    return Unikernel(
        name="app.bin", content=Content(()), family=family, protocols=(Protocol.MULTIBOOT,),
        target=target, drivers=frozenset(drivers.split()),
    )  # fmt: skip


RUMPRUN = _kernel(Family.RUMPRUN, "hw_generic", "virtio-blk virtio-scsi usb virtio-net e1000")
KERNELS = (
    *(_kernel(family) for family in Family),
    _kernel(Family.RUMPRUN, "hw_virtio", "virtio-blk virtio-net"),
    _kernel(Family.RUMPRUN, "xen_pv", "xen-blk xen-net"),
)


def configs(data: bytes) -> None:
    """Read *data* as a configuration and as an option; one that begins with a blank is bundled with directories."""
    with contextlib.suppress(RumpbundleError, UnicodeDecodeError):
        config.network(data.decode())
    try:
        parsed = config.parse(data, "cfg.json")
    except RumpbundleError:
        return
    assert config.parse(config.clean_text(parsed).encode(), "again") == parsed
    with contextlib.suppress(RumpbundleError):
        changed = config.combined(parsed, program="app", env=["A=b"], hostname="h", arguments=["x"])
        assert config.parse(config.clean_text(changed).encode(), "again") == changed
    boot = dict.fromkeys(Firmware, Protocol.MULTIBOOT)
    for kernel in KERNELS:
        with contextlib.suppress(RumpbundleError):
            guests.deliver(guests.Request(kernel=kernel, boot=boot, config=parsed, epoch=0))
    trees = {}
    if data.startswith(b" "):
        trees = {"data": (guests.Data(_tree(), "/data"),), "volumes": (guests.Writable(_tree(), "/db", 256 << 10),)}
    try:
        delivery = guests.deliver(guests.Request(kernel=RUMPRUN, boot=boot, config=parsed, epoch=0, **trees))
    except RumpbundleError:
        return
    files = {node.name: node.content.read() for node in delivery.root.children if node.name == "json.cfg"}
    # What was accepted must arrive: the oracle panics where the guest would.
    found = rumprun.boot(delivery.cmdline, [module.content.read() for module in delivery.modules], files)
    assert (found.env, found.hostname) == (parsed.env, parsed.hostname)
    mounts = {entry.get("mountpoint") for entry in found.blk}
    assert mounts >= {block.mountpoint for block in parsed.blk}
    assert mounts >= {each.mount for kind in trees.values() for each in kind}
    if parsed.rc:
        assert found.programs == [([program.bin, *program.argv], program.runmode) for program in parsed.rc]


# -- images ------------------------------------------------------------------------------------------------


def _tree() -> Directory:
    deep = Directory.of("deep", [File("file", Content.of_bytes(b"x" * 3000)), Symlink("link", "../../there")])
    return Directory.of("", [Directory.of("data", [deep]), File("json.cfg", Content.of_bytes(b"{}"))])


def _disks() -> tuple[DiskLayout, ...]:
    """Return a GPT hybrid, and an MBR hybrid with a volume."""
    volume, _ = ext2(_tree(), label="data", epoch=1_000_000_000, size=256 << 10)
    return (
        hybrid.plan(stub.bundle(_tree()), stub.IMAGES),
        hybrid.plan(stub.bundle(volumes=(Volume("data", "ext2", volume.content),), table="mbr"), stub.IMAGES),
    )


@cache
def image_seeds() -> tuple[bytes, ...]:
    gpt, mbr = (disk.padded(align=MIB) for disk in _disks())
    seeds = []
    with tempfile.TemporaryDirectory() as directory:
        for number, disk in enumerate((gpt, mbr)):
            path = Path(directory) / f"{number}.raw"
            with path.open("w+b") as file:
                write_flat(disk, file.fileno())
            seeds.append(path.read_bytes())
        for container in ("vmdk:sparse", "vmdk:stream", "vdi:", "vhd:dynamic", "qcow2:", "vhdx:", "ova:"):
            name, _, subformat = container.partition(":")
            seeds.append(disks.write(gpt, Path(directory) / f"{name}{subformat}", name, subformat).read_bytes())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("disk.raw")
        info.size = len(seeds[0])
        archive.addfile(info, io.BytesIO(seeds[0]))
    seeds.append(gzip.compress(packed.getvalue(), mtime=0))
    return tuple(seeds)


def images(data: bytes) -> None:
    path = scratch() / "image"
    path.write_bytes(_chosen(image_seeds(), data))
    with contextlib.suppress(RumpbundleError):
        image = look_into(path)
        ElementTree.fromstring(svg(image))


# -- manifests ---------------------------------------------------------------------------------------------


@cache
def manifest_seeds() -> tuple[tuple[bytes, int, bytes], ...]:
    """Return images of ours that can be planned again, with place and bytes of their manifests."""
    elf, rump = kernel_seeds()[0], synthetic.rumprun(b"vioscsi")
    volume, _ = ext2(_tree(), label="data", epoch=1_000_000_000, size=256 << 10)
    made = (
        stub.bundle(_tree(), kernel=_examined(elf), modules=(Module("m", Content.of_bytes(b"module"), "m x"),)),
        stub.bundle(kernel=_examined(rump), volumes=(Volume("data", "ext2", volume.content),), table="mbr"),
    )
    seeds = []
    for bundle in made:
        with tempfile.TemporaryFile() as file:
            write_flat(hybrid.plan(bundle, stub.IMAGES).padded(align=MIB), file.fileno())
            file.seek(0)
            image, text = file.read(), bundle.manifest_bytes
        seeds.append((image, image.index(text), text))
    return tuple(seeds)


def _examined(data: bytes) -> Unikernel:
    return examine("app.bin", View.of_bytes(data), Content.of_bytes(data))


def manifests(data: bytes) -> None:
    """Change a manifest, blanks in the place of what is cut off, and plan the image again."""
    seeds = manifest_seeds()
    image, at, text = seeds[data[0] % len(seeds) if data else 0]
    new = changed(text, data[1:]).ljust(len(text))
    path = scratch() / "image"
    path.write_bytes(image[:at] + new + image[at + len(text) :])
    with contextlib.suppress(RumpbundleError), open_disk(path) as disk:
        found = origin(disk)
        assert found.raw == new
        found.plan()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "kernels": kernels,
    "configs": configs,
    "images": images,
    "manifests": manifests,
    "commandlines": commandlines.commandlines,
}
STARTS: dict[str, tuple[bytes, ...]] = {
    "kernels": tuple(bytes((number,)) for number in range(8)),
    "configs": (
        b'{"hostname": "h", "env": {"A": "b"}, "rc": [{"bin": "a", "argv": ["b"], "runmode": "&"}]}',
        b'{"cmdline": "a \'b c\'", "blk": [{"source": "dev", "path": "/dev/ld0a", "fstype": "blk"}]}',
        b'{"net": [{"if": "wm0", "type": "inet", "method": "static", "addr": "10.0.0.2", "mask": 8}], "cmdline": ""}',
        b'{"env": "A=1", "env": "B=2", "net": {"if": "vioif0", "type": "inet", "method": "dhcp"}, "cmdline": "x",}',
    ),
    "images": tuple(bytes((number,)) for number in range(10)),
    "manifests": (bytes((0,)), bytes((1,))),
    "commandlines": commandlines.STARTS,
}
"""Inputs to start from where there is no corpus yet."""
WORDS: dict[str, tuple[str, ...]] = {
    "configs": (
        *("cmdline", "rc", "rc_TESTING", "bin", "argv", "runmode", "env", "hostname", "net", "blk"),
        *("if", "type", "method", "addr", "mask", "gw", "cloner", "inet", "inet6", "dhcp", "static", "auto"),
        *("source", "path", "fstype", "mountpoint", "dev", "vnd", "etfs", "kernfs"),
        *("vioif0", "wm0", "xenif0", "/dev/ld0a", "/dev/sd0e", "xvda", "/data", "/db", "10.0.0.1", "::1", "true"),
        *('": "', '": [{"', '"}, {"', '": {"', '"], "', "\\u0000", "\\ud800", "A=", "_RUMPRUN_ROOTFSCFG="),
    ),
    "commandlines": commandlines.words(),
}
"""What a fuzzer would take long to find by itself: the words of the format, for libFuzzer's dictionary."""


def pack(inputs: list[bytes]) -> str:
    """Return *inputs* as the text of a corpus: one a line, in hexadecimal, shortest first."""
    return "".join(f"{each.hex()}\n" for each in sorted(set(inputs), key=lambda each: (len(each), each)))


def unpack(text: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in text.splitlines()]


def limited(inputs: list[bytes], most: int) -> list[bytes]:
    """Return the shortest of *inputs* that are together at most *most* bytes."""
    ordered = sorted(set(inputs), key=lambda each: (len(each), each))
    return [each for each, total in zip(ordered, accumulate(map(len, ordered)), strict=True) if total <= most]
