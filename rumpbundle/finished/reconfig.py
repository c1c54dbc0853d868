"""A finished image of ours with another configuration: what bundling with that would have given, byte for byte.

Kernel, files, boot images and date come from the image, and every one of them stays in its place: what a
configuration decides stands in slots (:data:`rumpbundle.manifest.SLOT`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rumpbundle import formats
from rumpbundle.api import Plan, Recipe
from rumpbundle.disk.layout import MIB, DiskLayout
from rumpbundle.errors import ImageError, UsageError
from rumpbundle.finished.origin import Origin
from rumpbundle.finished.request import rebundled, request_of
from rumpbundle.formats import Format
from rumpbundle.images.disk import Disk
from rumpbundle.images.records import kitfiles
from rumpbundle.manifest import Bundle

if TYPE_CHECKING:
    from rumpbundle.config import Config

_SINGLE = {
    "vmdk": ("vmdk", "sparse"),
    "vmdk (stream)": ("vmdk", "stream"),
    "vdi": ("vdi", ""),
    "qcow2": ("qcow2", ""),
    "vhd": ("vhd", "dynamic"),
    "vhd (fixed)": ("vhd", "fixed"),
    "vhdx": ("vhdx", ""),
}
"""Format and subformat by the container's name."""


def plan_of(
    found: Origin, path: str | os.PathLike[str], *, config: Config | None, cmdline: str | None = None
) -> Plan:
    """Return the plan of the image at *path*, read as *found*, with *config*; *cmdline* of None keeps what it has.

    Raises:
        ImageError: there is no room for it; the message says how many bytes.
        ConfigError, UsageError: the guest cannot be given this.
    """
    request = request_of(found)
    if cmdline is not None:
        request = replace(request, cmdline=cmdline)
    bundle, delivery = rebundled(found, replace(request, config=config))
    before = found.plan()
    after = replace(found, bundle=bundle).plan()
    _check_places(found.bundle, bundle, before, after)
    recipe = Recipe(app=path, size=bundle.asked.size)
    return Plan(recipe=recipe, bundle=bundle, disk=after, delivery=delivery)


def _check_places(old: Bundle, new: Bundle, before: DiskLayout, after: DiskLayout) -> None:
    """Raise :class:`ImageError` if a content has moved: what the configuration takes is more than was kept for it."""
    places = [[one.offset for one in layout.named] for layout in (before, after)]
    if places[0] == places[1] and before.body_end == after.body_end and old.manifest_slot == new.manifest_slot:
        return
    taken = len(new.manifest(hashed=False)) - old.manifest_slot
    decided = [(module.content.size, module.room) for module in new.modules if module.room]
    taken = max([taken, *(size - room for size, room in decided)])
    what = f"{taken} bytes more than" if taken > 0 else "more than"
    raise ImageError(
        f"this configuration takes {what} the image keeps room for",
        hint="bundle again, with --config-room for later ones",
    )


def format_of(disk: Disk, path: str | os.PathLike[str]) -> tuple[Format, str]:
    """Return the format and subformat of the image at *path*, which holds *disk*.

    Raises:
        UsageError: it is in none that is written.
    """
    name = os.fspath(path)
    if os.path.isdir(name):
        kind = "xen" if kitfiles.is_xen(name) else "ec2"
        stream = os.path.exists(os.path.join(name, "volume.vmdk"))
        return formats.find(kind), "stream" if stream else ""
    if "tar" in disk.around:
        return (formats.find("ova"), "") if disk.container.startswith("vmdk") else (formats.find("gce"), "")
    if disk.around:
        raise UsageError("is a compressed file: unpack it first", where=name)
    if disk.container == "raw":
        return formats.find("raw" if disk.size % MIB == 0 and not name.endswith(".iso") else "iso"), ""
    if disk.container == "vhd (fixed)" and formats.find("azure").files(Path(name))[1].exists():
        return formats.find("azure"), ""
    if disk.container not in _SINGLE:
        raise UsageError(f"is {disk.container}, which is read but not written", where=name)
    kind, subformat = _SINGLE[disk.container]
    return formats.find(kind), subformat


__all__ = ["format_of", "plan_of"]
