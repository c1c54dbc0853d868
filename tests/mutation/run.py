"""Flip bytes of images of every format, one at a time, and see whether ``rumpbundle verify`` finds each.

Every byte of the metadata (what the container and the disk layout write themselves) and a sample of the rest::

    PYTHONPATH=.:tests nice python tests/mutation/run.py [FORMAT…] [--sample N] [--container] [--jobs N]

The disk in all of them is the same, and most of the metadata is its own; and the disk of an OVA is a stream. With
``--container`` only every byte is flipped that the container itself wrote, which takes a part of the time.

What is not found has to lie in a range of :data:`MEANINGLESS`. The suite runs a sample of it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import multiprocessing
import os
import random
import shutil
import sys
import tarfile
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from support import kernels

from rumpbundle.cli import main
from rumpbundle.errors import RumpbundleError
from rumpbundle.finished.origin import origin
from rumpbundle.finished.verify import verify
from rumpbundle.images.containers.archive import choose
from rumpbundle.images.containers.tar import Member
from rumpbundle.images.containers.vmdk import StreamVmdk
from rumpbundle.images.detect import open_disk
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.records import vmdk

IMAGES = {
    "iso": "app.iso",
    "raw": "app.raw",
    "vdi": "app.vdi",
    "qcow2": "app.qcow2",
    "vhd": "app.vhd",
    "vhd:fixed": "app.fixed.vhd",
    "vhdx": "app.vhdx",
    "vmdk": "app.vmdk",
    "vmdk:stream": "app.stream.vmdk",
    "ova": "app.ova",
    "gce": "app.gce.tar.gz",
    "azure": "app.azure.vhd",
}
PAYLOAD = 1000
"""Bytes of the payload that are flipped."""
SLOW = ("gce",)
"""Whose every flip means to unpack a GiB: a tenth of a sample is enough."""

MEANINGLESS = {
    "name of the extent": ("vmdk", "vmdk:stream", "ova"),
    "names of features": ("qcow2",),
    "size of a disk that is larger": ("qcow2",),
    "first digit of a checksum in a tar's header": ("ova",),
    "case of a digest's digit": ("ova",),
    "end of compressed data": ("vmdk:stream", "ova", "gce"),
    "date in gzip's header": ("gce",),
    "bits that fill a byte of compressed data": ("gce",),
}
"""What carries no meaning, and the formats that have it (docs/verify.md says why)."""


@dataclass
class Outcome:
    """What became of the flips in one image."""

    format: str
    metadata: int = 0
    payload: int = 0
    found: int = 0
    meaningless: Counter[str] = field(default_factory=Counter)
    missed: list[int] = field(default_factory=list)


def build(directory: Path) -> None:
    """Write an image of each format into *directory*, all of one bundle with a module and a volume."""
    app = directory / "app.bin"
    app.write_bytes(kernels.build("multiboot").read_bytes())
    (directory / "module").write_bytes(b"module " * 1000)
    argv = ["build", str(app), "-q", "-o", str(directory), "-f", ",".join(IMAGES), "--module", f"{directory}/module"]
    if main([*argv, "--cmdline", "a b"]):
        raise SystemExit("the images could not be made")


def payload(image: Path) -> list[tuple[int, int]]:
    """Return start and end, in the file, of all that is payload: files, boot loaders, free space, compressed data."""
    with open_disk(image) as disk:
        if "gzip" in disk.around:
            return [(10, image.stat().st_size - 8)]
        start = _member(image).offset if disk.around == ("tar",) else 0
        if isinstance(disk, StreamVmdk):
            return [(start + low, start + high) for low, high in _grains(disk)]
        layout = origin(disk).plan().padded(least=disk.size)
        kept = [
            (extent.offset, extent.end)
            for extent in layout.extents
            if not extent.label.startswith(("/boot/grub/eltorito.img", "EFI system partition:/EFI/BOOT/BOOTX64.EFI"))
            and not extent.label.startswith(("room of", "/boot/kernel", "/boot/modules"))
        ]
        free = _inverted(kept, layout.size)
        found = []
        for low, high in free:
            while low < high:
                position, run, _ = disk.locate(low)
                count = min(run, high - low)
                if position is not None:
                    found.append((position, position + count))
                low += count
        return found + _unclaimed(disk)


def _member(image: Path) -> Member:
    fd = os.open(image, os.O_RDONLY)
    try:
        return choose(FdMedium(fd))
    finally:
        os.close(fd)


def _unclaimed(disk) -> list[tuple[int, int]]:
    return list(disk.claims().free()) if hasattr(disk, "claims") else []


def _grains(disk: StreamVmdk) -> Iterator[tuple[int, int]]:
    at = 512 * disk.header.overhead
    while True:
        head = vmdk.GrainHeader.unpack(disk.medium.read(at, 12))
        if head.size:
            yield at + 12, at + 12 + head.size
            at += -(-(12 + head.size) // 512) * 512
            continue
        marker = vmdk.Marker.unpack(disk.medium.read(at, 512))
        if marker.type == vmdk.MARKER_END:
            return
        at += 512 * (1 + marker.sectors)


def _inverted(ranges: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    found, position = [], 0
    for low, high in sorted(ranges):
        if low > position:
            found.append((position, low))
        position = max(position, high)
    return [*found, (position, size)] if position < size else found


def meaning(format: str, data: bytes, at: int, changed: bytes, inside: list[tuple[int, int]]) -> str:
    """Return which kind of space without meaning byte *at* of *data*, now *changed*, is in; empty if in none."""
    if format in MEANINGLESS["name of the extent"]:
        quoted = data.find(b' SPARSE "') + 9
        if quoted > 9 and quoted <= at < data.index(b'"', quoted):
            return "name of the extent"
    if format == "qcow2":
        if 24 <= at < 32 and changed[24:32] > data[24:32] and not changed[31] and not changed[30] & 1:
            return "size of a disk that is larger"
        start = data.find(b"\x68\x03\xf8\x57")
        if start + 8 <= at < start + 8 + int.from_bytes(data[start + 4 : start + 8], "big"):
            return "names of features"
    if format == "ova":
        for member in _members(data):
            if at == member.offset + 148 and _members(changed) == _members(data):
                return "first digit of a checksum in a tar's header"
            inside_it = member.offset_data <= at < member.offset_data + member.size
            if member.name.endswith(".mf") and inside_it and changed.lower() == data.lower():
                return "case of a digest's digit"
    if format in MEANINGLESS["end of compressed data"] and any(high - 6 <= at < high for _, high in inside):
        return "end of compressed data"
    if format in MEANINGLESS["date in gzip's header"] and 4 <= at < 8:
        return "date in gzip's header"
    filling = "bits that fill a byte of compressed data"
    if format in MEANINGLESS[filling] and _unpacked(changed) == _unpacked(data):
        return "bits that fill a byte of compressed data"
    return ""


class _Member(tarfile.TarInfo):
    """What Python's own tarfile reads of a member, to compare."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Member) and self.get_info() == other.get_info()

    __hash__ = None


