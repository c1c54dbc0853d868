"""What a worker of a fleet does: a batch of bundles, made out of sight and named together.

What a batch needs of the others is in its :class:`Batch`, what they need of it in its results: a worker keeps only
what it would read again (:class:`rumpbundle.project.stock.Stock`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from rumpbundle import __version__
from rumpbundle.bundling.batch import Target, files_of
from rumpbundle.bundling.writing import Artifact, Plan, check_no_inputs, check_outputs, write
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import HostError, RumpbundleError
from rumpbundle.host.directories import make_directory
from rumpbundle.host.staging import staged_batch
from rumpbundle.project import record
from rumpbundle.project.entry import Given, ProjectEntry
from rumpbundle.project.maker import how
from rumpbundle.project.reading import Project
from rumpbundle.project.record import Kept, RecordedOutput
from rumpbundle.project.rows import Row
from rumpbundle.project.stock import Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A bundle of a batch, and what the record says of its outputs."""

    name: str
    row: Row | None
    known: tuple[RecordedOutput, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What a worker is given; all paths are absolute."""

    project: Project
    items: tuple[Item, ...]
    directory: str | None
    """Where to write in the place of the file's."""
    now: int
    """When the run began (:class:`rumpbundle.project.record.Kept`)."""
    epoch: int
    version: str
    images: Mapping[str, str] | None
    """The boot images of the client, so that a worker with others is noticed; None if it has none."""
    sync: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no bundle."""

    problem: str
    hint: str | None
    exit_code: int

    @classmethod
    def of(cls, error: RumpbundleError) -> Failure:
        return cls(problem=str(error), hint=error.hint, exit_code=error.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of an item."""

    outputs: tuple[RecordedOutput, ...] = ()
    """What stands now, with paths as the item's targets have them."""
    made: int = 0
    """How many of them are new."""
    failure: Failure | None = None


_stock = Stock()
"""What this process has read."""


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C and all words to the client, which ends its workers; Dask calls this as a local one starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


def run(batch: Batch) -> tuple[Done, ...]:
    """Make *batch* and return what became of each item, in order."""
    _stock.refresh()
    try:
        _check_alike(batch)
    except RumpbundleError as error:
        return tuple(Done(failure=Failure.of(error)) for _ in batch.items)
    works = [_Work(batch, item) for item in batch.items]
    places: dict[Path, list[_Work]] = {}
    for work in works:
        if work.targets:
            places.setdefault(work.targets[0].output.parent, []).append(work)
    for place, there in places.items():
        _make(place, there, batch.sync)
    return tuple(work.done() for work in works)


def _make(place: Path, works: list[_Work], sync: bool) -> None:
    """Make *works*, whose outputs all go to *place*, one after the other, and give them their names together."""
    try:
        with contextlib.ExitStack() as stack:
            directory: Path | None = None
            for work in works:
                work.begin()
                if work.wanted and directory is None:
                    make_directory(place, parents=True)
                    directory = stack.enter_context(staged_batch(place, sync=sync))
                if directory is not None:
                    work.write(directory)
        for work in works:
            work.settle()
    except OSError as error:
        _fail(works, HostError(f"cannot be written: {os.strerror(error.errno or 0)}", where=place))
    except RumpbundleError as error:
        _fail(works, error)


def _fail(works: list[_Work], error: RumpbundleError) -> None:
    """Tell that those of *works* that do not stand already failed."""
    for work in works:
        work.begin()
        if work.wanted:
            work.failure = work.failure or Failure.of(error)


def _check_alike(batch: Batch) -> None:
    """Raise :class:`HostError` if this worker would make other bytes than the client."""
    if batch.version != __version__:
        raise HostError(
            f"this worker has rumpbundle {__version__}, the client {batch.version}", where=os.uname().nodename
        )
    if batch.images is not None and _stock.images().facts != batch.images:
        raise HostError(
            "this worker has other boot images of GRUB than the client",
            where=os.uname().nodename,
            hint="install the same wheel of rumpbundle, which brings them along, or the same GRUB",
        )


class _Work:
    """An item on its way."""

    def __init__(self, batch: Batch, item: Item) -> None:
        self._batch = batch
        self._known = {output.path: output for output in item.known}
        self._entry = ProjectEntry(project=batch.project, name=item.name, row=item.row)
        self._plan: Plan | None = None
        self._digest = ""
        self._outputs: dict[str, RecordedOutput] = {}
        self._digests: dict[Path, str] = {}
        self._made = 0
        self._written: list[Target] = []
        self.targets: tuple[Target, ...] = ()
        """All of its outputs, which are in one directory; none if the project file does not say which."""
        self.wanted: list[Target] = []
        """Those that do not stand already, once it has begun."""
        self.failure: Failure | None = None
        try:
            self.targets = self._entry.targets((), None if batch.directory is None else Path(batch.directory))
        except RumpbundleError as error:
            self.failure = Failure.of(self._entry.placed(error))

    def begin(self) -> None:
        """Plan it, and find out what of it has to be made, unless that is known already."""
        if self._digest or self.failure is not None:
            return
        try:
            recipe = self._entry.recipe(_stock, Given(fields={"epoch": self._batch.epoch}))
            self._plan = _stock.plan(recipe, [target.format for target in self.targets])
            digest = self._plan.bundle.identity.digest
            for _ in _stock.learn(self._plan):
                pass
        except RumpbundleError as error:
            self.failure = Failure.of(self._entry.placed(error))
            return
        self._digest = digest
        for target in self.targets:
            known = self._known.get(str(target.output))
            stands = record.standing(known, how(target), digest, self._batch.now)
            if stands is None:
                self.wanted.append(target)
            else:
                self._outputs[str(target.output)] = stands
        if not self.wanted:
            self._plan = None

    def write(self, directory: Path) -> None:
        """Write into *directory* what is wanted; what stands there already, byte for byte, stays."""
        for target in self.wanted:
            assert self._plan is not None
            try:
                _check_replaced(self._plan, target)
                options = {"subformat": target.subformat, "options": target.options, "jobs": 1, "sync": False}
                artifact, _ = write(self._plan, target.format, directory / target.output.name, **options)
                self._take(target, artifact)
            except RumpbundleError as error:
                self.failure = self.failure or Failure.of(_named(error, directory, target.output.parent))
        self._plan = None  # it is large, and a batch has many

    def _take(self, target: Target, artifact: Artifact) -> None:
        """Note the digests of *artifact*'s files; drop them if the same stand under *target*'s name."""
        files = {target.output.parent / file.relative_to(artifact.path.parent): file for file in files_of(artifact)}
        digests = {final: record.look(str(file), 0).digest for final, file in files.items()}
        self._written.append(target)
        self._digests |= digests
        if all(_digest(final) == digest for final, digest in digests.items()):
            for each in target.format.files(artifact.path):
                shutil.rmtree(each) if each.is_dir() else each.unlink()
        else:
            self._made += 1

    def settle(self) -> None:
        """Note what was written as it stands now."""
        for target in self._written:
            files = files_of(Artifact(target.format.name, target.output))
            kept = tuple(Kept.of(str(file), self._digests[file], self._batch.now) for file in files)
            self._outputs[str(target.output)] = RecordedOutput(str(target.output), how(target), self._digest, kept)

    def done(self) -> Done:
        return Done(outputs=tuple(self._outputs.values()), made=self._made, failure=self.failure)


def _check_replaced(plan: Plan, target: Target) -> None:
    """Raise unless what stands where *target* of *plan* goes is an output of its kind, and no input."""
    standing = [file for file in target.format.files(target.output) if os.path.lexists(file)]
    if standing:
        check_no_inputs(plan.recipe, standing)
        check_outputs(target.format, target.output, force=True, tidy=False)


def _named(error: RumpbundleError, directory: Path, place: Path) -> RumpbundleError:
    """Return *error* with the name in *place* that what it is about was to get, which nobody sees in *directory*."""
    where = os.fspath(error.where or "")
    if where.startswith(f"{directory}{os.sep}"):
        error.where = os.path.join(place, os.path.relpath(where, directory))
    return error


def _digest(path: Path) -> str:
    """Return the BLAKE3 of the file *path*; empty if there is none."""
    try:
        return record.look(str(path), 0).digest
    except RumpbundleError:
        return ""
