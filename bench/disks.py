"""Disk containers against qemu-img: time as a ratio, size as a ratio, and the disk space used on the way.

Ours is a whole process that starts from the input files; qemu-img's is one `convert` from a raw image that exists
already. It hashes nothing; the rows "and SHA-256" give it that work as well, beside it. `python bench/disks.py [MIB]`
takes another payload than 2 GiB.
"""

from __future__ import annotations

import contextlib
import os
import random
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from measure import RUMPBUNDLE, Row, in_turn, remove, report, run, run_with_sha256

MIB = 1 << 20
CODE = Path(sys.executable).resolve().read_bytes()
STREAM = ("-O", "vmdk", "-o", "subformat=streamOptimized")
WRITTEN_HERE = {
    "vdi": (("vdi",), ("-O", "vdi")),
    "vhd fixed": (("vhd", "--subformat", "fixed"), ("-O", "vpc", "-o", "subformat=fixed,force_size=on")),
}
WRITTEN_BY_QEMU_IMG = {
    "vmdk": (("vmdk",), ("-O", "vmdk")),
    "qcow2": (("qcow2",), ("-O", "qcow2")),
    "vhd": (("vhd",), ("-O", "vpc", "-o", "subformat=dynamic,force_size=on")),
    "vhdx": (("vhdx",), ("-O", "vhdx")),
}
"""Our words, and qemu-img's, for the same format."""
ROUNDS = 3
SEVEN = "iso,vmdk,vdi,qcow2,vhd,vhdx,ova"


