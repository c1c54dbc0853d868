"""Writes the page of benchmarks and its plots: runs all benchmarks, or takes the results of an earlier run.

python bench/page.py [RESULTS SCALING]     `make bench-page`; both files are what BENCH_RESULTS and
                                           BENCH_SCALING of an earlier run got
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import plots
import scaling
from measure import PROMISES, SCALE, Row
from scaling import Point

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"
PEERS = {
    "qemu-img": ("qemu-img", "--version"),
    "xorriso": ("xorriso", "--version"),
    "grub-mkrescue": ("grub-mkrescue", "--version"),
    "mke2fs": ("mke2fs", "-V"),
    "cp": ("cp", "--version"),
    "b3sum": ("b3sum", "--version"),
    "virt-make-fs": ("virt-make-fs", "--version"),
}
HEAD = """# Benchmarks

Made by `make bench-page` on the machine below; the numbers of another machine differ, the ratios less. Each
contestant is a whole process, Python's start included. They take turns, and a ratio is that of one round: the table
has the median of the rounds, and the least and the most. A limit is what `make bench` fails above; an aim is where we
want to be. What is timed is such a command:

```console
$ rumpbundle raw app.bin --no-sync
app.raw
```
"""
GROWTH = """## What grows with what

Both axes are logarithmic: a straight line at 45° grows as its input does. Solid lines are ours, dashed ones other
programs doing the same work: `cp` copies the payload alone, `qemu-img convert` starts from a raw image that exists
already (up to 1 GiB of payload), and `mke2fs -d` and `xorriso` make the file system without a kernel. Bars show the
least and the most of five runs; what takes longer than a second is run once.
"""


def first_line(argv: Sequence[str]) -> str | None:
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return (ran.stdout + ran.stderr).strip().splitlines()[0]


def machine() -> list[str]:
    """Return what the numbers depend on, a line each."""
    cpu = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ":"
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    where = os.environ.get("BENCH_DIR", tempfile.gettempdir())
    system = first_line(["stat", "--file-system", "--format=%T", where])
    name = cpu.split(":", 1)[1].strip()
    peers = {peer: first_line(argv) for peer, argv in PEERS.items()}
    lacking = [peer for peer, line in peers.items() if not line]
    return [
        f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB; Linux {platform.release()}; {system}",
        "; ".join([f"Python {platform.python_version()}", *filter(None, peers.values())]),
        *([f"not installed on this machine, and so left out: {', '.join(lacking)}"] if lacking else []),
    ]


def load() -> str:
    return "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())


def run(results: Path, points: Path) -> list[str]:
    """Run everything and return what is to be said of the circumstances."""
    before = load()
    environment = {**os.environ, "BENCH_RESULTS": str(results), "BENCH_SCALING": str(points)}
    for script in ("run.py", "scaling.py"):  # run.py ends with 1 for a missed limit, which the page will show
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], env=environment)
    return [f"load average (1, 5, 15 minutes): {before} at the start, {load()} at the end"]


def amount(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def span(values: Sequence[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.3f} s ({low:.3f}-{high:.3f})"


def table(rows: Sequence[Row]) -> list[str]:
    lines = ["| work | value | least-most | limit | aim | | measured |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        spread = "-".join(map(amount, row.spread)) if row.spread else ""
        said = row.detail
        if {"ours", "peer"} <= set(row.seconds):
            said = (
                f"{span(row.seconds['ours'])} against {span(row.seconds['peer'])}, {len(row.seconds['ours'])} rounds"
            )
        mark = "kept" if row.kept else "**missed**"
        promise = row.promise
        cells = (promise.work, f"{amount(row.value)}", spread, f"{promise.limit:g}", f"{promise.aim:g}", mark, said)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return lines


def growth(points: Sequence[Point]) -> list[str]:
    lines = [GROWTH]
    for dimension in scaling.DIMENSIONS:
        mine = [point for point in points if point.dimension == dimension.name]
        if not mine:
            continue
        plots.growth(dimension, mine, PLOTS / f"{dimension.name}.svg")
        names = list(dict.fromkeys(point.contestant for point in mine))
        lines += [f"![Time and memory: {dimension.unit}](benchmarks/{dimension.name}.svg)", ""]
        lines += [f"| {dimension.unit} | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
        for step in dict.fromkeys(point.step for point in mine):
            found = {point.contestant: point for point in mine if point.step == step}
            cells = (
                f"{statistics.median(found[name].seconds):.3f} s, {found[name].memory:.0f} MiB"
                if name in found
                else ""
                for name in names
            )
            lines.append(f"| {step:,} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write(rows: Sequence[Row], points: Sequence[Point], circumstances: Sequence[str]) -> None:
    """Write the page and its plots."""
    PLOTS.mkdir(exist_ok=True)
    plots.ratios(rows, PLOTS / "limits.svg")
    said = list(circumstances)
    if SCALE > 1:
        said.append(
            f"**A quick look: sizes and numbers of files are divided by {SCALE}, though the names are the full ones'."
            " The limits are meant for those: of small sizes Python's start is most**"
        )
    if points and not any(point.contestant == "virt-make-fs" for point in points):
        said.append("virt-make-fs makes no file system on this machine, and is left out")
    missing = sorted(PROMISES[name].work for name in PROMISES.keys() - {row.name for row in rows})
    if missing:
        said.append(f"not measured this time: {'; '.join(missing)}")
    lines = [HEAD, *(f"- {line}" for line in [*machine(), *said]), "", "## Limits", ""]
    lines += ["![Each row as a share of its limit](benchmarks/limits.svg)", "", *table(rows), "", *growth(points)]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", "utf-8")


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        results, points = map(Path, arguments or (f"{directory}/results", f"{directory}/points"))
        circumstances = [] if arguments else run(results, points)
        # What was measured again later counts.
        rows = {row["name"]: Row(**row) for row in read(results)}
        ordered = [rows[name] for name in PROMISES if name in rows]
        write(ordered, [Point(**point) for point in read(points)], circumstances)


if __name__ == "__main__":
    main(sys.argv[1:])
