"""Inside the page's worker: runs rumpbundle's command line as a terminal would, but in memory."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import sha256

from rumpbundle import __version__, cli
from rumpbundle import formats as registry

hashlib.sha256 = sha256.sha256  # hashes the zeros of a volume once for all formats


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


__all__ = ["formats", "run", "version"]
