"""A finished image of ours with another configuration: what bundling with that would have given, byte for byte.

Kernel, files, boot images and date come from the image, and every one of them stays in its place: what a
configuration decides stands in slots (:data:`rumpbundle.manifest.SLOT`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rumpbundle import formats
from rumpbundle.api import Plan, Recipe
from rumpbundle.disk.layout import MIB, DiskLayout
from rumpbundle.errors import ConfigError, ImageError, UsageError
from rumpbundle.events import Report, silent
from rumpbundle.finished import xenkit
from rumpbundle.finished.origin import Origin, origin
from rumpbundle.finished.request import rebundled, request_of
from rumpbundle.formats import Format
from rumpbundle.guests import ConfigFor
from rumpbundle.images.detect import open_disk
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


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], report: Report = silent) -> Iterator[tuple[Disk | None, Origin]]:
    """Give the disk in the image at *path*, None if it is a kit without one, and what the image was made from.

    Raises:
        RumpbundleError: as :func:`open_disk` and :func:`origin`.
    """
    if xenkit.has_no_disk(path):
        yield None, xenkit.origin(path)
        return
    with open_disk(path, report, watch="no") as disk:  # it may be changed in place
        yield disk, origin(disk)


def plan_of(
    found: Origin,
    path: str | os.PathLike[str],
    *,
    config: Config | None,
    cmdline: str | None = None,
    config_name: str | None = None,
    configs: Sequence[ConfigFor] = (),
    inputs: Sequence[str] = (),
) -> Plan:
    """Return the plan of the image at *path*, read as *found*, with *config*; *cmdline* of None keeps what it has.

    Errors call the configuration *config_name*. *configs* replace those for the same keys and join the others.
    *inputs* are the files all of it was read from.

    Raises:
        ImageError: there is no room for it; the message says how many bytes.
        ConfigError, UsageError: the guest cannot be given this.
    """
    request = request_of(found)
    if cmdline is not None:
        request = replace(request, cmdline=cmdline)
    try:
        bundle, delivery = rebundled(found, replace(request, config=config), configs)
    except ConfigError as error:
        error.where = error.where or config_name
        raise
    after = replace(found, bundle=bundle).plan()
    if not configs and not xenkit.has_no_disk(path):
        # More machines are more files, for which others make room; all else stays where it is.
        _check_places(found.bundle, bundle, found.plan(), after)
    recipe = Recipe(app=path, size=bundle.asked.size, inputs=tuple(inputs))
    return Plan(recipe=recipe, bundle=bundle, disk=after, delivery=delivery)


def stays(before: DiskLayout, after: DiskLayout) -> bool:
    """Return whether everything that a manifest names is *after* where it was *before*."""
    places = [[one.offset for one in layout.named] for layout in (before, after)]
    return places[0] == places[1] and before.body_end == after.body_end


def _check_places(old: Bundle, new: Bundle, before: DiskLayout, after: DiskLayout) -> None:
    """Raise :class:`ImageError` if a content has moved: what the configuration takes is more than was kept for it."""
    if stays(before, after) and old.manifest_slot == new.manifest_slot:
        return
    taken = len(new.manifest(hashed=False)) - old.manifest_slot
    decided = [(module.content.size, module.room) for module in new.modules if module.room]
    taken = max([taken, *(size - room for size, room in decided)])
    if taken <= 0:
        raise ImageError(
            "this configuration is handed to the guest in another way than the image's, so all would move",
            hint="bundle again; with --config-room it is handed over in one way, whatever its length",
        )
    raise ImageError(
        f"this configuration takes {taken} bytes more than the image has room for",
        hint="bundle again, with --config-room for later ones",
    )


def format_of(disk: Disk | None, path: str | os.PathLike[str]) -> tuple[Format, str]:
    """Return the format and subformat of the image at *path*, which holds *disk*.

    Raises:
        UsageError: it is in none that is written.
    """
    name = os.fspath(path)
    if disk is None or os.path.isdir(name):
        kind = "xen" if kitfiles.is_xen(name) else "ec2"
        stream = os.path.exists(os.path.join(name, "volume.vmdk"))
        return formats.find(kind), "stream" if stream else ""
    if "tar" in disk.around:
        return (formats.find("ova"), "") if disk.container.startswith("vmdk") else (formats.find("gce"), "")
    if disk.around:
        raise UsageError("is a compressed file: unpack it first", where=name)
    if disk.container in ("raw", "iso"):
        return formats.find("raw" if disk.size % MIB == 0 and not name.endswith(".iso") else "iso"), ""
    if disk.container == "vhd (fixed)":
        azure = formats.find("azure")
        if name.endswith(azure.suffix) or (not name.endswith(".json") and azure.files(Path(name))[1].exists()):
            return azure, ""
    if disk.container not in _SINGLE:
        raise UsageError(f"is {disk.container}, which is read but not written", where=name)
    kind, subformat = _SINGLE[disk.container]
    return formats.find(kind), subformat


__all__ = ["format_of", "opened", "plan_of", "stays"]
