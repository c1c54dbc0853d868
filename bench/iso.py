"""The ISO against grub-mkrescue, cp and xorriso: time, size and memory."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from measure import RUMPBUNDLE, Row, peak_memory, ratio, remove, report, run, run_with_sha256

KERNEL_BYTES = 3_000_000
BIG = 2 << 30
FILES = 50_000
ROOT = Path(__file__).parents[1]


def kernel(directory: Path) -> Path:
    """Return a Multiboot kernel of 3 MB: the example, and noise behind it."""
    run(["make", "-C", str(ROOT / "examples" / "hello")])
    path = directory / "app.bin"
    hello = (ROOT / "examples" / "hello" / "hello.bin").read_bytes()
    path.write_bytes(hello + os.urandom(KERNEL_BYTES - len(hello)))
    return path


def small(directory: Path, app: Path) -> Iterator[Row]:
    tree = directory / "rescue" / "boot" / "grub"
    tree.mkdir(parents=True)
    (tree.parent / "app.bin").write_bytes(app.read_bytes())
    (tree / "grub.cfg").write_text("multiboot /boot/app.bin\nboot\n")
    ours, peer = directory / "ours.iso", directory / "peer.iso"

    def bundle() -> float:
        remove(ours)
        return run([*RUMPBUNDLE, "iso", str(app), "-o", str(ours)])

    def rescue() -> float:
        remove(peer)
        return run(["grub-mkrescue", "-o", str(peer), str(directory / "rescue")])

    bundle()  # makes the boot images, once a machine
    yield ratio("iso of a 3 MB kernel: time / grub-mkrescue", 0.6, bundle, rescue)
    over = (ours.stat().st_size - KERNEL_BYTES) / 1e6
    theirs = (peer.stat().st_size - KERNEL_BYTES) / 1e6
    yield Row("iso of a 3 MB kernel: MB over the payload", over, 1.2, f"grub-mkrescue: {theirs:.1f} MB")


def big(directory: Path, app: Path) -> Iterator[Row]:
    payload = directory / "payload"
    with payload.open("wb") as file:
        for _ in range(BIG >> 24):
            file.write(os.urandom(1 << 24))
    ours, copy = directory / "ours.iso", directory / "copy"
    argv = [*RUMPBUNDLE, "iso", str(app), "--module", str(payload), "-o", str(ours)]

    def bundle() -> float:
        remove(ours)
        return run(argv)

    def cp() -> float:
        remove(copy)
        return run(["cp", str(payload), str(copy)])

    def cp_and_sha256() -> float:
        remove(copy)
        return run_with_sha256(["cp", str(payload), str(copy)], payload)

    cp()
    yield ratio("iso with a 2 GiB module: time / cp", 1.1, bundle, cp, rounds=5)
    # The manifest names the SHA-256 of every file: this is what that and the copy cost at least, on two cores.
    yield ratio("iso with a 2 GiB module: time / cp and SHA-256 at once", 1.1, bundle, cp_and_sha256, rounds=5)
    remove(ours)
    yield Row("iso with a 2 GiB module: peak memory in MiB", peak_memory(argv), 80, "")
    for path in (ours, copy, payload):
        remove(path)


def many(directory: Path) -> Iterator[Row]:
    top = directory / "many"
    for number in range(FILES):
        path = top / f"d{number // 500}" / f"file{number}.txt"
        if number % 500 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 100)
    ours, peer = directory / "ours.iso", directory / "peer.iso"

    def volume() -> float:
        remove(ours)
        return run([*RUMPBUNDLE, "volume", str(top), "-t", "iso9660", "-o", str(ours)])

    def xorriso() -> float:
        remove(peer)
        return run(["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(peer), str(top)])

    yield ratio("50,000 small files: time / xorriso -as mkisofs", 1.0, volume, xorriso, rounds=5)


def main() -> int:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        directory = Path(name)
        app = kernel(directory)
        return report(chain(small(directory, app), big(directory, app), many(directory)))


if __name__ == "__main__":
    sys.exit(main())
