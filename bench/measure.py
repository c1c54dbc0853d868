"""How the benchmarks measure: whole processes, contestants in turn, and the median of the rounds' ratios.

A noisy machine slows everything alike for a while; taking turns lets a ratio survive that. Absolute times mean
little and are only printed to be looked at. For a quick look, ``BENCH_SCALE=8`` divides all sizes by eight and
``BENCH_ROUNDS=3`` ends after three rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

RUMPBUNDLE = (sys.executable, "-m", "rumpbundle")
MIB = 1 << 20
SCALE = int(os.environ.get("BENCH_SCALE", "1"))
ROUNDS = 5
MOST_ROUNDS = int(os.environ.get("BENCH_ROUNDS", "100"))

# An installed rumpbundle has its byte code. Where the environment forbids to write it, every start would compile all.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True)
class Promise:
    """A row of limits.toml."""

    work: str
    limit: float
    aim: float


def promises() -> dict[str, Promise]:
    """Return what limits.toml promises, by the names the benchmarks use."""
    table = tomllib.loads(Path(__file__).with_name("limits.toml").read_text("utf-8"))
    return {name: Promise(**row) for name, row in table.items()}


PROMISES = promises()


@dataclass(frozen=True)
class Row:
    """What was measured for one promise: one value, how far the rounds lay apart, and each contestant's seconds."""

    name: str
    value: float
    detail: str = ""
    spread: tuple[float, float] | None = None
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def promise(self) -> Promise:
        return PROMISES[self.name]

    @property
    def kept(self) -> bool:
        return self.value <= self.promise.limit


def scaled(size: int) -> int:
    """Return *size*, or a part of it if BENCH_SCALE asks for a quick look."""
    return max(size // SCALE, 1)


def run(argv: Sequence[str], **kwargs) -> float:
    """Run a program that must succeed and return the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **kwargs)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)} failed:\n{done.stderr.decode('utf-8', 'replace')[-2000:]}")
    return seconds


def fresh(argv: Sequence[str], *outputs: Path, cold: Sequence[Path] = ()) -> Callable[[], float]:
    """Return a contestant: the program *argv*, timed after its *outputs* are gone and the disk is at rest.

    The files *cold* are not in the page cache when it starts.
    """

    def contestant() -> float:
        for path in outputs:
            remove(path)
        os.sync()  # or the next one pays for what this one left to be written
        for path in cold:
            forget(path)
        return run(argv)

    return contestant


def forget(path: Path) -> None:
    """Drop what the page cache holds of the file *path*."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_turn(contestants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant in *rounds* rounds, in each of which everybody has one turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(min(rounds, MOST_ROUNDS)):
        for name, contestant in contestants.items():
            seconds[name].append(contestant())
    return seconds


def compare(name: str, seconds: Mapping[str, Sequence[float]], ours: str = "ours", peer: str = "peer") -> Row:
    """Return the row for the times of *ours* over those of *peer*, round by round."""
    ratios = [a / b for a, b in zip(seconds[ours], seconds[peer], strict=True)]
    chosen = {"ours": seconds[ours], "peer": seconds[peer]}
    middle = {who: statistics.median(times) for who, times in chosen.items()}
    detail = f"{middle['ours']:.3f} s against {middle['peer']:.3f} s, {len(ratios)} rounds"
    return Row(name, statistics.median(ratios), detail, (min(ratios), max(ratios)), chosen)


def ratio(name: str, ours: Callable[[], float], peer: Callable[[], float], rounds: int = ROUNDS) -> Row:
    """Return the row for *ours* over *peer*, run in turn."""
    return compare(name, in_turn({"ours": ours, "peer": peer}, rounds))


def cost(argv: Sequence[str]) -> tuple[float, float]:
    """Run a program and return its seconds and the most memory it or one of its children had, in MiB.

    Through time(1): a child of ours would count what this process had when it was forked.
    """
    with tempfile.NamedTemporaryFile("r") as said:
        seconds = run(["time", "--format=%M", f"--output={said.name}", *argv])
        return seconds, int(said.read()) / 1024


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory on the file system to measure: BENCH_DIR, else where temporary files go."""
    with tempfile.TemporaryDirectory(prefix="bench.", dir=os.environ.get("BENCH_DIR")) as directory:
        yield Path(directory)


def report(rows: Iterable[Row]) -> int:
    """Print *rows* as they come and return the exit status: 1 if a promise is broken.

    The file BENCH_RESULTS, if there is one, gets a line of JSON for each.
    """
    status = 0
    for row in rows:
        status |= not row.kept
        mark = "ok  " if row.kept else "MISS"
        limits = f"(limit {row.promise.limit:g}, aim {row.promise.aim:g})"
        spread = "{:.2f}-{:.2f}".format(*row.spread) if row.spread else ""
        print(f"{mark} {row.promise.work:<66} {row.value:8.2f} {spread:<10} {limits}  {row.detail}", flush=True)
        if results := os.environ.get("BENCH_RESULTS"):
            with open(results, "a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")
    return status
