"""How the benchmarks measure: whole processes, contestants in turn, medians, ratios in one run.

A noisy machine slows everything alike for a while; taking turns lets a ratio survive that. Absolute times mean
little and are only printed to be looked at.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

RUMPBUNDLE = (sys.executable, "-m", "rumpbundle")

# An installed rumpbundle has its byte code. Where the environment forbids to write it, every start would compile all.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True)
class Row:
    """One promise and what was measured."""

    promise: str
    value: float
    limit: float
    detail: str

    @property
    def kept(self) -> bool:
        return self.value <= self.limit


def run(argv: Sequence[str], **kwargs) -> float:
    """Run a program that must succeed and return the seconds it took."""
    started = time.perf_counter()
    subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **kwargs
    )
    return time.perf_counter() - started


def run_with_sha256(argv: Sequence[str], path: Path) -> float:
    """Run a program and, at the same time, hash the file *path*; return the seconds until both are done.

    A bundle's manifest names the SHA-256 of every file in it: who does as much takes at least this long.
    """
    started = time.perf_counter()
    with subprocess.Popen(["openssl", "dgst", "-sha256", str(path)], stdout=subprocess.DEVNULL) as beside:
        run(argv)
    assert beside.returncode == 0
    return time.perf_counter() - started


def in_turn(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each contestant over *rounds* rounds, in which each has one turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant())
    return {name: statistics.median(found) for name, found in times.items()}


def ratio(promise: str, limit: float, ours: Callable[[], float], peer: Callable[[], float], rounds: int = 10) -> Row:
    """Return the row for *ours* taking at most *limit* times as long as *peer*."""
    median = in_turn({"ours": ours, "peer": peer}, rounds)
    detail = f"{median['ours']:.3f} s against {median['peer']:.3f} s, median of {rounds}"
    return Row(promise, median["ours"] / median["peer"], limit, detail)


def peak_memory(argv: Sequence[str]) -> int:
    """Run a program and return the most memory it had, in MiB."""
    pid = os.posix_spawn(
        argv[0], list(argv), os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(argv)} failed")
    return usage.ru_maxrss // 1024


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def report(rows: Iterable[Row]) -> int:
    """Print *rows* as they come and return the exit status: 1 if a promise is broken."""
    status = 0
    for row in rows:
        status |= not row.kept
        mark = "ok  " if row.kept else "MISS"
        print(f"{mark} {row.promise:<58} {row.value:8.2f} (limit {row.limit:g})  {row.detail}", flush=True)
    return status
