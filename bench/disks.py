"""Disk containers against qemu-img: time as a ratio, size as a ratio, and the disk space used on the way.

Ours is a whole process that starts from the input files; qemu-img's is one `convert` from a raw image that exists
already, and it hashes nothing.
"""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from inputs import kernel, payload
from measure import MIB, RUMPBUNDLE, Row, compare, fresh, in_turn, ratio, remove, report, run, scaled, scratch

STREAM = ("-O", "vmdk", "-o", "subformat=streamOptimized")
FORMATS = {
    "vdi": (("vdi",), ("-O", "vdi")),
    "vhd": (("vhd",), ("-O", "vpc", "-o", "subformat=dynamic,force_size=on")),
    "vhdx": (("vhdx",), ("-O", "vhdx")),
    "qcow2": (("qcow2",), ("-O", "qcow2")),
    "vmdk": (("vmdk",), ("-O", "vmdk")),
}
"""Our words, and qemu-img's, for the same format."""
BLOCKS = ("vhd", "vhdx", "qcow2", "vmdk")
CONVERTED = ("vdi", "vhd", "qcow2", "vmdk")
SEVEN = "iso,vmdk,vdi,qcow2,vhd,vhdx,ova"


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

    def __init__(self, directory: Path) -> None:
        self.app = kernel(directory / "app.bin")
        self.module = payload(directory / "payload", scaled(2 << 30))
        self.raw = directory / "app.raw"
        self.out = directory / "out"
        run([*RUMPBUNDLE, "raw", str(self.app), "--module", str(self.module), "-o", str(self.raw), "--no-sync"])

    def argv(self, words: Sequence[str]) -> list[str]:
        return [*RUMPBUNDLE, *words, str(self.app), "--module", str(self.module), "-o", str(self.out), "--no-sync"]

    def ours(self, words: Sequence[str]) -> Callable[[], float]:
        return fresh(self.argv(words), self.out)

    def convert(self, format: str) -> Callable[[], float]:
        return fresh(
            [*RUMPBUNDLE, "convert", str(self.raw), "-f", format, "-o", str(self.out), "--no-sync"], self.out
        )

    def qemu_img(self, words: Sequence[str]) -> Callable[[], float]:
        return fresh(["qemu-img", "convert", "-f", "raw", *words, str(self.raw), str(self.out)], self.out)

    def space(self, words: Sequence[str]) -> int:
        """Return how many bytes besides inputs and result our process, and what it runs, had open on disk at once."""
        remove(self.out)
        moments = []
        with subprocess.Popen(self.argv(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None:
                moments.append(open_files(process.pid))
                time.sleep(0.02)
        assert process.returncode == 0
        known = {path.stat().st_ino for path in (self.app, self.module, self.out)}
        return max(sum(size for inode, size in files.items() if inode not in known) for files in moments)

    def rows(self) -> Iterator[Row]:
        yield from self.streams()
        for name, (words, theirs) in FORMATS.items():
            contestants = {"bundle": self.ours(words), "qemu-img": self.qemu_img(theirs)}
            if name in CONVERTED:
                contestants["convert"] = self.convert(name)
            seconds = in_turn(contestants, 9)  # the disk writes behind, and so at anybody's expense
            yield compare(name, seconds, "bundle", "qemu-img")
            if name in CONVERTED:
                yield compare(f"convert-{name}", seconds, "convert", "qemu-img")
        extra = {name: self.space(FORMATS[name][0]) / MIB for name in BLOCKS}
        yield Row("space", max(extra.values()), ", ".join(f"{name} {size:.1f}" for name, size in extra.items()))
        remove(self.out)
        b3sum = fresh(["b3sum", str(self.raw)])
        yield ratio("verify", fresh([*RUMPBUNDLE, "verify", str(self.raw)]), b3sum)

    def streams(self) -> Iterator[Row]:
        """Compare what holds a stream-optimised VMDK with what qemu-img writes.

        That takes long enough once, and of a quarter of the payload.
        """
        sizes = {}
        module, raw = self.module, self.raw
        self.module, self.raw = payload(module.with_name("quarter"), scaled(512 << 20)), raw.with_name("quarter.raw")
        run([*RUMPBUNDLE, "raw", str(self.app), "--module", str(self.module), "-o", str(self.raw), "--no-sync"])
        theirs = self.qemu_img(STREAM)()
        sizes["peer"] = self.out.stat().st_size
        contestants = {
            "stream": self.ours(("vmdk", "--subformat", "stream")),
            "ova": self.ours(("ova",)),
            "convert-stream": self.convert("vmdk:stream"),
        }

        def sized(name: str) -> float:
            seconds = contestants[name]()
            sizes[name] = self.out.stat().st_size
            return seconds

        seconds = in_turn({name: lambda name=name: sized(name) for name in contestants}, 3)
        seconds["peer"] = [theirs] * len(seconds["ova"])
        for name in contestants:
            yield compare(name, seconds, name)
        for path in (self.module, self.raw):
            remove(path)
        self.module, self.raw = module, raw
        for name in ("stream", "ova"):
            yield Row(f"{name}-size", sizes[name] / sizes["peer"], f"{sizes[name]} and {sizes['peer']} bytes")


def seven(directory: Path) -> Row:
    """Return what seven formats of a 3 MB kernel cost, in units of one."""
    app, one, all_of_them = str(kernel(directory / "small.bin")), directory / "one.vmdk", directory / "seven"
    return ratio(
        "seven",
        fresh([*RUMPBUNDLE, "build", app, "-f", SEVEN, "-o", str(all_of_them)], all_of_them),
        fresh([*RUMPBUNDLE, "vmdk", app, "-o", str(one)], one),
        rounds=10,
    )


def main() -> int:
    with scratch() as directory:

        def rows() -> Iterator[Row]:
            yield seven(directory)
            yield from Bench(directory).rows()

        return report(rows())


if __name__ == "__main__":
    sys.exit(main())
