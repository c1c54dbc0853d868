"""The registry: every module of this package that has a ``FORMAT`` is a format rumpbundle can write.

Adding a format is adding one file. The command line, its help, ``rumpbundle formats``, the golden files and
the boot tests all walk this registry. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache

from rumpbundle.arguments import refused
from rumpbundle.errors import UsageError, nearest
from rumpbundle.formats._contract import Beside, Folder, Format, Job, OneFile, ReadBack, Standing, Subformat, option
from rumpbundle.formats._readback import Reading, as_options, option_names
from rumpbundle.formats._readback import read as read_back

ALIASES: Mapping[str, str] = {"aws": "ec2", "esxi": "ova", "gcp": "gce", "vbox": "vdi"}
"""What people also call a format."""
MADE_FOR: Mapping[str, str] = {
    "amazon": "ec2",
    "google": "gce",
    "hyper-v": "vhdx",
    "hyperv": "vhdx",
    "img": "raw",
    "kvm": "qcow2",
    "libvirt": "qcow2",
    "openstack": "qcow2",
    "proxmox": "qcow2",
    "qemu": "qcow2",
    "usb": "iso",
    "virtualbox": "vdi or ova",
    "vmware": "vmdk or ova",
}
"""The formats for what people also give as one, and what several of them would suit: hints, no names."""


@cache
def names() -> tuple[str, ...]:
    """Return the names of all formats, sorted."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))


def find(name: str | Format) -> Format:
    """Return the format called *name*; a format is taken as it is.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise refused("format", "the name of a format", name)
    name = ALIASES.get(name, name)
    if name not in names():
        hint = nearest(name, (*names(), *ALIASES), f"known formats: {', '.join(names())}", also=MADE_FOR)
        raise UsageError(f"no such format: {name}", hint=hint)
    found = importlib.import_module(f"rumpbundle.formats.{name}").FORMAT
    assert isinstance(found, Format)
    return found


def formats() -> Iterator[Format]:
    """Yield every format, sorted by name."""
    return (find(name) for name in names())


__all__ = [
    "ALIASES",
    "MADE_FOR",
    "Beside",
    "Folder",
    "Format",
    "Job",
    "OneFile",
    "ReadBack",
    "Reading",
    "Standing",
    "Subformat",
    "as_options",
    "find",
    "formats",
    "names",
    "option",
    "option_names",
    "read_back",
]
