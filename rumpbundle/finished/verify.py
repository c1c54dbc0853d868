"""Whether a finished image is whole, and what its manifest says it is.

A digest that stands in the same file proves that nothing was damaged, not where the image comes from: whoever changes
one can change the other. To bundle again and compare (``rebuild``) proves more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from typing import Literal as OneOf

from rumpbundle.arguments import file_name, flag, instance, reporter
from rumpbundle.bootloader.bootimages import BootImages
from rumpbundle.bundling.recipe import Recipe
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import CHUNK
from rumpbundle.disk.digest import hexdigest
from rumpbundle.errors import ImageError, InputError, RumpbundleError, UsageError
from rumpbundle.events import Finished, Report, Started, silent
from rumpbundle.finished import containers, kits, listing, planned, readback, xenkit
from rumpbundle.finished import manifest as records
from rumpbundle.finished import opinions as others
from rumpbundle.finished import rebuild as again
from rumpbundle.finished.origin import ContradictionError, NotOursError, Origin, manifest_of, origin
from rumpbundle.images import volumes
from rumpbundle.images.budget import TooMuchError
from rumpbundle.images.compression import Unpacked
from rumpbundle.images.containers.qcow2_check import LATER
from rumpbundle.images.detect import NoImageError, disk_file, open_disk
from rumpbundle.images.disk import Disk
from rumpbundle.images.problem import Problem, Severity
from rumpbundle.images.records import kitfiles
from rumpbundle.manifest import PATH

_MOST = 200
"""Findings told of one image; a badly damaged one has no end of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found of an image."""

    path: str
    container: str
    """The format, as ``rumpbundle inspect`` has it; empty if it could not be told."""
    size: int
    """The disk's, in bytes."""
    digest: str
    """The BLAKE3 of its manifest, which names the bundle; empty without one."""
    compared: bool
    """Whether there was something to compare with: its own manifest, a kit's, or a bundle made again."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    files: int = 0
    """Of a list of checksums: how many files it names."""

    @property
    def damage(self) -> tuple[Problem, ...]:
        """What makes it damaged; the other problems are remarks."""
        return tuple(problem for problem in self.problems if problem.severity == "damage")

    @property
    def state(self) -> OneOf["whole", "damaged", "different"]:
        """In a word; ``different`` is what is whole, and not what was bundled again."""
        if not self.damage:
            return "whole"
        return "different" if all(each.consequence == again.CONSEQUENCE for each in self.damage) else "damaged"


def verify(
    path: str | os.PathLike[str], *, rebuild: Recipe | None = None, opinions: bool = True, report: Report = silent
) -> Verification:
    """Look for all that is wrong with the image, or the list of checksums, at *path*.

    With *rebuild* it is bundled again (in memory: nothing is written) and compared bit for bit. With *opinions* other
    programs' readers look at it, too.

    Raises:
        NoImageError: it is no image.
        InputError: it cannot be read.
        UsageError: *rebuild* is given for an image that rumpbundle did not make.
    """
    path, report, opinions = file_name("image", path), reporter(report), flag("opinions", opinions)
    rebuild = None if rebuild is None else instance("rebuild", rebuild, Recipe)
    found = _Findings()
    if kits.is_sums(path):
        if rebuild is not None:
            raise UsageError("a list of checksums is nothing that could be bundled again", where="--rebuild")
        found.container, found.compared = "checksums", True
        found.look("the list", lambda: _list(path, found))
        return found.verification(path)
    if xenkit.has_no_disk(path):
        _xen_kit(path, found, rebuild, report)
        return found.verification(path)
    try:
        with open_disk(path, report, whole=True) as disk:
            volumes.check_is_disk(disk, path)
            found.container, found.size = disk.container, disk.size
            _around(disk, found)
            found.look("the container", disk.problems)
            found.around = len(found.problems)
            found.look("the disk", lambda: volumes.problems(disk))
            ours = _against_manifest(disk, found, report, os.path.basename(path))
            before = len(found.damage)
            found.look("the kit", lambda: kits.problems(path, disk, found.digest))
            if ours is not None and len(found.damage) == before:
                found.look("the kit", lambda: readback.problems(path, disk, ours))
            found.look("the list of checksums", lambda: kits.listed(path))
            if ours is None and rebuild is not None:
                _cannot_rebuild(found)
            if ours is not None and rebuild is not None:
                found.look("--rebuild", lambda: again.problems(disk, ours, rebuild, report))
            if opinions and not found.damage:
                found.look("the ISO tree", lambda: _opinion(others.iso(disk), ours))
                found.look("the container", lambda: others.container(disk_file(path), disk, report))
            if ours is None and not found.damage and disk.container in _PACKED:
                found.look("the disk", lambda: _readable(disk))
    except NoImageError:
        raise
    except ImageError as error:
        if error.hint is not None:
            raise  # it is whole, perhaps; but it cannot be read without something else
        found.problems.append(_unreadable("the container", error))
    return found.verification(path)


def _list(path: str | os.PathLike[str], found: _Findings) -> Iterator[Problem]:
    """Compare the files that the list of checksums at *path* names."""
    named = kits.named_in(path)
    found.files = len(named)
    yield from kits.sums_problems(path, named)


def _xen_kit(path: str | os.PathLike[str], found: _Findings, rebuild: Recipe | None, report: Report) -> None:
    """Look at a kit that no disk of ours is part of."""
    found.container = "xen"
    try:
        found.digest = hexdigest(xenkit.manifest_of(path))
        found.look("the kit", lambda: kits.xen(path, found.digest))
        ours = xenkit.origin(path)
    except NotOursError as error:
        if isinstance(error, ContradictionError):
            found.problems.append(_unreadable(kitfiles.XEN_MANIFEST, error))
        else:
            found.notes.append(f"nothing to compare with: it {error.problem}")
        if rebuild is not None:
            _cannot_rebuild(found)
        return
    except (ImageError, InputError) as error:
        found.problems.append(_unreadable(os.path.basename(error.where or kitfiles.XEN_MANIFEST), error))
        return
    bundle = ours.bundle
    found.compared = True
    contents = [bundle.kernel.content, *(module.content for module in bundle.modules)]
    contents += [volume.content for volume in bundle.volumes]
    found.size = sum(content.size for content in contents)
    found.look("the kit", lambda: xenkit.problems(path, ours))
    found.look("the kit", lambda: readback.problems(path, None, ours))
    found.look("the list of checksums", lambda: kits.listed(path))
    if rebuild is not None:
        found.look("--rebuild", lambda: again.kit_problems(ours, rebuild, report))


def _cannot_rebuild(found: _Findings) -> None:
    """Say why there is nothing to bundle again by: what was *found* is damaged, or names no bundle.

    Raises:
        UsageError: it names none.
    """
    if not found.damage:
        raise UsageError("there is no manifest to bundle again by", where="--rebuild")
    found.notes.append("it was not bundled again: what is damaged does not tell by what")


_PACKED = ("vmdk (stream)", "qcow2")
"""Containers with compressed parts, which tell only when they are unpacked whether they are whole."""


def _readable(disk: Disk) -> Iterator[Problem]:
    """Read all of *disk* that is compressed."""
    for run in disk.runs():
        for at in range(run.offset, run.offset + run.length, CHUNK) if run.source is None else ():
            disk.read(at, min(CHUNK, run.offset + run.length - at))
    yield from ()


def _opinion(problems: Iterator[Problem], ours: Origin | None) -> Iterator[Problem]:
    """Yield what another reader says: of an image that is not *ours* it may not know all there is."""
    return problems if ours is not None else (replace(problem, severity="remark") for problem in problems)


class _Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.container = ""
        self.size = 0
        self.files = 0
        self.digest = ""
        self.compared = False
        self.problems: list[Problem] = []
        self.around = 0
        """How many of them, the first, are of the container and what it stands in."""
        self.notes: list[str] = []

    def look(self, what: str, problems: Callable[[], Iterator[Problem]]) -> None:
        """Add *problems*, and what ends the search for more."""
        try:
            for problem in problems():
                if len(self.problems) >= _MOST:
                    self.notes.append(f"there is more than these {_MOST} findings")
                    return
                if problem not in self.problems:
                    self.problems.append(problem)
        except ImageError as error:
            self.problems.append(_unreadable(what, error))

    @property
    def damage(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.severity == "damage"]

    def contradicts(self, disk: Disk, raw: bytes, error: ImageError) -> None:
        """Add where the files on *disk* and its manifest differ, for which it cannot be planned again."""
        self.compared = True
        before = len(self.damage)
        self.look(PATH, lambda: listing.problems(disk, records.parse(raw)))
        if len(self.damage) == before:
            self.problems.append(_unreadable(PATH, error))

    def verification(self, path: str) -> Verification:
        return Verification(
            path=path,
            container=self.container,
            size=self.size,
            digest=self.digest,
            compared=self.compared,
            problems=tuple(self.problems),
            notes=tuple(self.notes),
            files=self.files,
        )


def _unreadable(where: str, error: RumpbundleError) -> Problem:
    ends = "what follows could not be looked at"
    severity: Severity = "remark" if isinstance(error, TooMuchError) else "damage"
    return Problem(where=where, offset=None, what=error.problem, consequence=ends, severity=severity)


def _around(disk: Disk, found: _Findings) -> None:
    """Look at the compression and the archive in which *disk* stands."""
    for kind, layer in zip(disk.around, disk.layers, strict=True):
        if isinstance(layer, Unpacked):
            found.look(kind, lambda layer=layer: _unpacked(layer, disk))  # type: ignore[misc]
        if kind == "tar":
            from rumpbundle.images.containers.archive_check import problems

            found.look("tar", lambda layer=layer: problems(layer))  # type: ignore[misc]


def _unpacked(layer: Unpacked, disk: Disk) -> Iterator[Problem]:
    """Unpack all that is left, so that its checksum is compared; nothing may follow it."""
    layer.finish()
    rest = disk.outermost.size - layer.used if disk.outermost is not None else 0
    if rest:
        what = f"{rest} bytes follow the compressed data"
        yield Problem(
            where=layer.kind, offset=layer.used, what=what, consequence="nobody reads them", severity="remark"
        )


def _against_manifest(disk: Disk, found: _Findings, report: Report, name: str) -> Origin | None:
    """Compare *disk* with what its manifest says, if it has one; return what it was made from."""
    try:
        raw = manifest_of(disk)
    except NotOursError as error:
        before = len(found.damage)
        found.look("the disk", lambda: listing.traces(disk))
        if len(found.damage) == before:
            found.notes.append(f"nothing to compare with: it {error.problem}")
        return None
    except ImageError:
        found.look("the disk", lambda: listing.traces(disk))
        return None  # told by the file system's own problems
    found.digest = hexdigest(raw)
    found.look(PATH, lambda: _marked(disk, found.digest))
    try:
        ours = origin(disk)
    except ContradictionError as error:
        found.contradicts(disk, raw, error)
        return None
    except NotOursError as error:
        found.notes.append(f"nothing to compare with: it {error.problem}" + (f": {error.hint}" if error.hint else ""))
        return None
    except ImageError as error:
        found.contradicts(disk, raw, error)
        return None
    found.compared = True
    # What other programs may leave in a container is damage in one that was just written, but not what use leaves.
    found.problems[: found.around] = [
        problem if problem.consequence == LATER else replace(problem, severity="damage")
        for problem in found.problems[: found.around]
    ]
    found.look("the boot images", lambda: _boot_images(ours))
    found.look("the container", lambda: containers.problems(disk, ours))
    label = f"verifying {name}"
    report(Started(label, disk.size))
    found.look("the disk", lambda: _planned(ours, disk, report, label))
    report(Finished(label))
    return ours


def _marked(disk: Disk, digest: str) -> Iterator[Problem]:
    """Compare the manifest with the file by which GRUB knows the image: it is named by the manifest's digest."""
    marked = listing.marker(disk)
    if marked and marked != digest[:16].upper():
        what = f"its BLAKE3 is {digest[:16]}…, the image was made with {marked.lower()}…"
        yield Problem(where=PATH, offset=None, what=what, consequence="it does not tell what was bundled")


