"""Several formats of one bundle: planned once, written side by side, each whole or not at all.

One that fails does not take the others down; what became of each is in its :class:`Outcome`.
"""

from __future__ import annotations

import os
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
from rumpbundle.errors import Interrupted, RumpbundleError, UsageError
from rumpbundle.events import Event, Note, Report, Warned, silent
from rumpbundle.formats import Format, Job
from rumpbundle.host.parallel import run_all
from rumpbundle.manifest import stem


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


def files_of(artifact: Artifact) -> Iterator[Path]:
    """Yield the files of *artifact*: itself, all in it if it is a directory, and those beside it."""
    for path in formats.find(artifact.format).files(artifact.path):
        if path.is_dir():
            yield from sorted(entry for entry in path.rglob("*") if entry.is_file())
        else:
            yield path


__all__ = ["Outcome", "Target", "build", "files_of", "targets", "write_targets"]
