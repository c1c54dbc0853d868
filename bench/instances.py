"""Reflinks and reconfig: a bundle that shares its payload's blocks, and one golden image in many configurations.

The reflinks need root, for a file system in a file (xfs, mounted by a loop device); without it those rows are left
out.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inputs import kernel, payload, rumprun
from measure import MIB, MOST_ROUNDS, RUMPBUNDLE, Row, fresh, ratio, remove, report, run, scaled, scratch

INSTANCES = 1_000


@contextmanager
def reflinks(directory: Path, size: int) -> Iterator[Path | None]:
    """Mount an xfs with reflinks, or give None where this may not be done."""
    if os.geteuid() or not shutil.which("mkfs.xfs"):
        print("left out: reflinks need root and mkfs.xfs", flush=True)
        yield None
        return
    image, mounted = directory / "xfs", directory / "mounted"
    with image.open("wb") as file:
        file.truncate(size)
    mounted.mkdir()
    run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)])
    # Direct: what is read from the disk must not come from the page cache of the file under it.
    attach = ["losetup", "--find", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        run(["mount", device, str(mounted)])
        try:
            yield mounted
        finally:
            run(["umount", str(mounted)])
    finally:
        run(["losetup", "-d", device])
        remove(image)


def used(path: Path) -> int:
    os.sync()
    status = os.statvfs(path)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def shared(directory: Path, app: Path) -> Iterator[Row]:
    module = payload(directory / "payload", scaled(2 << 30))
    out = directory / "ours.iso"
    bundle = [*RUMPBUNDLE, "iso", str(app), "--module", str(module), "-o", str(out), "--no-sync"]
    b3sum = ["b3sum", "--num-threads", "2", str(module)]
    yield ratio("reflink", fresh(bundle, out, cold=[module]), fresh(b3sum, cold=[module]))
    yield from copies(directory, out)
    remove(module)


def copies(directory: Path, golden: Path) -> Iterator[Row]:
    """Measure what another instance of one golden image costs."""
    fleet = directory / "fleet"
    fleet.mkdir()
    before = used(directory)
    seconds = []
    for number in range(scaled(INSTANCES)):
        words = ("--cmdline", f"number={number}", "-o", str(fleet / f"{number}.iso"), "--no-sync", "-q")
        seconds.append(run([*RUMPBUNDLE, "reconfig", str(golden), *words]))
    each = (used(directory) - before) / len(seconds)
    detail = f"{len(seconds)} instances of {golden.stat().st_size / MIB:.0f} MiB"
    spread = (min(seconds), max(seconds))
    yield Row("instances-seconds", statistics.median(seconds), detail, spread, {"ours": seconds})
    yield Row("instances-bytes", each / MIB, detail)


def in_place(directory: Path, app: Path) -> Iterator[Row]:
    data, image = directory / "data", directory / "volume.raw"
    data.mkdir()
    (data / "file").write_bytes(b"content")
    words = ("-e", "ROUND=0", "--volume", f"{data}:/data:64G")
    run([*RUMPBUNDLE, "raw", str(app), *words, "-o", str(image)])
    seconds = []
    for number in range(min(10, MOST_ROUNDS)):
        seconds.append(run([*RUMPBUNDLE, "reconfig", str(image), "-e", f"ROUND={number}", "--in-place"]))
    detail = f"a raw of {image.stat().st_size >> 30} GiB, synced, {len(seconds)} rounds"
    yield Row("reconfig", statistics.median(seconds), detail, (min(seconds), max(seconds)), {"ours": seconds})
    remove(image)


def main() -> int:
    with scratch() as directory:

        def rows() -> Iterator[Row]:
            yield from in_place(directory, rumprun(directory / "rumprun.bin"))
            with reflinks(directory, 6 << 30) as mounted:
                if mounted:
                    yield from shared(mounted, kernel(directory / "app.bin"))

        return report(rows())


if __name__ == "__main__":
    sys.exit(main())
