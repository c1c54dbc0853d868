"""A directory as an object file that links into a rumprun unikernel ("baked-in files").

The object holds the files and a constructor that hands them to the guest, as the guest expects it
(``docs/facts/guests.md#rumprun-components``)::

    rumprun_platefs(const char **dirs, size_t ndirs, struct rumprun_extfile *files, size_t nfiles)

    struct rumprun_extfile { const char *name; void *data; size_t length; int flags; }

It goes in with ``rumprun-bake -m "add /absolute/data.o" hw_virtio out.bin app``. The guest gives every file the
mode 0755 and its boot time, and keeps them in memory as long as it runs; what it writes to them is lost.
"""

from __future__ import annotations

from rumpbundle.guests.rumprun.component.gathering import Component, collect, split_source
from rumpbundle.guests.rumprun.component.linking import MACHINES, save, write_object

__all__ = ["MACHINES", "Component", "collect", "save", "split_source", "write_object"]
