"""What stands where an SBOM or a signature is to go: one of an earlier build, or something that has to stay.

It may be an output of an image that is not wanted now, or somebody's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import RumpbundleError, UsageError
from rumpbundle.finished.origin import manifest_of
from rumpbundle.images.detect import open_disk

SBOM = "SBOM", b"CycloneDX"
SIGNATURE = "signature", b"untrusted comment:"
_HEAD = 4096
"""Bytes in which either says what it is."""


def check_replaced(path: Path, kind: tuple[str, bytes], *, force: bool) -> None:
    """Raise :class:`UsageError` if the file *path* is there and not of this *kind*, unless *force* is given."""
    if force or not os.path.lexists(path):
        return
    what, mark = kind
    if mark not in _head(path):
        raise UsageError(f"is there, and is no {what}", where=path, hint="give --force to overwrite it")


def is_ours(path: Path) -> bool:
    """Whether *path* is an SBOM, a signature or an image that a build made, as far as it tells itself.

    The record does not know it after a project was moved, or when its outputs alone were kept.
    """
    if any(mark in _head(path) for _, mark in (SBOM, SIGNATURE)):
        return True
    try:
        with open_disk(path) as disk:
            manifest_of(disk)
    except RumpbundleError:
        return False
    return True


def _head(path: Path) -> bytes:
    """Return the first bytes of the file *path*; nothing if it is none."""
    if not path.is_file():
        return b""
    file = InputFile(path)
    return file.read(0, min(file.size, _HEAD))
