"""The plots of the page of benchmarks, drawn by matplotlib: SVG whose bytes depend on the numbers alone."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from measure import Row
from scaling import Dimension, Point

STYLE = {
    "svg.hashsalt": "rumpbundle",
    "svg.fonttype": "none",  # words stay words: small, and to be found
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
KEPT, MISSED, MARK = "#2a7f62", "#c0392b", "#333333"
COLOURS = ("#1b6ca8", "#2a9d8f", "#7a5195")
PEERS = ("#e07a1f", "#b0563a", "#8a8a8a")


def save(path: Path) -> None:
    pyplot.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    pyplot.close()
    lines = path.read_text("utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), "utf-8")


def ratios(rows: Sequence[Row], path: Path) -> None:
    """Draw a bar for each row, in units of its limit, with the spread of the rounds."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(8, 0.27 * len(rows) + 0.8))
        for at, row in enumerate(reversed(rows)):
            limit = row.promise.limit
            axes.barh(at, row.value / limit, color=KEPT if row.kept else MISSED, height=0.6)
            if row.spread:
                axes.plot([end / limit for end in row.spread], [at, at], color=MARK, linewidth=1)
            axes.plot(row.promise.aim / limit, at, marker="|", color=MARK, markersize=9)
        axes.axvline(1, color=MARK, linewidth=1)
        axes.set_yticks(range(len(rows)), [row.promise.work for row in reversed(rows)])
        axes.set_xlim(0, 2)
        axes.set_xlabel("share of the limit (line: least and most of the rounds; |: the aim)")
        axes.grid(axis="y", visible=False)
        figure.set_layout_engine("none")
        save(path)


def growth(dimension: Dimension, points: Sequence[Point], path: Path) -> None:
    """Draw time and memory against the steps of *dimension*, a line for each contestant, both axes logarithmic."""
    with pyplot.rc_context(STYLE):
        _, (time, memory) = pyplot.subplots(1, 2, figsize=(9, 3.4))
        ours, peers = iter(COLOURS), iter(PEERS)
        for name in dict.fromkeys(point.contestant for point in points):
            mine = [point for point in points if point.contestant == name]
            own = name.startswith("rumpbundle")
            look = {"color": next(ours if own else peers), "marker": "o", "markersize": 3, "label": name}
            look |= {"linestyle": "-" if own else "--"}
            steps = [point.step for point in mine]
            middle = [statistics.median(point.seconds) for point in mine]
            below = [value - min(point.seconds) for value, point in zip(middle, mine, strict=True)]
            above = [max(point.seconds) - value for value, point in zip(middle, mine, strict=True)]
            time.errorbar(steps, middle, yerr=(below, above), elinewidth=0.7, **look)
            memory.plot(steps, [point.memory for point in mine], **look)
        _label(time, dimension.unit, "seconds")
        _label(memory, dimension.unit, "peak memory, MiB")
        time.legend(frameon=False, fontsize=7)
        save(path)


def _label(axes: Axes, across: str, up: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
