"""A finished image against the bundle that is made again from its inputs: bit for bit the same, or not?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rumpbundle import formats
from rumpbundle.bundling.planning import Plan, plan
from rumpbundle.bundling.recipe import Recipe
from rumpbundle.disk.content import CHUNK, Zeros
from rumpbundle.disk.layout import DiskLayout, LayoutReader
from rumpbundle.events import Report
from rumpbundle.finished import planned
from rumpbundle.finished.diff import manifests
from rumpbundle.finished.origin import Origin
from rumpbundle.formats import Format
from rumpbundle.images.disk import Disk
from rumpbundle.images.problem import Problem

CONSEQUENCE = "the image is not what these inputs and options make"


def problems(disk: Disk, ours: Origin, recipe: Recipe, report: Report) -> Iterator[Problem]:
    """Yield where *disk* is not what *recipe* makes, with the date, the bus, the name and the sizes of the image.

    Raises:
        RumpbundleError: *recipe* cannot be bundled.
    """
    again = _again(ours, recipe, (), report)
    yield from _manifests(ours, again)
    if again.disk.size > disk.size:
        what = f"the disk has {disk.size} bytes, bundled again it takes {again.disk.size}"
        yield Problem(where="the disk", offset=None, what=what, consequence=CONSEQUENCE)
        return
    yield from _first(again.disk.padded(least=planned.end_of(disk)), disk)


def kit_problems(ours: Origin, recipe: Recipe, report: Report) -> Iterator[Problem]:
    """The same for a kit that no disk is part of, and whose files are what its manifest says."""
    yield from _manifests(ours, _again(ours, recipe, (formats.find("xen"),), report))


def _again(ours: Origin, recipe: Recipe, wanted: Sequence[Format], report: Report) -> Plan:
    bundle = ours.bundle
    recipe = replace(
        recipe,
        epoch=bundle.epoch,
        name=bundle.name if recipe.name is None else recipe.name,
        size=recipe.size or bundle.asked.size,
        config_room=recipe.config_room or bundle.asked.room,
    )
    return plan(recipe, formats=wanted, bus=bundle.bus, report=report)


def _manifests(ours: Origin, again: Plan) -> Iterator[Problem]:
    for difference in manifests(json.loads(ours.raw), json.loads(again.bundle.manifest_bytes)):
        what = f"the image has the first, bundled again it is the second: {difference.what}"
        yield Problem(where=difference.where, offset=None, what=what, consequence=CONSEQUENCE)


def _first(layout: DiskLayout, disk: Disk) -> Iterator[Problem]:
    """Yield the first byte of *disk* that is another on *layout*."""
    position = 0
    with LayoutReader(layout) as reader:
        for low, high in layout.ranges():
            yield from _zeros(disk, position, low)
            for at in range(low, high, CHUNK):
                length = min(CHUNK, high - at)
                found, wanted = disk.read(at, length), reader.read(at, length)
                if found != wanted:
                    place = at + next(n for n in range(length) if found[n] != wanted[n])
                    label = next(e.label for e in reversed(layout.extents) if e.offset <= place)
                    there, here = found[place - at :][:8].hex(), wanted[place - at :][:8].hex()
                    what = f"the first difference: {there}, bundled again {here}"
                    yield Problem(where=label, offset=place, what=what, consequence=CONSEQUENCE)
                    return
            position = high
        yield from _zeros(disk, position, disk.size)


def _zeros(disk: Disk, start: int, end: int) -> Iterator[Problem]:
    for run in disk.runs(start, end - start) if end > start else ():
        if isinstance(run.source, Zeros):
            continue
        for at in range(run.offset, run.offset + run.length, CHUNK):
            data = disk.read(at, min(CHUNK, run.offset + run.length - at))
            if data.count(0) != len(data):
                place = at + len(data) - len(data.lstrip(b"\0"))
                what = "the free space holds something"
                yield Problem(where="free space", offset=place, what=what, consequence=CONSEQUENCE)
                return
