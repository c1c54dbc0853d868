"""A finished image of ours with another configuration: what bundling with that would have given, byte for byte.

Kernel, files, boot images and date come from the image, and every one of them stays in its place: what a
configuration decides stands in slots (:data:`rumpbundle.manifest.SLOT`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rumpbundle import formats
from rumpbundle.bundling.writing import Plan, Recipe
from rumpbundle.disk.content import Content
from rumpbundle.disk.layout import MIB, DiskLayout
from rumpbundle.disk.tree import File
from rumpbundle.errors import ConfigError, ImageError, UsageError
from rumpbundle.events import Report, silent
from rumpbundle.finished import xenkit
from rumpbundle.finished.origin import Origin, origin
from rumpbundle.finished.request import rebundled, request_of
from rumpbundle.formats import Format
from rumpbundle.guests import ConfigFor, Request
from rumpbundle.images.detect import open_disk
from rumpbundle.images.disk import Disk
from rumpbundle.images.records import kitfiles
from rumpbundle.kernels.unikernel import Family, Protocol
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
def opened(
    path: str | os.PathLike[str], report: Report = silent, *, whole: bool = True
) -> Iterator[tuple[Disk | None, Origin]]:
    """Give the disk in the image at *path*, None if it is a kit without one, and what the image was made from.

    *whole* as :func:`open_disk` has it.

    Raises:
        RumpbundleError: as :func:`open_disk` and :func:`origin`.
    """
    if xenkit.has_no_disk(path):
        yield None, xenkit.origin(path)
        return
    with open_disk(path, report, watch="no", whole=whole) as disk:  # it may be changed in place
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
    before = request_of(found)
    request = replace(before, config=config, cmdline=before.cmdline if cmdline is None else cmdline)
    _check_one_way(before, request, configs)
    try:
        bundle, delivery = rebundled(found, request, configs)
    except (ConfigError, UsageError) as error:
        if isinstance(error, ConfigError):
            error.where = error.where or config_name
        error.hint = _hint_here(error.hint)
        raise
    after = replace(found, bundle=bundle).plan()
    if not configs and not xenkit.has_no_disk(path):
        # More machines are more files, for which others make room; all else stays where it is.
        _check_places(found.bundle, bundle, found.plan(), after)
    recipe = Recipe(app=path, size=bundle.asked.size, inputs=tuple(inputs))
    return Plan(recipe=recipe, bundle=bundle, disk=after, delivery=delivery)


def _check_one_way(before: Request, after: Request, configs: Sequence[ConfigFor]) -> None:
    """Raise :class:`UsageError` if a rumprun would be told something by its configuration and by hand as well."""
    if before.kernel.family is not Family.RUMPRUN:
        return
    by_hand = "--cmdline" if before.cmdline is not None else "--module" if before.modules else ""
    if by_hand and (after.config is not None or configs):
        raise UsageError(
            f"a rumprun takes no configuration beside {by_hand}, with which this image was made",
            hint=f"bundle again, with -c and without {by_hand}",
        )
    if not by_hand and after.cmdline is not None:
        raise UsageError(
            "a rumprun takes no command line beside its configuration, with which this image was made",
            where="--cmdline",
            hint="give a configuration (-c), or what changes in it (-e, --hostname, --net, --arg)",
        )


_ELSEWHERE = re.compile(r"--(?:module|esp|data|volume|protocol)\b")
"""The options that errors of bundling advise, and that are not there for a finished image."""


def _hint_here(hint: str | None) -> str | None:
    """Return *hint*, which is for who bundles, as one for who has a finished image."""
    options = dict.fromkeys(_ELSEWHERE.findall(hint or ""))
    return f"{hint}; {' and '.join(options)} can be given when it is bundled again" if options else hint


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
    if taken > 0:
        raise ImageError(
            f"this configuration takes {taken} bytes more than the image has room for",
            hint="bundle again, with --config-room for later ones",
        )
    if Protocol.EFI in new.boot.values() and bool(old.cmdline) != bool(new.cmdline):
        raise ImageError(
            "an EFI application is started in another way with a command line than without, so all would move",
            hint=f"bundle again, {'with' if new.cmdline else 'without'} --cmdline",
        )
    if _ways(old).keys() == _ways(new).keys():
        raise ImageError(
            "this configuration takes less than the image keeps for its own, so all would move",
            hint="bundle again, with --config-room for later ones",
        )
    longest = max(content.size for bundle in (old, new) for content in _ways(bundle).values())
    raise ImageError(
        "this configuration is handed to the guest in another way than the image's, so all would move",
        hint=f"bundle again; with --config-room {-(-longest // 1024)}K both are handed over in one way",
    )


def _ways(bundle: Bundle) -> dict[str, Content]:
    """Return what the configuration of *bundle* became, by its place and name."""
    modules = {f"module {module.name}": module.content for module in bundle.modules if module.room}
    files = (node for node in bundle.root.children if isinstance(node, File) and node.room)
    return modules | {f"file {node.name}": node.content for node in files}


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
