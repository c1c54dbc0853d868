"""All that a build of a project file writes, against each other and against all that it reads, before it begins."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from rumpbundle.bundling.batch import Target
from rumpbundle.bundling.checksums import SUMS
from rumpbundle.bundling.minisign import SUFFIX, signature_path
from rumpbundle.bundling.recipe import Recipe
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import RumpbundleError, UsageError
from rumpbundle.formats import Folder
from rumpbundle.host import overlap
from rumpbundle.project import overwritten
from rumpbundle.project.entry import Given, ProjectEntry
from rumpbundle.project.stock import Stock


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """What is written of one entry."""

    entry: ProjectEntry
    targets: tuple[Target, ...]
    sbom: Path | None
    signed: bool

    @classmethod
    def of(cls, entry: ProjectEntry, names: Sequence[str], directory: Path | None, given: Given) -> Writes | None:
        """Return what *entry* writes; None if what says so is wrong, which is told where it is made."""
        try:
            targets = entry.targets(names, directory)
        except RumpbundleError:
            return None
        signed = entry.key_file(given) is not None
        return cls(entry=entry, targets=targets, sbom=entry.sbom_file(given), signed=signed)

    @property
    def outputs(self) -> list[Path]:
        return [file for each in self.targets for file in each.format.files(each.output)]

    @property
    def kits(self) -> list[Path]:
        """Outputs that are directories: which files they get, and so which signatures, is not known yet."""
        return [each.output for each in self.targets if isinstance(each.format.product, Folder)]

    @property
    def signatures(self) -> list[Path]:
        """Where signatures go, but for those of kits."""
        files = [*self.outputs, *([self.sbom] if self.sbom else ())]
        return [signature_path(each, each) for each in files if each not in self.kits] if self.signed else []

    @property
    def written(self) -> list[Path]:
        return [*self.outputs, *([self.sbom] if self.sbom else ()), *self.signatures]


def check_written_apart(
    found: Sequence[ProjectEntry],
    *,
    names: Sequence[str] = (),
    directory: Path | None = None,
    given: Given | None = None,
    sums: bool = False,
    stock: Stock | None = None,
    ours: Container[str] = (),
) -> None:
    """Raise if *found*, written as *names* into *directory*, with lists of *sums*, would write a file twice.

    With a *stock* what they are made of is read, too, and no output may take the place of that. *ours* are the
    absolute paths of what an earlier build wrote: another image may be made of such, and of what looks like that.

    Raises:
        InputError, UsageError: the message says which file, and whose it is.
    """
    given = given or Given()
    check_outputs_apart(found, names, directory)
    wanted = [each for entry in found if (each := Writes.of(entry, names, directory, given)) is not None]
    whose = _owners(wanted)
    kits = {_place(kit): each for each in wanted for kit in each.kits}
    if sums:
        for path in {target.output.parent / SUMS for each in wanted for target in each.targets}:
            if (other := whose.get(_place(path))) is not None:
                raise UsageError(f"is {other}'s, and the list of checksums, too", where=path)
    for each in wanted:
        _check_beside_kits(each, kits)
    if stock is not None:
        read: set[overlap.Inode | None] = set()
        for each, recipe in _recipes(wanted, stock, given):
            own = set(recipe.origins())
            overlap.check_apart(each.written, own)
            read |= own
        written = [path for each in wanted for path in each.written]
        both = [path for path in written if not read.isdisjoint(overlap.replaced(path))]
        made = (path for path in both if os.path.abspath(path) not in ours and not overwritten.is_ours(path))
        overlap.check_apart(made, read, inside=False)
        stock.forget(written)


def check_outputs_apart(
    found: Sequence[ProjectEntry], names: Sequence[str] = (), directory: Path | None = None
) -> None:
    """Raise :class:`InputError` if two of *found*, written as *names* into *directory*, have an output in common.

    That is all that a fleet writes, which may have very many rows. Only a label that is another's up to a dot can:
    ``x.fixed`` as VHD, and ``x`` as a fixed VHD.
    """
    labels = {entry.label: entry for entry in found}
    for label, entry in labels.items():
        for other in (labels.get(label[:at]) for at, each in enumerate(label) if each == "."):
            both = _files(entry, names, directory) & _files(other, names, directory) if other is not None else None
            if both and other is not None:
                problem = f"{other.label} and {label} are both to be written to {min(both)}"
                raise entry.error(problem, "rows", "let them differ in more than what comes after a dot")


def _files(entry: ProjectEntry, names: Sequence[str], directory: Path | None) -> set[str]:
    """Return the outputs of *entry*; nothing if what says so is wrong."""
    writes = Writes.of(entry, names, directory, Given())
    return {os.path.normpath(each) for each in writes.outputs} if writes is not None else set()


def _owners(wanted: Sequence[Writes]) -> dict[Path, str]:
    """Return whose every file is that is written of *wanted*, whose outputs are apart."""
    whose = {_place(path): each.entry.label for each in wanted for path in each.outputs}
    for each in wanted:
        label = each.entry.label
        if each.sbom is not None:
            if (place := _place(each.sbom)) in whose:
                other = whose[place]
                what = "is what an output is called" if other == label else f"is {other}'s, too"
                raise UsageError(f"{what}: each image has an SBOM of its own", where=each.sbom)
            whose[place] = label
    for each in wanted:
        for path in each.signatures:
            if (place := _place(path)) in whose:
                problem = f"is {whose[place]}'s, and a signature of {each.entry.label}, too"
                raise UsageError(problem, where=path, hint="give another name")
            whose[place] = each.entry.label
    return whose


def _check_beside_kits(each: Writes, kits: Mapping[Path, Writes]) -> None:
    """Raise if a file of *each* would lie in one of *kits*, or be called as the signature of a file in one."""
    for path in each.written:
        place = _place(path)
        around = [kits[above] for above in place.parents if above in kits]
        if around:
            whose = around[0].entry.label
            raise UsageError(f"would lie in an output of {whose}", where=path, hint="give another name")
        ends = [at for at, character in enumerate(place.name) if character == "."] if place.suffix == SUFFIX else []
        beside = [kits[kit] for kit in (place.with_name(place.name[:at]) for at in ends if at) if kit in kits]
        if any(kit.signed for kit in beside):
            label = beside[0].entry.label
            problem = f"is {each.entry.label}'s, and may be the name of a signature of {label}, too"
            raise UsageError(problem, where=path, hint="give another name")


def _place(path: Path) -> Path:
    """Return *path* as no other path to the same name in the same directory is."""
    return Path(os.path.realpath(path.parent), path.name)


def _recipes(wanted: Sequence[Writes], stock: Stock, given: Given) -> Iterator[tuple[Writes, Recipe]]:
    """Yield what is read for each; what of it is missing or wrong is told where it is made."""
    for each in wanted:
        with contextlib.suppress(RumpbundleError):
            yield each, each.entry.recipe(stock, given)
