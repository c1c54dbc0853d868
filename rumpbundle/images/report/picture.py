"""An image's disk as SVG: one lane for the partitions and one a file system, all on one scale.

Below stands, of a container, which parts of the disk are stored, and in a lane with its own scale where in the file.

The scale is linear, but no box gets too thin to see and none so wide that it leaves the others no room; what is
drawn narrower than to scale carries a zigzag. The same image gives the same bytes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import one_line
from rumpbundle.images.report.image import ImageReport, Kind, Region
from rumpbundle.images.stored import Stored
from rumpbundle.units import shown_size

_WIDTH, _MARGIN, _NAMES = 1000, 20, 130
_DRAWN = _WIDTH - 2 * _MARGIN - _NAMES
_LANE, _BOX, _ROW = 52, 36, 17
_LEAST, _GAP = 7.0, 1.5
"""Pixels of the thinnest box, and of the thinnest gap between two."""
_MOST = 0.3
"""The part of the width a single stretch may take at most."""
_LARGEST = 8
"""Files of a lane that get a box of their own whatever stands beside them."""
_FONT = "Helvetica, Arial, sans-serif"
_LETTER = 6.6
"""Pixels of an average letter of 11 pixel Helvetica, a little generous."""

_FILL: dict[Kind, str] = {
    "table": "#64748b",
    "structure": "#cbd5e1",
    "boot": "#f59e0b",
    "kernel": "#86efac",
    "file": "#7dd3fc",
    "partition": "#e9d5ff",
    "stored": "#5eead4",
}
_INK, _PALE = "#0f172a", "#475569"


_Row = tuple[int, str, Region | None, str]
"""Of the legend: number, label, box and, of a lane, what it is."""


@dataclass(frozen=True, slots=True)
class _Lane:
    name: str
    detail: str
    boxes: tuple[Region, ...]


def _drawn(lane: _Lane, scale: _Scale, y: int, number: int) -> list[str]:
    """Return *lane* at *y*, its boxes numbered from the one after *number* on."""
    return [_lane_name(lane, y), *(_box(box, number + index, scale, y) for index, box in enumerate(lane.boxes, 1))]


def _rows(lane: _Lane, number: int) -> list[_Row]:
    boxes: list[_Row] = [(number + index, box.label, box, "") for index, box in enumerate(lane.boxes, 1)]
    return [(0, lane.name, None, lane.detail), *boxes]


def svg(image: ImageReport) -> str:
    """Return the picture of *image*'s disk."""
    lanes = [_Lane("disk", f"{image.container}, {shown_size(image.disk_size)}", image.table_regions)]
    lanes += [
        _Lane(volume.kind + (f" “{volume.label}”" if volume.label else ""), volume.where, _gathered(volume.regions))
        for volume in image.volumes
    ]
    held = _Lane("stored", "parts of the disk", tuple(map(_on_disk, image.stored)))
    scale = _Scale(image.disk_size, [box for lane in (*lanes, held) for box in lane.boxes])
    top = 64
    parts = []
    number = 0
    rows: list[_Row] = []
    for index, lane in enumerate(lanes):
        parts += _drawn(lane, scale, top + index * _LANE, number)
        rows += _rows(lane, number)
        number += len(lane.boxes)
    bottom = top + len(lanes) * _LANE
    parts += [_zigzag(x, top - 4, bottom - _LANE + _BOX + 4) for x in scale.breaks]
    parts += _axis(scale, lanes[0].boxes, bottom - 4)
    if held.boxes:
        drawn, more, bottom = _in_file(image, held, scale, bottom + 18, number)
        parts += drawn
        rows += more
    legend, height = _legend(rows, bottom + 34)
    title = one_line(image.name)
    frame = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {frame} font-family="{_FONT}" font-size="11">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="{_MARGIN}" y="28" font-size="17" font-weight="bold" fill="{_INK}">{escape(title)}</text>',
            f'<text x="{_MARGIN}" y="46" fill="{_PALE}">{escape(_subtitle(image))}</text>',
            *parts,
            *legend,
            "</svg>",
            "",
        ]
    )


def _in_file(
    image: ImageReport, held: _Lane, scale: _Scale, y: int, number: int
) -> tuple[list[str], list[_Row], int]:
    """Return the lanes of what is stored and of the file, from *y* on, their rows of the legend, and where they end.

    What is stored has the same *number*, from this one on, in both.
    """
    stored, around = _file_regions(image)
    file = _Lane("file", shown_size(image.file_size), tuple(sorted((*stored, *around), key=lambda box: box.offset)))
    within = _Scale(image.file_size, file.boxes)
    below = y + _BOX + 46
    parts = [_connected(*pair, scale, within, y + _BOX, below) for pair in zip(held.boxes, stored, strict=True)]
    parts += _drawn(held, scale, y, number)
    parts += [_zigzag(x, y - 4, y + _BOX + 4) for x in scale.breaks]
    parts += _drawn(_Lane(file.name, file.detail, stored), within, below, number)
    numbers = number + len(stored)
    parts += [_box(box, numbers + index, within, below) for index, box in enumerate(around, 1)]
    parts += [_zigzag(x, below - 4, below + _BOX + 4) for x in within.breaks]
    parts += _axis(within, file.boxes, below + _LANE - 4)
    rows = [*_rows(held, number), *_rows(_Lane(file.name, file.detail, around), numbers)]
    return parts, rows, below + _LANE


