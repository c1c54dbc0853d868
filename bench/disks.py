"""Disk containers against qemu-img, from the same content: times as ratios, sizes, and the disk space used meanwhile.

Each row pairs `rumpbundle FORMAT KERNEL --module PAYLOAD`, a whole process that starts from the input files, with
`qemu-img convert` alone from a raw image that exists already. Runs alternate and the best of each counts, as other
work on the machine only ever adds. Run it with the interpreter rumpbundle is installed for:

    python bench/disks.py [--payload MIB] [--runs N] [--in DIRECTORY]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

MIB = 1 << 20
RUMPBUNDLE = (sys.executable, "-m", "rumpbundle")
STREAM = ("convert", "-O", "vmdk", "-o", "subformat=streamOptimized")
ROWS = {
    # format: (arguments of ours, arguments of qemu-img convert, the most we may take of its time)
    "vmdk-stream": (("vmdk", "--subformat", "stream"), STREAM, 1 / 3),
    "ova": (("ova",), STREAM, 1 / 3),
    "vmdk-sparse": (("vmdk",), ("convert", "-O", "vmdk"), 1.1),
    "qcow2": (("qcow2",), ("convert", "-O", "qcow2"), 1.1),
    "vhd-dynamic": (("vhd",), ("convert", "-O", "vpc", "-o", "subformat=dynamic,force_size=on"), 1.1),
    "vhdx": (("vhdx",), ("convert", "-O", "vhdx"), 1.1),
    "vdi": (("vdi",), ("convert", "-O", "vdi"), 1.1),
    "vhd-fixed": (
        ("vhd", "--subformat", "fixed"),
        ("convert", "-O", "vpc", "-o", "subformat=fixed,force_size=on"),
        1.1,
    ),
}
SEVEN = "iso,vmdk,vdi,qcow2,vhd,vhdx,ova"


def kernel(path: Path, size: int) -> Path:
    """Write a file that passes for a Multiboot kernel of *size* bytes; nobody boots it here."""
    header = struct.pack("<IIIIIIII", 0x1BADB002, 0x10003, -(0x1BADB002 + 0x10003) & 0xFFFFFFFF, 0x100000, 0x100000,
                         0, 0, 0x100020)  # fmt: skip
    code = Path(sys.executable).resolve().read_bytes()
    path.write_bytes((header + code * (size // len(code) + 1))[:size])
    return path


def payload(path: Path, size: int) -> Path:
    """Write *size* MiB, half of them noise, half of them code."""
    code = Path(sys.executable).resolve().read_bytes()
    code = code[: len(code) // MIB * MIB] or code * (MIB // len(code) + 1)
    draw = random.Random(1)
    with path.open("wb") as file:
        for index in range(size // 2):
            at = index * MIB % (len(code) - MIB + 1)
            file.write(draw.randbytes(MIB) + code[at : at + MIB])
    return path


def timed(argv: tuple[str, ...], output: Path) -> float:
    output.unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def space_beyond(output: Path, work: Callable[[], float]) -> tuple[float, int]:
    """Return the time of *work* and the most bytes its file system lost meanwhile, less what *output* takes then."""

    def free() -> int:
        status = os.statvfs(output.parent)
        return status.f_bfree * status.f_frsize

    most = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, before - free())

    output.unlink(missing_ok=True)
    os.sync()
    before = free()
    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = work()
    done.set()
    watcher.join()
    os.sync()
    return seconds, max(most, before - free()) - output.stat().st_blocks * 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--payload", type=int, default=2048, help="MiB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--in", dest="directory", default=None, help="where to work")
    parser.add_argument("rows", nargs="*", default=[])
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(dir=arguments.directory, prefix="bench-disks."))
    failed = False
    try:
        app = kernel(scratch / "app.bin", 3 * MIB)
        module = payload(scratch / "payload", arguments.payload)
        raw = scratch / "app.raw"
        subprocess.run(
            [*RUMPBUNDLE, "raw", app, "--module", module, "-o", raw], check=True, stdout=subprocess.DEVNULL
        )
        for name in arguments.rows or ROWS:
            ours, theirs, most = ROWS[name]
            out = scratch / "out"
            mine = (*RUMPBUNDLE, *ours, str(app), "--module", str(module), "-o", str(out))
            other = ("qemu-img", theirs[0], "-f", "raw", *theirs[1:], str(raw), str(out))
            both: tuple[list[float], list[float]] = ([], [])
            for run in range(arguments.runs):
                for index in (0, 1) if run % 2 else (1, 0):
                    both[index].append(timed((mine, other)[index], out))
                    if index:
                        their_size = out.stat().st_size
                    else:
                        our_size = out.stat().st_size
            best, theirs_best = min(both[0]), min(both[1])
            ratio = best / theirs_best
            good = ratio <= most
            failed |= not good
            print(
                f"{name:<12} {best:6.2f} s, qemu-img {theirs_best:6.2f} s: {ratio:.2f} x the time"
                f" (at most {most:.2f}{'' if good else ': MISSED'}), {our_size / their_size:.3f} x the size",
                flush=True,
            )
    finally:
        shutil.rmtree(scratch)
    sys.exit(failed)


if __name__ == "__main__":
    main()