def _members(data: bytes) -> list[_Member]:
    with tarfile.open(fileobj=io.BytesIO(data), tarinfo=_Member) as file:
        return file.getmembers()


@lru_cache(maxsize=2)
def _unpacked(data: bytes) -> str:
    """Return the digest of what Python's own zlib makes of a gzip file; of one that it refuses, why."""
    digest = hashlib.sha256()
    try:
        with gzip.open(io.BytesIO(data)) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except (OSError, EOFError, zlib.error) as error:
        return str(error)
    return digest.hexdigest()


def is_found(path: Path) -> bool:
    try:
        return bool(verify(path, opinions=False).damage)
    except RumpbundleError:
        return True


def wrapping(image: Path) -> list[tuple[int, int]]:
    """Return start and end, in the file, of all that is not the disk's: what the container itself wrote."""
    size = image.stat().st_size
    with open_disk(image) as disk:
        if disk.around == ("tar",):
            member = _member(image)
            return _inverted([(member.offset, member.offset + member.size)], size)
        if "gzip" in disk.around or isinstance(disk, StreamVmdk):
            return _inverted(payload(image), size)
        mapped, position = [], 0
        while position < disk.size:
            place, run, _ = disk.locate(position)
            count = min(run, disk.size - position)
            if place is not None:
                mapped.append((place, place + count))
            position += count
        return _inverted(mapped + _unclaimed(disk), size)


def one_bit(data: bytes, at: int) -> tuple[int, bytes]:
    """Return what to write where: byte *at* with a bit flipped."""
    return at, bytes([data[at] ^ 1 << at % 8])


