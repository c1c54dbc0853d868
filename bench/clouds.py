"""What emptiness costs: kits for 64 GiB volumes with 100 MiB of content, against the same on the least volume."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from inputs import kernel, payload
from measure import MIB, RUMPBUNDLE, Row, cost, fresh, ratio, report, run, scratch

CONTENT_MIB = 100


def rows(directory: Path) -> Iterator[Row]:
    app, content = str(kernel(directory / "app.bin")), payload(directory / "content", CONTENT_MIB * MIB)

    def bundle(format: str, output: Path, size: str) -> list[str]:
        words = ("--module", str(content), "--size", size, "--force", "-q")
        return [*RUMPBUNDLE, format, app, *words, "-o", str(output)]

    for format, name in (("ec2", "out.ec2"), ("gce", "out.gce.tar.gz")):
        large = bundle(format, directory / name, "64G")
        small = bundle(format, directory / name, "1M")
        yield ratio(f"{format}-empty", fresh(large), fresh(small))
        yield Row(f"{format}-memory", cost(large)[1], "peak of the process")

    raw, archive = directory / "disk.raw", directory / "peer.tar.gz"
    run([*RUMPBUNDLE, "raw", "-q", app, "-o", str(raw), "--size", "1G"])
    tar = ["sh", "-c", f"tar -C {directory} --format=oldgnu -cf - disk.raw | gzip -1 > {archive}"]
    alone = [*RUMPBUNDLE, "gce", "-q", app, "-o", str(directory / "app.gce.tar.gz"), "--force"]
    yield ratio("gce-tar", fresh(alone), fresh(tar), rounds=3)


def main() -> int:
    with scratch() as directory:
        return report(rows(directory))


if __name__ == "__main__":
    sys.exit(main())
