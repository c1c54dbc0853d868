"""Bundling as one call: what the command line does, for Python programs.

::

    import rumpbundle

    result = rumpbundle.bundle("app.bin", "iso", cmdline="-v", output="app.iso")
    print(result.paths, result.digest)

:func:`bundle` takes a :class:`Recipe`'s fields as keywords. Nothing is printed; pass ``report`` to hear of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from rumpbundle import formats
from rumpbundle.arguments import count, file_name, flag, instance, refused, reporter
from rumpbundle.bundling.planning import Plan, plan
from rumpbundle.bundling.recipe import ModuleFile, Recipe, RecipeFields
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import GuestError, HostError
from rumpbundle.events import Exact, Finished, Report, Started, Warned, silent
from rumpbundle.formats import Beside, Folder, Format, Job, OneFile
from rumpbundle.host import overlap
from rumpbundle.host.staging import check_output, staged_directory, staged_file, staged_kit
from rumpbundle.kernels.unikernel import Protocol
from rumpbundle.manifest import stem


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file (or directory, for a kit) that was written."""

    format: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What bundling gave."""

    artifacts: tuple[Artifact, ...]
    digest: str
    """BLAKE3 of the image's ``/rumpbundle.json``: equal for equal bundles, whatever the format."""
    commands: tuple[str, ...] = ()
    """For kits: lines for a POSIX shell that use the files. They were not run."""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(artifact.path for artifact in self.artifacts)


def default_output(app: str | os.PathLike[str], format: Format) -> Path:
    """Return the name *format*'s result gets in the current directory if the user gives none."""
    return Path(stem(os.fspath(app)) + format.tail)


def write(
    plan: Plan,
    format: Format | str,
    output: str | os.PathLike[str],
    *,
    subformat: str = "",
    options: Any = None,
    force: bool = False,
    sync: bool = True,
    jobs: int | None = None,
    report: Report = silent,
) -> tuple[Artifact, tuple[str, ...]]:
    """Write *plan* as *format* to *output*: whole, or not at all; with *sync* also if the power fails right after.

    Returns the artifact and, for kits, the command lines that use it.
    """
    force, sync = flag("force", force), flag("sync", sync)
    format, output = formats.find(format), Path(file_name("output", output))
    job = job_for(plan, format, output, subformat=subformat, options=options, jobs=jobs, report=reporter(report))
    return carry_out(job, format, force=force, sync=sync)


def carry_out(job: Job, format: Format, *, force: bool, sync: bool) -> tuple[Artifact, tuple[str, ...]]:
    """Do *job*, which :func:`job_for` made for *format*, as :func:`write` says."""
    job.report(Started(job.label, job.layout.payload))
    try:
        commands = _fill(job, format, force=force, sync=sync)
    except HostError as error:
        error.where = error.where or str(job.output)
        raise
    job.report(Finished(job.label))
    return Artifact(format.name, job.output), commands


def job_for(
    plan: Plan,
    format: Format,
    output: Path,
    *,
    subformat: str = "",
    options: Any = None,
    jobs: int | None = None,
    report: Report = silent,
) -> Job:
    """Return what *format*'s writer is given for *plan*; whatever it would refuse is refused here, nothing is read.

    Raises:
        RumpbundleError: the format, or a platform it is for, cannot have this disk, these names or these options.
    """
    if options is not None and (format.options is None or not isinstance(options, format.options)):
        wanted = format.options.__name__ if format.options is not None else "none"
        raise refused("options", f"{wanted} for {format.name}", options)
    bundled = instance("plan", plan, Plan).bundle
    check_targets(plan, format, report, options=options)
    job = Job(
        layout=plan.disk_for(format),
        bundle=bundled,
        output=output,
        subformat=format.subformat(subformat).name,
        options=format.options() if options is None and format.options is not None else options,
        epoch=bundled.epoch,
        jobs=threads(jobs),
        report=Exact(report),
        label=output.name,
    )
    format.admit(dataclasses.replace(job, bundle=bundled.unhashed()))
    check_no_inputs(plan.recipe, format.files(output))
    return job


