"""A finished image of any format as any other: one of ours as bundling would have made it, another as it is.

Uncompressed images are mapped: the bytes go from where they stand in them into the new one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from rumpbundle import guests
from rumpbundle.bundling.planning import Plan, bus_for, machine_name
from rumpbundle.bundling.recipe import Recipe
from rumpbundle.disk.content import Content
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError, UsageError
from rumpbundle.events import Note, Report, Warned, silent
from rumpbundle.finished import foreign
from rumpbundle.finished.bootability import Bootability, bootability
from rumpbundle.finished.origin import NotOursError, Origin, origin
from rumpbundle.finished.request import rebundled, request_of
from rumpbundle.formats import Format, OneFile
from rumpbundle.host import environment
from rumpbundle.images.disk import Disk, RawDisk
from rumpbundle.images.partitions import tables
from rumpbundle.images.volumes import mounted, warn_of_cut_off
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Bundle, stem


def plan_of(
    disk: Disk,
    path: str | os.PathLike[str],
    *,
    formats: Sequence[Format],
    name: str | None = None,
    size: int | None = None,
    firmware: str = "both",
    strict: bool = False,
    report: Report = silent,
) -> Plan:
    """Return how *disk*, opened from *path*, is to be written in *formats*; it must stay open until that is done.

    *name* and *size* are what bundling takes; None keeps what the image has. *firmware* narrows what is announced of
    a disk that is not ours.

    Raises:
        ImageError: the image is damaged, or nothing starts from it and a format announces what does.
        UsageError: an option asks for what the image is not.
    """
    try:
        found = origin(disk)
    except NotOursError as error:
        if "not made by rumpbundle" not in error.problem:
            report(Note(f"{os.path.basename(path)}: {error.problem}; its disk is kept as it is"))
        _check_sectors(disk, formats, report)
        _warn_of_no_disk(disk, path, report)
        warn_of_cut_off(disk, path, report)
        return _foreign(disk, path, formats, name, size, firmware)
    recipe = Recipe(app=path, name=name, size=found.bundle.asked.size if size is None else size, strict=strict)
    if firmware != "both" and [firmware] != list(found.bundle.firmware):
        raise UsageError("the image's boot code is part of it", where="--firmware", hint="bundle again")
    bundle = replace(
        found.bundle,
        name=found.bundle.name if name is None else machine_name(recipe, found.bundle.kernel),
        asked=replace(found.bundle.asked, size=recipe.size),
    )
    _check_bus(found, formats)
    disk_plan = replace(found, bundle=bundle).plan()
    return Plan(recipe=recipe, bundle=bundle, disk=disk_plan, delivery=guests.Delivery())


def _check_bus(found: Origin, formats: Sequence[Format]) -> None:
    """Raise :class:`ImageError` if bundling for *formats* would have told the guest of another disk."""
    bus = bus_for(found.bundle.kernel, formats)
    if not found.bundle.bus or not bus or bus == found.bundle.bus:
        return
    again, _ = rebundled(found, replace(request_of(found), bus=bus))
    if again.bus != found.bundle.bus:
        raise ImageError(
            f"its guest looks for its disk on {found.bundle.bus}, and there it would be on {again.bus}",
            hint="bundle again: another configuration goes into that image",
        )


_ANY_SECTORS = ("raw", "qcow2")
"""Formats that do not say how large a sector is: who attaches the disk does. In the others we write 512 bytes."""


def _check_sectors(disk: Disk, formats: Sequence[Format], report: Report) -> None:
    """Raise :class:`ImageError` if a partition table of *disk* counts in sectors it would not have there."""
    found = [table for table in tables(disk, thorough=False) if table.sector != SECTOR and table.slots]
    if not found:
        return
    counts = f"its {found[-1].kind.upper()} counts in sectors of {found[-1].sector} bytes"
    attach = f"attach it as a disk of such sectors (in QEMU logical_block_size={found[-1].sector})"
    for format in formats:
        # A CD has sectors of 2048 bytes.
        if format.name not in _ANY_SECTORS and (format.name, found[-1].sector) != ("iso", 2048):
            raise ImageError(
                f"{counts}, and a disk in {format.name} has those of {SECTOR}: no machine would find its partitions",
                hint=f"convert it to raw or qcow2, and {attach}",
            )
    report(Note(f"{counts}: {attach}, or no machine finds its partitions"))


def _warn_of_no_disk(disk: Disk, path: str | os.PathLike[str], report: Report) -> None:
    """Say it where a plain file bears no mark of a disk: it may be an image of a kind that nobody here knows."""
    if not isinstance(disk, RawDisk) or not any(disk.read(0, min(disk.size, 1 << 20))):
        return  # an empty disk is one
    found, name = tables(disk, thorough=False), os.path.basename(path)
    if not found and next(mounted(disk, found), None) is None:
        report(Warned(f"{name} has no partition table and no file system that is known; it is taken for a raw disk"))


def _foreign(
    disk: Disk,
    path: str | os.PathLike[str],
    formats: Sequence[Format],
    name: str | None,
    size: int | None,
    wanted: str,
) -> Plan:
    layout = foreign.layout_of(disk)
    starts = _announced(bootability(disk), formats, wanted)
    kernel = Unikernel(
        name=os.path.basename(path),
        content=Content(()),
        family=Family.PLAIN,
        protocols=(Protocol.DISK,) if starts.firmware else (),
        refusal=starts.why,
        machine=starts.machine,
    )
    recipe = Recipe(app=path, name=stem(os.fspath(path)) if name is None else name, size=size or 0)
    bundle = Bundle(
        name=machine_name(recipe, kernel),
        kernel=kernel,
        firmware=starts.firmware,
        boot=dict.fromkeys(starts.firmware, Protocol.DISK),
        epoch=environment.epoch(),
        grub={},
    ).identified(layout.identity)
    return Plan(recipe=recipe, bundle=bundle, disk=layout, delivery=guests.Delivery())


def _announced(starts: Bootability, formats: Sequence[Format], wanted: str) -> Bootability:
    """Return what may be said of *starts*: no more than *wanted*, and enough for kits.

    Raises:
        ImageError: a kit announces what starts from the disk, and nothing does.
        UsageError: *wanted* is not among it.
    """
    kits = [format.name for format in formats if not isinstance(format.product, OneFile)]
    if kits and not starts.firmware:
        what = "it starts only from a CD" if starts.cd else "nothing starts from this disk"
        raise ImageError(f"{what}: {starts.why}", hint=f"{kits[0]} is for machines that start from it")
    if wanted == "both":
        return starts
    if wanted not in starts.firmware:
        known = ", ".join(starts.firmware) or "nothing"
        raise UsageError(f"the disk does not start under {wanted.upper()} (it has {known})", where="--firmware")
    return replace(starts, firmware=(Firmware(wanted),))


__all__ = ["plan_of"]
