"""What stands where an SBOM or a signature is to go: one of an earlier build, or something that has to stay.

It may be an output of an image that is not wanted now, or somebody's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import UsageError

SBOM = "SBOM", b"CycloneDX"
SIGNATURE = "signature", b"untrusted comment:"
_HEAD = 4096
"""Bytes in which either says what it is."""


def check_replaced(path: Path, kind: tuple[str, bytes], *, force: bool) -> None:
    """Raise :class:`UsageError` if the file *path* is there and not of this *kind*, unless *force* is given."""
    if force or not os.path.lexists(path):
        return
    what, mark = kind
    head = b""
    if path.is_file():
        file = InputFile(path)
        head = file.read(0, min(file.size, _HEAD))
    if mark not in head:
        raise UsageError(f"is there, and is no {what}", where=path, hint="give --force to overwrite it")
