"""Small files, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from rumpbundle.host.staging import staged_file, writing


def put(path: Path, data: bytes, *, force: bool = False, sync: bool = True) -> None:
    """Write *data* as the file *path*.

    Raises:
        UsageError: it exists and *force* is not given.
        InputError, HostError: it cannot be written there.
    """
    with staged_file(path, force=force, sync=sync) as staged, writing(path):
        view = memoryview(data)
        while view:
            view = view[os.write(staged.fd, view) :]
