"""Several formats of one bundle: planned once, written side by side, each whole or not at all.

One that fails does not take the others down; what became of each is in its :class:`Outcome`.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from rumpbundle import formats
from rumpbundle.arguments import file_name, flag, refused, sequence
from rumpbundle.bundling.recipe import Recipe, RecipeFields
from rumpbundle.bundling.writing import Artifact, Plan, carry_out, check_no_inputs, job_for, plan, threads
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError, Interrupted, RumpbundleError, UsageError
from rumpbundle.events import Event, Note, Report, Warned, silent
from rumpbundle.formats import Format, Job
from rumpbundle.host.parallel import run_all
from rumpbundle.host.putting import put
from rumpbundle.manifest import stem

SUMS = "SHA256SUMS"
"""The name of the file of checksums."""
SUM = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](.+)")
"""A line of it: whether the name is escaped, the SHA-256, the name."""
MOST_SUMS = 16 << 20
"""Bytes of one that is read."""


@dataclass(frozen=True, slots=True)
class Target:
    """A format to write, and where."""

    format: Format
    subformat: str
    output: Path
    options: Any = None
    """The format's own options."""

    @property
    def name(self) -> str:
        """What it is called where it failed: the format, with a subformat that is not its first."""
        first = self.format.subformats[0].name
        return self.format.name if self.subformat == first else f"{self.format.name}:{self.subformat}"

    def job(self, plan: Plan, *, jobs: int | None = None, report: Report = silent) -> Job:
        """Return what the format's writer is given for *plan*; raises as :func:`job_for`."""
        return job_for(
            plan,
            self.format,
            self.output,
            subformat=self.subformat,
            options=self.options,
            jobs=jobs,
            report=report,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a target: an artifact (and, for kits, the commands that use it), or an error."""

    target: Target
    artifact: Artifact | None = None
    commands: tuple[str, ...] = ()
    error: RumpbundleError | None = None


def targets(
    app: str | os.PathLike[str], names: Sequence[str], directory: Path, *, name: str = ""
) -> tuple[Target, ...]:
    """Return what to write into *directory* for *names*, each a format or ``FORMAT:SUBFORMAT``.

    The files are called by *name*, without it by *app*'s stem. A subformat that is not the format's first stands in
    the file's name: ``app.stream.vmdk``.

    Raises:
        UsageError: a name is unknown, or two want the same file.
    """
    found: dict[Path, Target] = {}
    called = name or stem(os.fspath(app))
    for each in names:
        format_name, colon, wanted = each.partition(":")
        format = formats.find(format_name)
        subformat = format.subformat(wanted).name
        if colon and not wanted:
            raise UsageError(f"no such subformat: {each!r}", where="-f")
        kind = f".{subformat}" if subformat != format.subformats[0].name else ""
        target = Target(format, subformat, directory / f"{called}{kind}{format.tail}")
        if target.output in found:
            raise UsageError(f"{each} is given twice", where="-f")
        found[target.output] = target
    return tuple(found.values())


def write_targets(
    planned: Plan,
    targets: Sequence[Target],
    *,
    force: bool = False,
    sync: bool = True,
    jobs: int | None = None,
    report: Report = silent,
) -> tuple[Outcome, ...]:
    """Write *planned* in every format of *targets* and return what became of each, in their order.

    Only errors of the library's own are outcomes; an interruption, or a bug, ends everything.
    """
    check_no_inputs(planned.recipe, [file for target in targets for file in target.format.files(target.output)])
    once = _Once(report)

    def job(target: Target) -> Job | RumpbundleError:
        try:
            return target.job(planned, jobs=jobs, report=once)
        except RumpbundleError as error:
            return error

    def outcome(target: Target, job: Job | RumpbundleError) -> Outcome:
        if isinstance(job, RumpbundleError):
            return Outcome(target=target, error=job)
        try:
            artifact, commands = carry_out(job, target.format, force=force, sync=sync)
        except RumpbundleError as error:
            return Outcome(target=target, error=error)
        return Outcome(target=target, artifact=artifact, commands=commands)

    # What there is to warn of comes in the order of the formats: before they are written side by side.
    calls = [partial(outcome, target, job(target)) for target in targets]
    return run_all(calls, max(2, os.cpu_count() or 1), once.stop)


def build(
    app: str | os.PathLike[str] | Recipe,
    names: Sequence[str],
    directory: str | os.PathLike[str] = ".",
    *,
    force: bool = False,
    jobs: int | None = None,
    report: Report = silent,
    **recipe: Unpack[RecipeFields],
) -> tuple[Outcome, ...]:
    """Bundle the kernel *app* in every format of *names* (``vmdk``, ``vmdk:stream``) into *directory*.

    Further keywords are the fields of :class:`Recipe`. What became of each is told in the order of *names*.

    Raises:
        RumpbundleError: nothing can be written, for a reason that is not one format's.
    """
    wanted = Recipe.of(app, **recipe)
    for each in (asked := sequence("names", names)):
        if not isinstance(each, str):
            raise refused("names", "the name of a format", each)
    found = targets(wanted.app, asked, Path(file_name("directory", directory)))
    flag("force", force)
    threads(jobs)
    planned = plan(wanted, formats=[target.format for target in found], report=report)
    return write_targets(planned, found, force=force, jobs=jobs, report=report)


class _Once:
    """Passes on every note and warning once, though several formats give it; and lets all of them be stopped."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._stopped = False
        self._said: set[Event] = set()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let every writer fail at its next word, before its file appears."""
        self._stopped = True

    def __call__(self, event: Event) -> None:
        if self._stopped:
            raise Interrupted
        if isinstance(event, Note | Warned):
            with self._lock:
                if event in self._said:
                    return
                self._said.add(event)
        self._report(event)


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
    others = _others(path, lines, force=force) if keep else []
    put(path, b"".join([*others, *lines]), force=force or keep, sync=sync)
    return path


def check_checksums(path: Path, *, force: bool) -> None:
    """Raise :class:`UsageError` if the list at *path*, which is about to be kept, is something else."""
    _others(path, [], force=force)


def _others(path: Path, lines: Sequence[bytes], *, force: bool) -> list[bytes]:
    """Return the lines of the list at *path* for what is still there and is not in *lines*, which replace theirs.

    Raises:
        UsageError: it is no list of checksums, and *force* is not given.
    """
    if not os.path.lexists(path):
        return []
    found = None
    if path.is_file() and not path.is_symlink() and path.stat().st_size <= MOST_SUMS:
        found = list(map(SUM.fullmatch, filter(None, path.read_bytes().split(b"\n"))))
    if found is None or None in found:
        if force:
            return []
        raise UsageError("is there, and is no list of checksums", where=path, hint="give --force to overwrite it")
    made = {match[3] for match in (SUM.fullmatch(line.rstrip(b"\n")) for line in lines) if match}
    kept = [match for match in found if match is not None and match[3] not in made]
    return [match[0] + b"\n" for match in kept if os.path.lexists(path.parent / os.fsdecode(name_of(match)))]


def name_of(line: re.Match[bytes]) -> bytes:
    """Return the name in a *line* of a list of checksums."""
    escapes = {b"n": b"\n", b"r": b"\r"}
    return re.sub(rb"\\(.)", lambda m: escapes.get(m[1], m[1]), line[3]) if line[1] else line[3]


def files_of(artifact: Artifact) -> Iterator[Path]:
    """Yield the files of *artifact*: itself, all in it if it is a directory, and those beside it."""
    for path in formats.find(artifact.format).files(artifact.path):
        if path.is_dir():
            yield from sorted(entry for entry in path.rglob("*") if entry.is_file())
        else:
            yield path


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


__all__ = [
    "Outcome",
    "Target",
    "build",
    "check_checksums",
    "files_of",
    "sha256_of",
    "targets",
    "write_checksums",
    "write_targets",
]