def _planned(ours: Origin, disk: Disk, report: Report, label: str) -> Iterator[Problem]:
    layout = ours.plan()
    if layout.size > disk.size:
        what = f"the disk has {disk.size} bytes, its bundle takes {layout.size}"
        yield Problem(where="the disk", offset=None, what=what, consequence="what stands behind its end is missing")
        return
    yield from planned.problems(layout.padded(least=planned.end_of(disk)), disk, report, label)


def _boot_images(ours: Origin) -> Iterator[Problem]:
    """Compare the boot images with the digests in the manifest."""
    if ours.images is None:
        return
    said, facts = ours.bundle.grub, ours.images.facts
    for name, what, part in _parts(ours.images):
        if part and facts[name] != said.get(name):
            problem = f"its BLAKE3 is {facts[name][:16]}…, the manifest says {said.get(name, 'nothing')[:16]}…"
            yield Problem(where=what, offset=None, what=problem, consequence="firmware starts something else")


def _parts(images: BootImages) -> tuple[tuple[str, str, Any], ...]:
    return (
        ("mbr", "boot code in the first sector", images.bios),
        ("bios", "/boot/grub/eltorito.img", images.bios),
        ("efi", "/EFI/BOOT/BOOTX64.EFI", images.efi),
    )


__all__ = ["Verification", "verify"]
