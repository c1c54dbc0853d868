"""Inside the page's worker: runs rumpbundle's command line as a terminal would, but in memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import sha256

from rumpbundle import __version__, cli
from rumpbundle import formats as registry
from rumpbundle.bootloader import bootimages

hashlib.sha256 = sha256.sha256  # hashes the zeros of a volume once for all formats
bootimages._load = cache(bootimages._load)  # read and hashed once: nobody else can change them here

MULTIBOOT = 0x1BADB002
FLAGS, ADDRESS = 1 << 16, 1 << 20
KERNEL = struct.pack("<8I", MULTIBOOT, FLAGS, -(MULTIBOOT + FLAGS) & 0xFFFFFFFF, ADDRESS, ADDRESS, 0, 0, ADDRESS)
"""The least that passes for a kernel; nobody boots it."""


class _Lines(io.TextIOBase):
    """Standard error: kept, and each line told at once."""

    def __init__(self, told: Callable[[str], object]) -> None:
        self.text = ""
        self._told = told
        self._begun = ""

    def write(self, text: str) -> int:
        self.text += text
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._told(line)
        return len(text)


def run(argv: list[str], directory: str, told: Callable[[str], object], out: str = "") -> str:
    """Run ``rumpbundle ARGV`` in *directory* and return its status, standard output and error as JSON.

    With *out*, standard output goes into that file, byte for byte.
    """
    os.chdir(directory)
    errors = _Lines(told)
    with open(out, "wb") if out else io.BytesIO() as raw:
        output = io.TextIOWrapper(raw, "utf-8", "surrogateescape", write_through=True)
        with redirect_stdout(output), redirect_stderr(errors):
            status = cli.main(argv)
        text = raw.getvalue().decode("utf-8", "backslashreplace") if isinstance(raw, io.BytesIO) else ""
        output.detach()
    return json.dumps({"status": status, "out": text, "err": errors.text})


def warm() -> int:
    """Make an image of nothing much and return the status: the first takes some four times as long as later ones."""
    import tempfile  # the page is ready without it

    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "kernel").write_bytes(KERNEL)
        ran = run(["build", "--formats=iso", f"--output={place}", "kernel"], place, lambda line: None)
        os.chdir("/")
    return int(json.loads(ran)["status"])


def formats() -> str:
    """Return what can be written, as JSON."""
    found = []
    for format in registry.formats():
        for subformat in format.subformats:
            name = format.name if subformat is format.subformats[0] else f"{format.name}:{subformat.name}"
            found.append({"name": name, "summary": format.summary})
    return json.dumps(found)


def version() -> str:
    return __version__


__all__ = ["formats", "run", "version", "warm"]