def huge(data: bytes, at: int) -> tuple[int, bytes]:
    """Return what to write where: a size or place far behind all that there is, over the number that *at* is in."""
    start = at - at % 8
    return start, (1 << 62).to_bytes(8, "little")[: len(data) - start]


def attack(
    format: str,
    image: Path,
    sample: int,
    seed: int,
    part: int,
    parts: int,
    *,
    container: bool = False,
    change: Callable[[bytes, int], tuple[int, bytes]] = one_bit,
) -> Outcome:
    """Change the bytes of *image* that are this part's; *sample* is the most of the metadata (0: all)."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        path = directory / image.name
        shutil.copyfile(image, path)
        data = path.read_bytes()
        assert not is_found(path), f"{format} is damaged before anything is flipped"
        sample = -(-sample // 10) if format in SLOW else sample
        inside = payload(image)
        draw = random.Random(seed)
        ranges = wrapping(image) if container else _inverted(inside, len(data))
        outside = [at for low, high in ranges for at in range(low, high)]
        if sample and len(outside) > sample:
            outside = sorted(draw.sample(outside, sample))
        total = sum(high - low for low, high in inside)
        count = 0 if container else min(sample or PAYLOAD, PAYLOAD, total)
        picks = sorted(draw.randrange(total) for _ in range(count))
        outcome = Outcome(format)
        for kind, places in (("metadata", outside), ("payload", [_place(inside, pick) for pick in picks])):
            for at in places[part::parts]:
                setattr(outcome, kind, getattr(outcome, kind) + 1)
                start, new = change(data, at)
                write(path, start, new)
                if is_found(path):
                    outcome.found += 1
                elif reason := meaning(format, data, at, path.read_bytes(), inside):
                    outcome.meaningless[reason] += 1
                else:
                    outcome.missed.append(at)
                write(path, start, data[start : start + len(new)])
        return outcome
    finally:
        shutil.rmtree(directory)


def _place(inside: list[tuple[int, int]], pick: int) -> int:
    for low, high in inside:
        if pick < high - low:
            return low + pick
        pick -= high - low
    raise AssertionError


def write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def together(outcomes: list[Outcome]) -> Outcome:
    whole = Outcome(outcomes[0].format)
    for each in outcomes:
        whole.metadata += each.metadata
        whole.payload += each.payload
        whole.found += each.found
        whole.meaningless += each.meaningless
        whole.missed += each.missed
    return whole


def run(formats: list[str], sample: int, jobs: int, seed: int = 1, *, container: bool = False) -> list[Outcome]:
    """Attack an image of each of *formats* and return what became of each."""
    directory = Path(tempfile.mkdtemp())
    try:
        build(directory)
        tasks = [(f, directory / IMAGES[f], sample, seed, part, jobs) for f in formats for part in range(jobs)]
        one = partial(attack, container=container)
        if jobs == 1:
            results = [one(*task) for task in tasks]
        else:
            with multiprocessing.get_context("fork").Pool(jobs) as pool:
                results = pool.starmap(one, tasks, chunksize=1)
        return [together([each for each in results if each.format == format]) for format in formats]
    finally:
        shutil.rmtree(directory)


def report(outcomes: list[Outcome]) -> int:
    print(f"{'format':12} {'metadata':>9} {'payload':>8} {'found':>9} {'no meaning':>11} {'missed':>7}")
    for each in outcomes:
        less = sum(each.meaningless.values())
        print(f"{each.format:12} {each.metadata:9} {each.payload:8} {each.found:9} {less:11} {len(each.missed):7}")
        for reason, count in sorted(each.meaningless.items()):
            print(f"{'':12} {count} in: {reason}")
        if each.missed:
            print(f"{'':12} missed: {' '.join(map(str, each.missed[:40]))}")
    return any(each.missed for each in outcomes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Flip bytes of images and see whether verify finds it.")
    parser.add_argument("formats", nargs="*", default=list(IMAGES), help="formats to attack: all")
    parser.add_argument("--sample", type=int, default=0, help="flips in the metadata at most (0: every byte)")
    parser.add_argument("--container", action="store_true", help="only what the container itself wrote")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    sys.exit(report(run(arguments.formats, arguments.sample, arguments.jobs, container=arguments.container)))
