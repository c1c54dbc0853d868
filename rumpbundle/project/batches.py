"""What a worker of a fleet does: a batch of bundles, made out of sight and named together.

What a batch needs of the others is in its :class:`Batch`, what they need of it in its results: a worker keeps only
what it would read again (:class:`rumpbundle.project.stock.Stock`).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from rumpbundle import __version__
from rumpbundle.api import Artifact, Plan, write
from rumpbundle.batch import Target, files_of
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import HostError, RumpbundleError
from rumpbundle.host.staging import staged_batch
from rumpbundle.project import record
from rumpbundle.project.entry import Entry, Given
from rumpbundle.project.maker import how
from rumpbundle.project.reading import Project
from rumpbundle.project.record import Kept, Output
from rumpbundle.project.rows import Row
from rumpbundle.project.stock import Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A bundle of a batch, and what the record says of its outputs."""

    name: str
    row: Row | None
    known: tuple[Output, ...] = ()


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

    outputs: tuple[Output, ...] = ()
    """What stands now, with paths as the item's targets have them."""
    made: int = 0
    """How many of them are new."""
    failure: Failure | None = None


_stock = Stock()
"""What this process has read."""


def dask_setup(worker: object) -> None:
    """Let Ctrl-C be the client's alone, which ends its workers; Dask calls this as a local worker starts."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
        work.begin()
        for target in work.wanted:
            places.setdefault(target.output.parent, []).append(work)
    for place, there in places.items():
        unique = list({id(work): work for work in there}.values())
        try:
            place.mkdir(parents=True, exist_ok=True)
            with staged_batch(place, sync=batch.sync) as directory:
                for work in unique:
                    work.write(place, directory)
            for work in unique:
                work.settle(place)
        except OSError as error:
            problem = HostError(f"cannot be written: {os.strerror(error.errno or 0)}", where=place)
            _fail(unique, problem)
        except RumpbundleError as error:
            _fail(unique, error)
    return tuple(work.done() for work in works)


def _fail(works: list[_Work], error: RumpbundleError) -> None:
    for work in works:
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
        self._entry = Entry(project=batch.project, name=item.name, row=item.row)
        self._plan: Plan | None = None
        self._outputs: dict[str, Output] = {}
        self._digests: dict[Path, str] = {}
        self._made = 0
        self._written: list[Target] = []
        self.wanted: list[Target] = []
        self.failure: Failure | None = None

    def begin(self) -> None:
        """Plan it, and find out what of it has to be made."""
        directory = self._batch.directory
        try:
            targets = self._entry.targets((), None if directory is None else Path(directory))
            recipe = self._entry.recipe(_stock, Given(fields={"epoch": self._batch.epoch}))
            self._plan = _stock.plan(recipe, [target.format for target in targets])
            digest = self._plan.bundle.identity.digest
            for _ in _stock.learn(self._plan):
                pass
        except RumpbundleError as error:
            self.failure = Failure.of(self._entry.placed(error))
            return
        for target in targets:
            known = self._known.get(str(target.output))
            stands = record.standing(known, how(target), digest, self._batch.now)
            if stands is None:
                self.wanted.append(target)
            else:
                self._outputs[str(target.output)] = stands

    def write(self, place: Path, directory: Path) -> None:
        """Write into *directory* what is wanted in *place*; what stands there already, byte for byte, stays."""
        assert self._plan is not None
        for target in self.wanted:
            if target.output.parent != place:
                continue
            try:
                options = {"subformat": target.subformat, "options": target.options, "jobs": 1, "sync": False}
                artifact, _ = write(self._plan, target.format, directory / target.output.name, **options)
                self._take(target, artifact)
            except RumpbundleError as error:
                self.failure = self.failure or Failure.of(error)

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

    def settle(self, place: Path) -> None:
        """Note what was written into *place* as it stands now."""
        assert self._plan is not None
        for target in self._written:
            if target.output.parent == place:
                files = files_of(Artifact(target.format.name, target.output))
                kept = tuple(Kept.of(str(file), self._digests[file], self._batch.now) for file in files)
                digest = self._plan.bundle.identity.digest
                self._outputs[str(target.output)] = Output(str(target.output), how(target), digest, kept)

    def done(self) -> Done:
        return Done(outputs=tuple(self._outputs.values()), made=self._made, failure=self.failure)


def _digest(path: Path) -> str:
    """Return the BLAKE3 of the file *path*; empty if there is none."""
    try:
        return record.look(str(path), 0).digest
    except RumpbundleError:
        return ""