def _on_disk(part: Stored) -> Region:
    """Return *part* as a box of the disk, which says where in the file it is."""
    several = f"{part.parts} parts " if part.parts > 1 else ""
    label = f"{several}{'compressed ' if part.packed else ''}at {part.position} of the file"
    return Region(offset=part.offset, length=part.length, label=label, kind="stored")


def _file_regions(image: ImageReport) -> tuple[tuple[Region, ...], tuple[Region, ...]]:
    """Return what of the file is the disk, in the disk's order, and what is not."""
    stored = tuple(
        Region(offset=part.position, length=part.size, label=f"disk from byte {part.offset}", kind="stored")
        for part in image.stored
    )
    taken = [(part.position, part.end) for part in image.stored]
    around = []
    for member in image.members[:_LARGEST]:
        start, end = member.offset, member.offset + member.size
        if member.size and not any(low < end and start < high for low, high in taken):
            taken.append((start, end))
            around.append(Region(offset=start, length=member.size, label=member.name, kind="file"))
    position = 0
    for low, high in sorted((*taken, (image.file_size, image.file_size))):
        if low > position:
            around.append(Region(offset=position, length=low - position, label=image.container, kind="structure"))
        position = max(position, high)
    return stored, tuple(sorted(around, key=lambda box: box.offset))


def _connected(box: Region, other: Region, scale: _Scale, within: _Scale, top: int, bottom: int) -> str:
    """Return the area between a part of the disk and its place in the file."""
    corners = [(scale.x(box.offset), top), (scale.x(box.offset + box.length), top)]
    corners += [(within.x(other.offset + other.length), bottom), (within.x(other.offset), bottom)]
    points = " ".join(f"{x:.1f},{y}" for x, y in corners)
    return f'<polygon points="{points}" fill="{_FILL["stored"]}" fill-opacity="0.25"/>'


def _subtitle(image: ImageReport) -> str:
    said = f"{image.container}: a file of {shown_size(image.file_size)} with a disk of {shown_size(image.disk_size)}"
    return said + (f"; bundle {image.digest[:16]}" if image.digest else "")


class _Scale:
    """Where on the picture a byte of the disk is."""

    def __init__(self, size: int, boxes: Sequence[Region]) -> None:
        edges = {0, size} | {edge for box in boxes for edge in (box.offset, box.offset + box.length)}
        self._edges = sorted(edge for edge in edges if 0 <= edge <= size)
        lengths = [high - low for low, high in pairwise(self._edges)]
        width = float(_DRAWN)
        covered = _covered(boxes)
        starts = [start for start, _ in covered]
        least = []
        for low in self._edges[:-1]:
            index = bisect_right(starts, low) - 1
            least.append(_LEAST if index >= 0 and low < covered[index][1] else _GAP)
        widths, most = _widths(lengths, least, width)
        self._at = [float(_MARGIN + _NAMES)]
        for each in widths:
            self._at.append(self._at[-1] + each)
        self._x = dict(zip(self._edges, self._at, strict=True))
        to_scale = width / max(size, 1)
        self.breaks = [
            self._at[index] + each * 0.88
            for index, (length, each) in enumerate(zip(lengths, widths, strict=True))
            if each >= most - 0.01 and length * to_scale > each * 1.5
        ]

    def x(self, offset: int) -> float:
        return self._x[offset]


def _covered(boxes: Sequence[Region]) -> list[tuple[int, int]]:
    """Return start and end of what *boxes* that are no partitions cover, in order, neighbours as one."""
    found: list[tuple[int, int]] = []
    for low, high in sorted((box.offset, box.offset + box.length) for box in boxes if box.kind != "partition"):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found


def _widths(lengths: list[int], least: list[float], total: float) -> tuple[list[float], float]:
    """Return a width for each length, together *total*, and the widest there may be."""
    fits = min(1.0, total / 2 / max(sum(least), 1))
    most = max(_MOST * total, 1.2 * total / max(len(lengths), 1))

    def at(scale: float) -> list[float]:
        return [min(max(length * scale, low * fits), most) for length, low in zip(lengths, least, strict=True)]

    low, high = 0.0, total
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < total else (low, middle)
    return at(high), most


