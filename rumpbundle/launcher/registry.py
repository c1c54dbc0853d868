"""The backends there are, each a module of this package that is imported when it is asked for."""

from __future__ import annotations

import importlib

from rumpbundle import arguments
from rumpbundle.errors import UsageError, nearest
from rumpbundle.launcher.backend import Backend

KITS = {"xl": "xen"}
"""The backends that boot a kit and not a disk, and the format of it."""

NAMES = ("bhyve", "qemu", "vbox", "xl")

_MEANT = {"kvm": "qemu", "virtualbox": "vbox", "xen": "xl"}
"""The backends that other words may mean: hints, no names."""


def find(name: str) -> Backend:
    """Return the backend called *name*.

    Raises:
        UsageError: there is none; the hint names the nearest.
    """
    if arguments.text("--boot", name) not in NAMES:
        hint = nearest(name, NAMES, f"known: {', '.join(NAMES)}", also=_MEANT)
        raise UsageError(f"no such backend: {name}", where="--boot", hint=hint)
    backend: Backend = importlib.import_module(f"rumpbundle.launcher.{name}").BACKEND
    return backend
