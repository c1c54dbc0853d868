"""How time and memory grow with the input, one dimension at a time, beside the programs that do the same work.

    python bench/scaling.py [DIMENSION…]     prints a line for each point; BENCH_SCALING=FILE gets them as JSON

A point that takes less than a second is measured five times, a longer one once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from inputs import kernel, payload, rumprun, tree
from measure import MIB, RUMPBUNDLE, cost, remove, run, scaled, scratch
from trees import mke2fs, volume, xorriso

GIB = 1 << 30
TIMES = 5
LARGEST_RAW = 1024
"""MiB of payload up to which qemu-img gets a raw image: payload, raw and output of 8 GiB each do not fit 20 GB."""


@dataclass(frozen=True)
class Dimension:
    """What grows: its name, its unit in words, and its steps."""

    name: str
    unit: str
    steps: tuple[int, ...]


PAYLOAD = Dimension("payload", "payload, MiB", (1, 16, 128, 1024, 8192))
FILES = Dimension("files", "files", (1, 10, 100, 1_000, 10_000, 50_000, 200_000))
FORMATS = Dimension("formats", "formats built at once", (1, 2, 4, 8, 12))
VOLUME = Dimension("volume", "size of the volume, GiB", (1, 4, 16, 64, 256, 1024))
KERNEL = Dimension("kernel", "kernel, MiB", (1, 4, 16, 64, 256))
MODULES = Dimension("modules", "modules", (1, 10, 100, 300, 1000))
DIMENSIONS = (PAYLOAD, FILES, FORMATS, VOLUME, KERNEL, MODULES)


@dataclass(frozen=True)
class Point:
    """One contestant at one step: its seconds, each time it ran, and its peak memory in MiB."""

    dimension: str
    contestant: str
    step: int
    seconds: Sequence[float]
    memory: float


def works(argv: Sequence[str]) -> bool:
    """Return whether a program that may be missing, or not run on this machine, does its work."""
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def measured(dimension: Dimension, step: int, contestants: dict[str, Sequence[str]], out: Path) -> Iterator[Point]:
    """Run the contestants in turn; each writes *out*, a file or a directory."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(TIMES):
        for name, argv in contestants.items():
            if not costs[name] or costs[name][0][0] < 1:
                remove(out)
                costs[name].append(cost(argv))
    remove(out)
    for name, found in costs.items():
        seconds, memory = zip(*found, strict=True)
        yield Point(dimension.name, name, step, seconds, max(memory))


def ours(format: str, app: Path, out: Path, *words: str) -> list[str]:
    return [*RUMPBUNDLE, format, str(app), "-o", str(out), "--no-sync", "-q", *words]


def payloads(directory: Path, out: Path) -> Iterator[Point]:
    app, raw = kernel(directory / "app.bin"), directory / "app.raw"
    for step in PAYLOAD.steps:
        module = payload(directory / "payload", scaled(step * MIB))
        words = ("--module", str(module))
        contestants = {
            "rumpbundle iso": ours("iso", app, out, *words),
            "rumpbundle vdi": ours("vdi", app, out, *words),
            "rumpbundle qcow2": ours("qcow2", app, out, *words),
            "cp": ["cp", str(module), str(out)],
        }
        if step <= LARGEST_RAW:
            run(ours("raw", app, raw, *words, "--force"))
            theirs = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(out)]
            contestants["qemu-img convert to qcow2"] = theirs
        else:
            remove(raw)
        yield from measured(PAYLOAD, step, contestants, out)


def files(directory: Path, out: Path) -> Iterator[Point]:
    for step in FILES.steps:
        top = tree(directory / "tree", scaled(step))
        run(volume("ext2", top, out))
        size = out.stat().st_size
        contestants = {
            "rumpbundle volume -t iso9660": volume("iso9660", top, out),
            "rumpbundle volume -t ext2": volume("ext2", top, out),
            "xorriso": xorriso(top, out),
            "mke2fs -d": mke2fs(top, out, size),
        }
        appliance = ["virt-make-fs", "--type=ext2", str(top), str(out)]
        if step in (1_000, 10_000) and works(appliance):
            contestants["virt-make-fs"] = appliance
        yield from measured(FILES, step, contestants, out)
        remove(top)


def formats(directory: Path, out: Path) -> Iterator[Point]:
    app = kernel(directory / "app.bin")
    every = ("raw", "iso", "vdi", "vmdk:stream", "ova", "vmdk", "qcow2", "vhd", "vhdx", "ec2", "gce", "azure")
    for step in FORMATS.steps:
        argv = [*RUMPBUNDLE, "build", str(app), "-f", ",".join(every[:step]), "-o", str(out), "--no-sync", "-q"]
        yield from measured(FORMATS, step, {"rumpbundle build": argv}, out)


def volumes(directory: Path, out: Path) -> Iterator[Point]:
    app, top = rumprun(directory / "rumprun.bin"), tree(directory / "state", 1)
    for step in VOLUME.steps:
        words = ("--volume", f"{top}:/data:{step}G")
        contestants = {
            "rumpbundle raw": ours("raw", app, out, *words),
            "rumpbundle vdi": ours("vdi", app, out, *words),
            "rumpbundle qcow2": ours("qcow2", app, out, *words),
            "mke2fs -d": mke2fs(top, out, step * GIB),
        }
        yield from measured(VOLUME, step, contestants, out)


def kernels(directory: Path, out: Path) -> Iterator[Point]:
    boot = directory / "rescue" / "boot"
    (boot / "grub").mkdir(parents=True)
    (boot / "grub" / "grub.cfg").write_text("multiboot /boot/app.bin\nboot\n")
    for step in KERNEL.steps:
        app = kernel(boot / "app.bin", scaled(step * MIB))
        contestants = {
            "rumpbundle iso": ours("iso", app, out),
            "grub-mkrescue": ["grub-mkrescue", "-o", str(out), str(directory / "rescue")],
        }
        yield from measured(KERNEL, step, contestants, out)


def modules(directory: Path, out: Path) -> Iterator[Point]:
    app = kernel(directory / "app.bin")
    for step in MODULES.steps:
        top = tree(directory / "modules", step, 4096)
        words = [word for path in sorted(top.rglob("*.txt")) for word in ("--module", str(path))]
        contestants = {"rumpbundle iso": ours("iso", app, out, *words), "xorriso": xorriso(top, out)}
        yield from measured(MODULES, step, contestants, out)
        remove(top)


MEASURES = dict(zip(DIMENSIONS, (payloads, files, formats, volumes, kernels, modules), strict=True))


def main(names: list[str]) -> None:
    for dimension, points in MEASURES.items():
        if names and dimension.name not in names:
            continue
        print(f"== {dimension.unit}", flush=True)
        with scratch() as directory:
            for point in points(directory, directory / "out"):
                middle = statistics.median(point.seconds)
                print(f"{point.step:>8} {point.contestant:<30} {middle:9.3f} s {point.memory:7.0f} MiB", flush=True)
                if results := os.environ.get("BENCH_SCALING"):
                    with open(results, "a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(point)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