def _gathered(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    """Return *regions* with small neighbours of one kind, between the largest and what boots, drawn as one."""
    telling = [region for region in regions if region.kind != "structure"]
    enough = sum(region.length for region in telling) // 32
    large = [region for region in telling if region.kind != "file" or region.length >= enough]
    kept = set(sorted(large, key=lambda r: (r.kind == "file", -r.length, r.offset))[:_LARGEST])
    boxes: list[Region] = []
    run: list[Region] = []
    for region in (*regions, None):
        if region is not None and region not in kept and (not run or region.kind == run[0].kind):
            run.append(region)
            continue
        if run:
            boxes.append(_together(run))
            run = []
        if region is not None and region not in kept:
            run = [region]
        elif region is not None:
            boxes.append(region)
    return tuple(boxes)


def _together(run: list[Region]) -> Region:
    if len(run) == 1:
        return run[0]
    start, end = run[0].offset, max(region.offset + region.length for region in run)
    label = f"{len(run)} files" if run[0].kind == "file" else run[0].label
    return Region(offset=start, length=end - start, label=label, kind=run[0].kind)


def _lane_name(lane: _Lane, y: int) -> str:
    name, detail = (escape(_cut(text, _NAMES - 10)) for text in (lane.name, lane.detail))
    return (
        f'<text x="{_MARGIN}" y="{y + 15}" font-weight="bold" fill="{_INK}">{name}</text>'
        f'<text x="{_MARGIN}" y="{y + 29}" fill="{_PALE}">{detail}</text>'
        f'<rect x="{_MARGIN + _NAMES}" y="{y}" width="{_DRAWN}" height="{_BOX}" fill="#f1f5f9"/>'
    )


def _box(box: Region, number: int, scale: _Scale, y: int) -> str:
    left, right = scale.x(box.offset), scale.x(box.offset + box.length)
    width = right - left
    label = _cut(box.label, width - 8) if width > 46 else ""
    if len(label) < min(len(box.label), 6):
        label = str(number) if width >= 7 * len(str(number)) + 2 else ""
    ink = "#ffffff" if box.kind == "table" else _INK
    middle = f'x="{left + width / 2:.1f}" y="{y + 22}" text-anchor="middle"'
    text = f'<text {middle} fill="{ink}">{escape(label)}</text>' if label else ""
    tip = f"{one_line(box.label)}: {box.length} bytes at {box.offset}"
    return (
        f'<g><title>{escape(tip)}</title><rect x="{left:.1f}" y="{y}" width="{width:.1f}" height="{_BOX}" '
        f'fill="{_FILL[box.kind]}" stroke="#334155" stroke-width="0.6"/>{text}</g>'
    )


def _zigzag(x: float, top: int, bottom: int) -> str:
    points = [f"{x + (4 if step % 2 else -4):.1f},{y}" for step, y in enumerate(range(top, bottom + 1, 6))]
    line = " ".join(points)
    return (
        f'<polyline points="{line}" fill="none" stroke="#ffffff" stroke-width="5"/>'
        f'<polyline points="{line}" fill="none" stroke="#94a3b8" stroke-width="1"/>'
    )


def _axis(scale: _Scale, boxes: tuple[Region, ...], y: int) -> list[str]:
    """Return the offsets of the partitions' edges, as far as there is room for them."""
    marks = sorted({0} | {edge for box in boxes for edge in (box.offset, box.offset + box.length)})
    parts = []
    free = 0.0
    for mark in marks:
        x, text = scale.x(mark), shown_size(mark)
        half = len(text) * _LETTER / 2
        if x - half < free:
            continue
        free = x + half + 6
        parts.append(
            f'<line x1="{x:.1f}" y1="{y - 12}" x2="{x:.1f}" y2="{y - 6}" stroke="#64748b"/>'
            f'<text x="{x:.1f}" y="{y + 5}" text-anchor="middle" font-size="10" fill="#64748b">{escape(text)}</text>'
        )
    return parts


def _legend(rows: list[_Row], top: int) -> tuple[list[str], int]:
    """Return the list of all boxes in two columns, and the height of the whole picture."""
    half = -(-len(rows) // 2)
    column = (_WIDTH - 2 * _MARGIN) // 2
    parts = []
    for index, (number, label, box, detail) in enumerate(rows):
        x, y = _MARGIN + index // half * column, top + index % half * _ROW
        if box is None:
            text = _cut(f"{label}, {detail}", column - 20)
            parts.append(f'<text x="{x}" y="{y}" font-weight="bold" fill="{_INK}">{escape(text)}</text>')
            continue
        place = f"{shown_size(box.offset)} + {shown_size(box.length)}"
        parts.append(
            f'<text x="{x + 20}" y="{y}" text-anchor="end" fill="{_PALE}">{number}</text>'
            f'<rect x="{x + 26}" y="{y - 9}" width="10" height="10" fill="{_FILL[box.kind]}" stroke="#334155" '
            f'stroke-width="0.6"/>'
            f'<text x="{x + 42}" y="{y}" fill="{_INK}">{escape(_cut(box.label, column - 200))}</text>'
            f'<text x="{x + column - 20}" y="{y}" text-anchor="end" fill="{_PALE}">{escape(place)}</text>'
        )
    note = top + half * _ROW + 8
    parts.append(
        f'<text x="{_MARGIN}" y="{note}" font-size="10" fill="#64748b">'
        "offset + length. A zigzag: drawn narrower than to scale. Boxes of a few pixels: wider.</text>"
    )
    return parts, note + 14


def _cut(text: str, pixels: float) -> str:
    text = one_line(text)
    room = int(pixels / _LETTER)
    if len(text) <= room:
        return text
    if room <= 4:
        return ""
    return "…" + text[1 - room :] if text.startswith("/") else text[: room - 1] + "…"
