"""What emptiness costs: 100 MiB of content on a 64 GiB volume, against the same content alone.

Prints, for the EBS block plan and for the GCE archive, the time of both, their ratio, and the peak memory of the
large one. Run it with the interpreter rumpbundle is installed for: ``python bench/sparse_volume.py``.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rumpbundle.content import FileSlice, InputFile
from rumpbundle.ebs import plan_snapshot
from rumpbundle.gzip_member import gzip_member
from rumpbundle.identity import Identity
from rumpbundle.layout import GIB, MIB, DiskLayout, Extent, LayoutReader

CONTENT = 100 * MIB
LARGE = 64 * GIB
JOBS = 2


def disk(content: Path, size: int) -> DiskLayout:
    extent = Extent(0, FileSlice(InputFile(content), 0, CONTENT), "content")
    return DiskLayout(
        size=size, body=(extent,), partitions=(), table="mbr", write_table=lambda _: (),
        identity=Identity(lambda: "0" * 64), body_end=CONTENT,
    )  # fmt: skip


def hash_blocks(content: Path, size: int) -> None:
    plan_snapshot(disk(content, size), jobs=JOBS)


def compress(content: Path, size: int) -> None:
    def pieces():
        with LayoutReader(disk(content, size)) as reader:
            yield from (block for _, block in reader.blocks(64 << 10))
        yield size - CONTENT

    for _ in gzip_member(pieces(), JOBS):
        pass


WORK = {"hash": hash_blocks, "gzip": compress}


def measured(name: str, content: Path, size: int) -> tuple[float, int]:
    """Return the seconds and the peak memory in MiB of a process that does only this."""
    argv = [sys.executable, __file__, name, str(content), str(size)]
    seconds, memory = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), int(memory)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        content = Path(scratch) / "content"
        # Half noise, half what compresses: somewhere near a kernel and its data.
        noise = random.Random(1).randbytes(MIB // 2)
        with content.open("wb") as file:
            for _ in range(CONTENT // MIB):
                file.write(noise + bytes(range(256)) * (MIB // 512))
        for name in WORK:
            # One GiB of zeros is hashed along with every volume: the small one has none.
            small, _ = min(measured(name, content, CONTENT) for _ in range(3))
            large, memory = min(measured(name, content, LARGE) for _ in range(3))
            print(
                f"{name}: {CONTENT // MIB} MiB alone {small:.2f} s, on {LARGE // GIB} GiB {large:.2f} s, "
                f"ratio {large / small:.2f}, peak memory {memory} MiB"
            )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        _, name, content, size = sys.argv
        start = time.perf_counter()
        WORK[name](Path(content), int(size))
        print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