def kernel(path: Path, size: int = 3 * MIB) -> Path:
    """Write what passes for a Multiboot kernel; nobody boots it here."""
    magic, flags, load = 0x1BADB002, 0x10003, 0x100000
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, load, load, 0, 0, load + 32)
    path.write_bytes((header + CODE * (size // len(CODE) + 1))[:size])
    return path


def payload(path: Path, size: int) -> Path:
    """Write *size* MiB, every other one noise, the rest code."""
    code = CODE * (MIB // len(CODE) + 1)
    draw = random.Random(1)
    with path.open("wb") as file:
        for index in range(size // 2):
            at = index * MIB % (len(code) - MIB + 1)
            file.write(draw.randbytes(MIB) + code[at : at + MIB])
    return path


def open_files(pid: int) -> dict[int, int]:
    """Return the bytes on disk of every regular file that a process or its children have open, by inode."""
    found = {}
    pids = [str(pid)]
    for each in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile
            for task in Path(f"/proc/{each}/task").iterdir():
                pids += (task / "children").read_text().split()
            for fd in Path(f"/proc/{each}/fd").iterdir():
                with contextlib.suppress(OSError):
                    status = fd.stat()
                    if stat.S_ISREG(status.st_mode):
                        found[status.st_ino] = status.st_blocks * 512
    return found


class Bench:
    """The inputs in a scratch directory, and how to run the contestants on them."""

    def __init__(self, scratch: Path, size: int) -> None:
        self.app = kernel(scratch / "app.bin")
        self.module = payload(scratch / "payload", size)
        self.raw = scratch / "app.raw"
        self.out = scratch / "out"
        self.ours(("raw",), self.raw)()

    def ours(self, words: tuple[str, ...], out: Path | None = None) -> Callable[[], float]:
        argv = [*RUMPBUNDLE, *words, str(self.app), "--module", str(self.module), "-o", str(out or self.out)]
        return self._fresh(lambda: run(argv))

    def qemu_img(self, words: tuple[str, ...], *, hashing: bool = False) -> Callable[[], float]:
        argv = ["qemu-img", "convert", "-f", "raw", *words, str(self.raw), str(self.out)]
        return self._fresh(lambda: run_with_sha256(argv, self.module) if hashing else run(argv))

    def _fresh(self, work: Callable[[], float]) -> Callable[[], float]:
        def fresh() -> float:
            remove(self.out)
            os.sync()  # or the next one pays for what this one left to be written
            return work()

        return fresh

    def space(self, words: tuple[str, ...]) -> int:
        """Return how many bytes besides inputs and result our process, and what it runs, had open on disk at once."""
        remove(self.out)
        moments = []
        argv = [*RUMPBUNDLE, *words, str(self.app), "--module", str(self.module), "-o", str(self.out)]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                moments.append(open_files(process.pid))
                time.sleep(0.02)
        assert process.returncode == 0
        known = {path.stat().st_ino for path in (self.app, self.module, self.out)}
        return max(sum(size for inode, size in files.items() if inode not in known) for files in moments)

    def rows(self) -> Iterator[Row]:
        yield from self.streams()
        for limit, formats in ((1.0, WRITTEN_HERE), (1.1, WRITTEN_BY_QEMU_IMG)):
            for name, (words, theirs) in formats.items():
                yield from self.compared(name, limit, words, theirs)
        for name, (words, _) in WRITTEN_BY_QEMU_IMG.items():
            extra = self.space(words)
            yield Row(f"{name}: MiB on disk besides the result", extra / MIB, 8, "no raw copy")

    def streams(self) -> Iterator[Row]:
        """Compare both that hold a stream-optimised VMDK with what qemu-img writes, which takes long enough once."""
        limit = 1 / 5 if (os.cpu_count() or 1) > 1 else 1 / 3
        sizes = {}

        def sized(name: str, work: Callable[[], float]) -> Callable[[], float]:
            def both() -> float:
                seconds = work()
                sizes[name] = self.out.stat().st_size
                return seconds

            return both

        ours = {"vmdk stream": ("vmdk", "--subformat", "stream"), "ova": ("ova",)}
        seconds = in_turn({name: sized(name, self.ours(words)) for name, words in ours.items()}, ROUNDS)
        seconds |= in_turn({"peer": sized("peer", self.qemu_img(STREAM))}, 1)
        for name in ours:
            detail = f"{seconds[name]:.2f} s against {seconds['peer']:.2f} s"
            yield Row(f"{name} / qemu-img streamOptimized", seconds[name] / seconds["peer"], limit, detail)
            detail = f"{sizes[name]} and {sizes['peer']} bytes"
            yield Row(f"{name}: size / qemu-img's", sizes[name] / sizes["peer"], 1.03, detail)

    def compared(self, name: str, limit: float, words: tuple[str, ...], theirs: tuple[str, ...]) -> Iterator[Row]:
        median = in_turn(
            {
                "ours": self.ours(words),
                "qemu-img from raw": self.qemu_img(theirs),
                "qemu-img from raw and SHA-256": self.qemu_img(theirs, hashing=True),
            },
            ROUNDS,
        )
        ours = median.pop("ours")
        for peer, seconds in median.items():
            detail = f"{ours:.2f} s against {seconds:.2f} s, median of {ROUNDS}"
            yield Row(f"{name} / {peer}", ours / seconds, limit, detail)


def seven(scratch: Path) -> Row:
    """Return what seven formats of a 3 MB kernel cost, in units of one."""
    app = str(kernel(scratch / "small.bin"))
    one = [*RUMPBUNDLE, "vmdk", app, "-o", str(scratch / "one.vmdk"), "--force"]
    all_of_them = [*RUMPBUNDLE, "build", app, "-f", SEVEN, "-o", str(scratch / "seven"), "--force"]
    median = in_turn({"all": lambda: run(all_of_them), "one": lambda: run(one)}, 10)
    detail = f"{median['all']:.3f} s against {median['one']:.3f} s, median of 10"
    return Row("build of seven formats / vmdk alone, 3 MB kernel", median["all"] / median["one"], 2, detail)


def rows(size: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bench-disks.") as scratch:
        yield seven(Path(scratch))
        yield from Bench(Path(scratch), size).rows()


if __name__ == "__main__":
    subprocess.run(["qemu-img", "--version"], check=True, stdout=subprocess.DEVNULL)
    sys.exit(report(rows(int(sys.argv[1]) if len(sys.argv) > 1 else 2048)))
