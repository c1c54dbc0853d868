"""Builds what a project file describes and is not up to date."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rumpbundle import __version__
from rumpbundle.bundling.batch import Outcome, Target, write_targets
from rumpbundle.bundling.writing import Artifact, Plan, check_no_inputs
from rumpbundle.dataclass import dataclass
from rumpbundle.events import Report, silent
from rumpbundle.host.directories import make_directory
from rumpbundle.project import record
from rumpbundle.project.beside import BesideWriter
from rumpbundle.project.entry import Given, ProjectEntry
from rumpbundle.project.record import BuildRecord
from rumpbundle.project.stock import Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What became of an output: it was made, stands as it was, or failed."""

    entry: ProjectEntry
    outcome: Outcome
    digest: str = ""
    """The bundle's."""
    kept: bool = False
    """Whether it was up to date."""


def how(target: Target) -> str:
    """Return what says, beside the bundle's digest, what *target*'s bytes are."""
    options = target.options
    if options is None and target.format.options is not None:
        options = target.format.options()
    own = dataclasses.asdict(options) if options is not None else {}
    return msgspec.json.encode([__version__, target.format.name, target.subformat, own]).decode()


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Builds one entry after the other, and remembers it."""

    record: BuildRecord
    stock: Stock = dataclasses.field(default_factory=Stock)
    names: Sequence[str] = ()
    """Formats that are wanted in the place of the file's."""
    directory: Path | None = None
    """Where to write in the place of the file's."""
    given: Given | None = None
    """What wins over the file."""
    beside: BesideWriter | None = None
    """What writes SBOMs and signatures."""
    force: bool = False
    """Whether what is up to date is made, too."""
    sync: bool = True

    @classmethod
    def of(cls, record: BuildRecord, **more: Any) -> Maker:
        """Return a maker that knows what *record* does."""
        maker = cls(record=record, **more)
        maker.stock.digests.update(record.known_inputs())
        return maker

    def plan(self, entry: ProjectEntry, report: Report = silent) -> tuple[Plan, tuple[Target, ...]]:
        """Return what *entry* is, and what is to be written of it."""
        targets = entry.targets(self.names, self.directory)
        recipe = entry.recipe(self.stock, self.given)
        check_no_inputs(recipe, [file for each in targets for file in each.format.files(each.output)])
        if self.beside is not None:
            self.beside.check(entry)
        return self.stock.plan(recipe, [each.format for each in targets], report), targets

    def make(self, entry: ProjectEntry, report: Report = silent) -> Iterator[Made]:
        """Build what is not up to date of *entry*, and yield what became of each of its outputs.

        Raises:
            RumpbundleError: nothing of it can be built.
        """
        planned, targets = self.plan(entry, report)
        known = {} if self.force else self.record.outputs
        wanted, seen = [], self.record.now
        standing: list[Artifact] = []
        for target in targets:
            before = known.get(os.path.abspath(target.output))
            # The digest needs all payload read; a writer reads it anyway.
            stands = before and record.standing(before, how(target), planned.bundle.identity.digest, seen)
            if not stands:
                wanted.append(target)
                continue
            self.record.add([stands])
            standing.append(Artifact(target.format.name, target.output))
            outcome = Outcome(target=target, artifact=standing[-1])
            yield Made(entry=entry, outcome=outcome, digest=planned.bundle.identity.digest, kept=True)
        for target in wanted:
            make_directory(target.output.parent, parents=True)
        written = write_targets(planned, wanted, force=True, sync=self.sync, report=report) if wanted else ()
        for outcome in written:
            digest = planned.bundle.identity.digest if outcome.artifact is not None else ""
            if outcome.artifact is not None:
                self.record.add([record.output_line(outcome.artifact, how(outcome.target), digest, seen)])
                standing.append(outcome.artifact)
            yield Made(entry=entry, outcome=outcome, digest=digest)
        if written:
            self.record.add([record.input_line(*each, seen) for each in self.stock.learn(planned)])
        if self.beside is not None and standing:
            self.beside.write(entry, planned.bundle, standing)
