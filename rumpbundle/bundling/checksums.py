"""``SHA256SUMS``: the list of checksums beside outputs, as ``sha256sum -c`` reads it."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from rumpbundle.bundling.batch import files_of
from rumpbundle.bundling.writing import Artifact
from rumpbundle.disk.content import CHUNK
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError, UsageError
from rumpbundle.host.parallel import run_all
from rumpbundle.host.putting import put

SUMS = "SHA256SUMS"
"""The name of the file of checksums."""
SUM = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)")
"""A line of it: whether the name is escaped, the SHA-256, the name."""
MOST_SUMS = 16 << 20
"""Bytes of one that is read."""


def write_checksums(
    artifacts: Sequence[Artifact], directory: Path, *, force: bool = False, keep: bool = False, sync: bool = True
) -> Path:
    """Write ``SHA256SUMS`` of all files of *artifacts*, which are in *directory*, as ``sha256sum -c`` reads it.

    With *keep* a list that is there already keeps its lines of other files, as long as those are there.

    Raises:
        UsageError: it exists and *force* is not given; with *keep*: it is something else.
    """
    files = [file for artifact in artifacts for file in files_of(artifact)]
    stop = threading.Event()
    digests = run_all([partial(sha256_of, file, stop) for file in files], os.cpu_count() or 1, stop.set)
    lines = [_line(os.path.relpath(file, directory), digest) for file, digest in zip(files, digests, strict=True)]
    path = directory / SUMS
    others = _others(path, {os.path.abspath(file) for file in files}, force=force) if keep else []
    put(path, b"".join([*others, *lines]), force=force or keep, sync=sync)
    return path


def check_checksums(path: Path, *, force: bool) -> None:
    """Raise :class:`UsageError` if the list at *path*, which is about to be kept, is something else."""
    _others(path, (), force=force)


def _others(path: Path, made: Collection[str], *, force: bool) -> list[bytes]:
    """Return the lines of the list at *path* for files that are still there and not among those just *made*.

    Raises:
        UsageError: it is no list of checksums, and *force* is not given.
    """
    if not os.path.lexists(path):
        return []
    found = None
    if path.is_file() and not path.is_symlink() and (file := InputFile(path)).size <= MOST_SUMS:
        found = list(map(SUM.fullmatch, filter(None, file.read(0, file.size).split(b"\n"))))
    if found is None or None in found:
        if force:
            return []
        raise UsageError("is there, and is no list of checksums", where=path, hint="give --force to overwrite it")
    # A name may be as ./app.iso, of a list that somebody else wrote.
    files = [(os.path.abspath(path.parent / os.fsdecode(name_of(match))), match[0]) for match in found if match]
    return [line + b"\n" for name, line in files if name not in made and os.path.lexists(name)]


def name_of(line: re.Match[bytes]) -> bytes:
    """Return the name in a *line* of a list of checksums."""
    escapes = {b"n": b"\n", b"r": b"\r"}
    return re.sub(rb"\\(.)", lambda m: escapes.get(m[1], m[1]), line[3]) if line[1] else line[3]


def sha256_of(path: Path, stop: threading.Event | None = None) -> str:
    """Return the hex SHA-256 of a file, or of what was read of it before *stop* was set."""
    digest = hashlib.sha256()
    try:
        with open(InputFile(path).open(), "rb") as file:
            while not (stop and stop.is_set()) and (chunk := file.read(CHUNK)):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"cannot be read: {os.strerror(error.errno or 0)}", where=path) from None
    return digest.hexdigest()


def _line(name: str, digest: str) -> bytes:
    """Return a line of a checksum file, with GNU's escapes where the name needs them."""
    raw = os.fsencode(name)
    escaped = raw.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != raw else b"") + digest.encode("ascii") + b"  " + escaped + b"\n"


__all__ = ["MOST_SUMS", "SUM", "SUMS", "check_checksums", "name_of", "sha256_of", "write_checksums"]
