"""The ISO against grub-mkrescue and cp: time, size, memory, and what a start imports and executes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from inputs import KERNEL_BYTES, kernel, payload
from measure import RUMPBUNDLE, Row, compare, cost, fresh, in_turn, ratio, remove, report, run, scaled, scratch


def small(directory: Path, app: Path) -> Iterator[Row]:
    grub = directory / "rescue" / "boot" / "grub"
    grub.mkdir(parents=True)
    (grub.parent / "app.bin").write_bytes(app.read_bytes())
    (grub / "grub.cfg").write_text("multiboot /boot/app.bin\nboot\n")
    ours, peer = directory / "ours.iso", directory / "peer.iso"
    bundle = fresh([*RUMPBUNDLE, "iso", str(app), "-o", str(ours)], ours)
    rescue = fresh(["grub-mkrescue", "-o", str(peer), str(directory / "rescue")], peer)
    bundle()  # makes the boot images, once a machine
    yield ratio("iso-small", bundle, rescue, rounds=15)
    over = (ours.stat().st_size - KERNEL_BYTES) / 1e6
    theirs = (peer.stat().st_size - KERNEL_BYTES) / 1e6
    yield Row("iso-small-size", over, f"grub-mkrescue: {theirs:.1f} MB")
    yield from start(directory, app)


def start(directory: Path, app: Path) -> Iterator[Row]:
    """Count what time is too noisy to show: instructions (valgrind's count) and modules."""
    out = directory / "start.iso"
    words = [*RUMPBUNDLE[1:], "iso", str(app), "-o", str(out), "-q"]
    run([sys.executable, *words])  # the first one compiles what has no byte code yet
    remove(out)
    profile = directory / "callgrind"
    counted = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}", sys.executable, *words]
    same = {**os.environ, "PYTHONHASHSEED": "0"}
    said = subprocess.run(counted, env=same, check=True, capture_output=True, text=True).stderr
    remove(out)
    found = re.search(r"Collected : (\d+)", said)
    assert found, said
    yield Row("start-instructions", int(found[1]) / 1e6, "valgrind --tool=callgrind")
    told = [sys.executable, "-X", "importtime", *words]
    lines = subprocess.run(told, check=True, capture_output=True, text=True).stderr.splitlines()
    names = {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")} - {
        "imported package"
    }
    own = sum(name.startswith("rumpbundle") for name in names)
    clicks = sum(name.split(".")[0] == "click" for name in names)
    yield Row("start-modules", len(names), f"{own} of them ours, {clicks} click's, the rest Python's")
    least = fresh([sys.executable, "-c", "import click"])
    yield ratio("start", fresh([sys.executable, *words, "--no-sync"], out), least, rounds=31)


def big(directory: Path, app: Path, size: int, name: str, rounds: int, formats: tuple[str, ...]) -> Iterator[Row]:
    module = payload(directory / "payload", size)
    ours, copy = directory / "ours", directory / "copy"
    copied = fresh(["cp", str(module), str(copy)], copy, ours)
    synced = fresh(["sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", str(module), str(copy)], copy, ours)

    def bundle(format: str, *words: str) -> list[str]:
        return [*RUMPBUNDLE, format, str(app), "--module", str(module), "-o", str(ours), *words]

    copied()
    contestants = {format: fresh(bundle(format, "--no-sync"), ours, copy) for format in formats}
    seconds = in_turn({**contestants, "cp": copied}, rounds)
    for format in formats:
        yield compare(f"{format}-{name}", seconds, format, "cp")
    yield ratio(f"iso-{name}-synced", fresh(bundle("iso"), ours, copy), synced, rounds)
    if name == "8g":
        remove(ours)
        yield Row("memory-payload", cost(bundle("iso"))[1])
    for path in (ours, copy, module):
        remove(path)


def main() -> int:
    with scratch() as directory:
        app = kernel(directory / "app.bin")

        def rows() -> Iterator[Row]:
            yield from small(directory, app)
            yield from big(directory, app, scaled(2 << 30), "2g", 9, ("iso", "raw"))
            yield from big(directory, app, scaled(8 << 30), "8g", 9, ("iso",))

        return report(rows())


if __name__ == "__main__":
    sys.exit(main())
