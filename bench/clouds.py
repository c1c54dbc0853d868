"""What emptiness costs: kits for 64 GiB volumes with 100 MiB of content, against the same on the least volume.

Whole processes, in turn (see ``measure.py``). Run it with the interpreter rumpbundle is installed for:

    python bench/clouds.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from iso import kernel
from measure import RUMPBUNDLE, Row, peak_memory, ratio, report, run

CONTENT_MIB = 100


def ours(format: str, app: Path, content: Path, output: Path, size: str) -> tuple[str, ...]:
    return (
        *RUMPBUNDLE,
        format,
        "-q",
        str(app),
        "--module",
        str(content),
        "-o",
        str(output),
        "--size",
        size,
        "--force",
    )


def timed(argv: tuple[str, ...]) -> Callable[[], float]:
    return lambda: run(argv)


def rows(directory: Path) -> Iterator[Row]:
    app, content = kernel(directory), directory / "content"
    code = Path(sys.executable).resolve().read_bytes()
    with content.open("wb") as file:
        while file.tell() < CONTENT_MIB << 20:
            file.write(code[: (CONTENT_MIB << 20) - file.tell()])
    for format, name in (("ec2", "out.ec2"), ("gce", "out.gce.tar.gz")):
        large = ours(format, app, content, directory / name, "64G")
        small = ours(format, app, content, directory / name, "1M")
        yield ratio(f"{format}: {CONTENT_MIB} MiB on 64 GiB as on 1 GiB", 1.3, timed(large), timed(small), rounds=5)
        yield Row(f"{format}: memory of that, MiB", peak_memory(large), 100, "peak of the process")

    raw, archive = directory / "disk.raw", directory / "peer.tar.gz"
    run([*RUMPBUNDLE, "raw", "-q", str(app), "-o", str(raw), "--size", "1G"])
    tar = ["sh", "-c", f"tar -C {directory} --format=oldgnu -cf - disk.raw | gzip -1 > {archive}"]
    alone = (*RUMPBUNDLE, "gce", "-q", str(app), "-o", str(directory / "app.gce.tar.gz"), "--force")
    yield ratio("gce: an almost empty GiB as tar | gzip -1", 0.2, timed(alone), lambda: run(tar), rounds=3)


if __name__ == "__main__":
    scratch = Path(tempfile.mkdtemp())
    try:
        sys.exit(report(rows(scratch)))
    finally:
        shutil.rmtree(scratch)
