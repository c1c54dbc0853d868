"""Directories as file systems against xorriso and mke2fs -d: few large files, many small ones, and their memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from inputs import payload, tree
from measure import RUMPBUNDLE, Row, cost, fresh, ratio, remove, report, scaled, scratch


def volume(type: str, top: Path, out: Path, *words: str) -> list[str]:
    return [*RUMPBUNDLE, "volume", str(top), "-t", type, "-o", str(out), "--no-sync", *words]


def mke2fs(top: Path, out: Path, size: int) -> list[str]:
    # Its inodes are twice as large, and it keeps blocks for root: it gets a little more room.
    size = size // 8 * 9
    argv = ["mke2fs", "-q", "-t", "ext2", "-b", "4096"]
    files = sum(len(below) + len(names) for _, below, names in os.walk(top))
    if files > size // 16384:  # more than it makes inodes for
        argv += ["-N", str(files + 64)]
    return [*argv, "-d", str(top), str(out), f"{size // 1024}k"]


def xorriso(top: Path, out: Path) -> list[str]:
    return ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-o", str(out), str(top)]


def large_files(directory: Path) -> Iterator[Row]:
    top = directory / "large"
    top.mkdir()
    size = scaled(2 << 30) // 100
    first = payload(top / "file0", size)
    for number in range(1, 100):
        os.link(payload(directory / "next", size), top / f"file{number}")
        (directory / "next").unlink()
    assert first.stat().st_size == size
    ours, peer = directory / "ours", directory / "peer"
    run_ours = fresh(volume("ext2", top, ours), ours, peer)
    run_ours()
    yield ratio("ext2-2g", run_ours, fresh(mke2fs(top, peer, ours.stat().st_size), ours, peer), rounds=5)
    for path in (ours, peer, top):
        remove(path)


def many_files(directory: Path) -> Iterator[Row]:
    ours, peer = directory / "ours", directory / "peer"
    for name, files, rounds in (("50k", 50_000, 5), ("200k", 200_000, 3)):
        top = tree(directory / name, scaled(files))
        theirs = fresh(xorriso(top, peer), ours, peer)
        yield ratio(f"files-{name}", fresh(volume("iso9660", top, ours), ours, peer), theirs, rounds)
    run_ours = fresh(volume("ext2", top, ours), ours, peer)
    run_ours()
    yield ratio("ext2-200k", run_ours, fresh(mke2fs(top, peer, ours.stat().st_size), ours, peer), rounds=7)
    remove(peer)
    memory = cost(xorriso(top, peer))[1]
    for name, type in (("memory-files", "iso9660"), ("memory-files-ext2", "ext2")):
        mine = cost(volume(type, top, ours, "--force"))[1]
        yield Row(name, mine / memory, f"{mine:.0f} MiB against {memory:.0f} MiB")


def main() -> int:
    with scratch() as directory:

        def rows() -> Iterator[Row]:
            yield from large_files(directory)
            yield from many_files(directory)

        return report(rows())


if __name__ == "__main__":
    sys.exit(main())
