"""``rumpbundle fleet``: what a bundle costs workers, client and scheduler, and how much faster two workers are.

The fleet goes to a tmpfs where there is one with room for it (1.2 MB a bundle), for on a disk that is too slow for
two workers this would measure the disk.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inputs import kernel
from measure import MIB, MOST_ROUNDS, RUMPBUNDLE, Row, remove, report, scaled, scratch

BUNDLES = 10_000
ROUNDS = 5
TICKS = os.sysconf("SC_CLK_TCK")
SHARED_MEMORY = Path("/dev/shm")
PROJECT = """
[image.node]
app = "app.bin"
formats = ["iso"]
rows = "fleet.csv"
output = "out"
cmdline = "id={id} address={address}"
"""


@dataclass(frozen=True)
class Cost:
    """What one run of a fleet cost: seconds in all, seconds of CPU, and the most memory one process had, in MiB."""

    seconds: float
    client: float
    """The scheduler is in the same process."""
    workers: float
    memory: float


def project(directory: Path, bundles: int) -> None:
    kernel(directory / "app.bin", 7168)
    (directory / "rumpbundle.toml").write_text(PROJECT)
    rows = "".join(f"n{number},10.{number >> 16}.{number >> 8 & 255}.{number & 255}\n" for number in range(bundles))
    (directory / "fleet.csv").write_text(f"id,address\n{rows}")


def cost(directory: Path, workers: int) -> Cost:
    """Make the fleet in *directory*, of which nothing stands."""
    for made in ("out", ".rumpbundle", "fleet.json"):
        remove(directory / made)
    argv = [*RUMPBUNDLE, "fleet", "--workers", str(workers), "-q"]
    began = time.perf_counter()
    process = subprocess.Popen(argv, cwd=directory, stdout=subprocess.DEVNULL)
    # It is not waited for yet, so its own times still stand there; what wait4 tells has those of its workers in it.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    seconds = time.perf_counter() - began
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    client, children = (sum(map(int, fields[at : at + 2])) / TICKS for at in (11, 13))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)} failed: {process.returncode}")
    return Cost(seconds, client, children, usage.ru_maxrss / 1024)


def rows(directory: Path) -> Iterator[Row]:
    bundles = scaled(BUNDLES)
    project(directory, bundles)
    one, two = [], []
    for _ in range(min(ROUNDS, MOST_ROUNDS)):
        one.append(cost(directory, 1))
        two.append(cost(directory, 2))
    where = f"{bundles} bundles, {len(one)} rounds"
    for name, part in (("fleet-worker", "workers"), ("fleet-client", "client")):
        each = [getattr(run, part) / bundles * 1000 for run in two]
        yield Row(name, statistics.median(each), where, (min(each), max(each)))
    yield Row("fleet-memory", max(run.memory for run in (*one, *two)), where)
    ratios = [b.seconds / a.seconds for a, b in zip(one, two, strict=True)]
    middle = [statistics.median(run.seconds for run in runs) for runs in (two, one)]
    detail = f"{middle[0]:.1f} s against {middle[1]:.1f} s, {where}"
    seconds = {"ours": [run.seconds for run in two], "peer": [run.seconds for run in one]}
    yield Row("fleet-two", statistics.median(ratios), detail, (min(ratios), max(ratios)), seconds)


@contextmanager
def place() -> Iterator[Path]:
    """Give a directory on a tmpfs, if there is one with room to spare, else where all benchmarks write."""
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 1.5 * scaled(BUNDLES) * 1.2 * MIB:
        with tempfile.TemporaryDirectory(prefix="bench.", dir=SHARED_MEMORY) as directory:
            yield Path(directory)
    else:
        with scratch() as directory:
            yield directory


def main() -> int:
    with place() as directory:
        return report(rows(directory))


if __name__ == "__main__":
    sys.exit(main())
