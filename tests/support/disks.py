"""Hand-made disks for the containers' tests: every kind of extent, and no planner."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from types import SimpleNamespace

from rumpbundle.disk.content import FileSlice, Late, Literal
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import MIB, DiskLayout, Extent
from rumpbundle.formats import Job, OneFile, find
from rumpbundle.host.staging import staged_file
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol

IDENTITY = Identity(lambda: hashlib.sha256(b"a test bundle").hexdigest())

BUNDLE = SimpleNamespace(
    name="machine",
    boot={Firmware.BIOS: Protocol.MULTIBOOT, Firmware.UEFI: Protocol.MULTIBOOT},
    kernel=SimpleNamespace(family=Family.PLAIN, target="", drivers=frozenset()),
    footprint=0,
)
"""As much of a bundle as a container's writer looks at."""


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def disk_of(size: int, *extents: Extent, identity: Identity = IDENTITY) -> DiskLayout:
    end = max((e.end for e in extents), default=0)
    return DiskLayout(
        size=size,
        body=extents,
        partitions=(),
        table="gpt",
        write_table=lambda disk: (),
        identity=identity,
        body_end=end,
    )


def literal(offset: int, data: bytes) -> Extent:
    return Extent(offset, Literal(data), f"literal at {offset}")


def late(offset: int, length: int, identity: Identity = IDENTITY) -> Extent:
    def render() -> bytes:
        return (identity.octets("late", 32) * (length // 32 + 1))[:length]

    return Extent(offset, Late(length, render), f"late at {offset}")


def from_file(offset: int, path: Path, start: int = 0, length: int | None = None) -> Extent:
    file = InputFile(path)
    return Extent(offset, FileSlice(file, start, file.size - start if length is None else length), path.name)


def shapes(directory: Path) -> dict[str, DiskLayout]:
    """Return disks of every shape a container can get wrong."""
    payload = directory / "payload"
    payload.write_bytes(noise(3 * MIB + 700) + bytes(2 * MIB) + b"text " * 300_001)
    large = directory / "large"
    with large.open("wb") as file:
        file.write(noise(100_000))
        file.seek(4 << 30)
        file.write(noise(70_001))
    beyond = from_file(2 * MIB, large)
    odd = 5 * MIB + 3 * 512
    return {
        "empty": disk_of(MIB),
        "tiny": disk_of(MIB, literal(0, b"\x01")),
        "full": disk_of(4 * MIB, literal(0, noise(4 * MIB))),
        "zeros": disk_of(8 * MIB, literal(0, bytes(MIB)), literal(3 * MIB, bytes(MIB) + b"x")),
        "mixed": disk_of(
            16 * MIB,
            literal(0, noise(440)),
            late(512, 92),
            late(1024, 16384),
            from_file(64 * 512, payload),
            late(9 * MIB - 100, 4000),
            literal(12 * MIB + 17, b"middle of nowhere"),
        ),
        "unallocated tail": disk_of(40 * MIB, literal(0, noise(70_000)), late(100_000, 100)),
        "incompressible tail": disk_of(2 * MIB, literal(2 * MIB - 65536, noise(65536))),
        "late tail": disk_of(34 * MIB, from_file(MIB, payload), late(34 * MIB - 16896, 16896)),
        "odd size": disk_of(
            odd, literal(0, noise(1000)), from_file(1024, payload, 512, 3 * MIB), late(odd - 512, 512)
        ),
        "over 4 GiB": disk_of((4 << 30) + 8 * MIB, late(512, 512), beyond),
    }


def write(layout: DiskLayout, output: Path, name: str, subformat: str = "", *, jobs: int = 2, **changes) -> Path:
    """Write *layout* as format *name* into *output*."""
    fmt = find(name)
    values = {
        "layout": layout,
        "bundle": BUNDLE,
        "output": output,
        "subformat": fmt.subformat(subformat).name,
        "options": fmt.options() if fmt.options else None,
        "epoch": 315532800,
        "jobs": jobs,
    }
    job = Job(**(values | changes))
    fmt.admit(job)
    assert isinstance(fmt.product, OneFile)
    with staged_file(output, force=True) as out:
        fmt.product.write(job, out)
    return output