def threads(jobs: int | None) -> int:
    """Return how many threads *jobs* asks for: None for as many as there are CPUs."""
    return os.cpu_count() or 1 if jobs is None else count("jobs", jobs, 1, 1024)


def check_targets(plan: Plan, format: Format, report: Report = silent, *, options: Any = None) -> None:
    """Report what is known not to work on the platforms *format* is for; its *options* may name further drivers.

    Raises:
        GuestError: there is something, and the recipe is strict.
    """
    if not format.targets or Protocol.DISK in plan.bundle.kernel.protocols:
        return
    from rumpbundle.knowledge.check import warnings

    recipe = plan.recipe
    found = warnings(
        plan.bundle.kernel,
        format.targets,
        firmware=tuple(map(str, plan.bundle.boot)),
        protocol=None if recipe.protocol == "auto" else Protocol(recipe.protocol),
        drivers=getattr(options, "driver", ()),
    )
    if found and recipe.strict:
        raise GuestError(found[0], hint="leave --strict out to write the image all the same")
    for text in found:
        report(Warned(text))


def _fill(job: Job, format: Format, *, force: bool, sync: bool) -> tuple[str, ...]:
    """Let *format* write *job*'s output where nobody sees it, and give it its name at the end.

    Returns the command lines that use it. They are made before: what may fail must not follow the name.
    """
    match format.product:
        case OneFile(write):
            with staged_file(job.output, force=force, sync=sync) as staged:
                write(job, staged)
                return _commands(job, format)
        case Beside(write_kit):
            with staged_kit(job.output, format.files(job.output)[1:], force=force, sync=sync) as directory:
                write_kit(job, directory)
                return _commands(job, format)
        case Folder(write_kit, holds):
            with staged_directory(job.output, holds, force=force, sync=sync) as directory:
                write_kit(job, directory)
                return _commands(job, format)


def _commands(job: Job, format: Format) -> tuple[str, ...]:
    return format.commands(job) if format.commands is not None else ()


def check_outputs(format: Format, output: Path, *, force: bool, tidy: bool = True) -> None:
    """Raise what writing *format* to *output* would because of what stands there."""
    holds = format.product.holds if isinstance(format.product, Folder) else None
    for file in format.files(output):
        check_output(file, holds, force=force, tidy=tidy)


def check_no_inputs(recipe: Recipe, outputs: Iterable[Path]) -> None:
    """Raise :class:`UsageError` if to write *outputs* would touch what *recipe* is made of."""
    overlap.check_apart(outputs, recipe.origins())


def bundle(
    app: str | os.PathLike[str] | Recipe,
    format: str = "iso",
    *,
    output: str | os.PathLike[str] | None = None,
    subformat: str = "",
    options: Any = None,
    force: bool = False,
    sync: bool = True,
    jobs: int | None = None,
    report: Report = silent,
    **recipe: Unpack[RecipeFields],
) -> Result:
    """Bundle the kernel *app* as *format* and return what was written.

    Further keywords are the fields of :class:`Recipe`: ``cmdline``, ``modules``, ``firmware``, ``size``, ….
    *app* may be a whole recipe instead.

    Raises:
        RumpbundleError: see :mod:`rumpbundle.errors`; then nothing was written.
    """
    chosen = formats.find(format)
    wanted = Recipe.of(app, **recipe)
    path = default_output(wanted.app, chosen) if output is None else Path(file_name("output", output))
    check_outputs(chosen, path, force=flag("force", force))
    planned = plan(wanted, formats=[chosen], report=report)
    artifact, commands = write(
        planned, chosen, path, subformat=subformat, options=options, force=force, sync=sync, jobs=jobs, report=report
    )
    return Result(artifacts=(artifact,), digest=planned.bundle.identity.digest, commands=commands)


__all__ = ["Artifact", "ModuleFile", "Plan", "Recipe", "Result", "bundle", "plan", "write"]
