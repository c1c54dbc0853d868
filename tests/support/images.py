"""Images of test kernels, made through the public API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import rumpbundle
from rumpbundle import formats
from rumpbundle.bundling.writing import ModuleFile
from support.readers import QEMU_DRIVERS, disk_of_ova

DISK_DRIVERS = QEMU_DRIVERS | {"iso": "raw"}
"""QEMU's block driver for each format that is one bootable file."""


def disk_formats() -> list[tuple[str, str]]:
    """Return format and subformat of everything we write that QEMU can open."""
    found = [formats.find(name) for name in formats.names() if name in DISK_DRIVERS]
    return [(format.name, subformat) for format in found for subformat in format.variants or ("",)]


def make(
    directory: Path, kernel: Path, format: str = "iso", *, modules: Sequence[tuple[str, bytes, str]] = (), **recipe
) -> Path:
    """Bundle *kernel* as *format* in *directory*; of an OVA, the disk. Modules are name, content and text."""
    files = []
    for number, (name, content, text) in enumerate(modules):
        path = directory / f"module{number}" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        files.append(ModuleFile(path, text))
    output = directory / f"image{formats.find(format).suffix}"
    result = rumpbundle.bundle(kernel, format, output=output, modules=tuple(files), **recipe)
    return disk_of_ova(result.paths[0]) if format == "ova" else result.paths[0]
