"""The options that a finished image was made with, from what stands beside its disk: they stay, as all the rest does.

How each format tells of them is said where it is written (:class:`rumpbundle.formats.ReadBack`).
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rumpbundle.bundling.writing import Plan
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import DiskLayout
from rumpbundle.errors import ImageError, UsageError, one_line
from rumpbundle.events import Note, Report
from rumpbundle.finished.origin import NotOursError, Origin, origin
from rumpbundle.finished.reconfig import format_of
from rumpbundle.formats import Format, Job, OneFile, Reading, as_options, option_names, read_back
from rumpbundle.images.containers import ovf
from rumpbundle.images.containers.tar import members
from rumpbundle.images.disk import Disk
from rumpbundle.images.problem import Problem, Severity

_MOST = 256 << 20
"""Bytes of a text: EC2's manifest of a volume of 64 TiB has 140 for each half MiB that is not zero."""


def options_of(
    format: Format,
    path: str | os.PathLike[str],
    disk: Disk | None,
    found: Origin,
    planned: Plan,
    given: Mapping[str, Any],
    report: Report,
) -> Any:
    """Return the options for *planned*, made from the image at *path*, also a *format*: those *given*, else its own.

    *report* hears of what cannot be told and makes a difference.

    Raises:
        ImageError: somebody has changed what tells of them.
    """
    if format.options is None:
        return None
    own = {name: given[name] for name in option_names(format) if name in given}
    if len(own) == len(option_names(format)):
        return format.options(**own)
    reading = _reading(format, path, disk, found, own)
    if reading is None:
        name = _file(format, path).name
        words = as_options([each for each in option_names(format) if each not in own])
        report(Note(f"{name} is missing, which says what the image was made with: give it again, of {words}"))
        return format.options(**own)
    for place in reading.filled:
        report(Note(f"{_name(format, path)}: what you put for {one_line(place)} is a placeholder again"))
    chosen, *others = (replace(each, **own) for each in reading.options)
    _tell_what_differs(format, planned, chosen, others, report)
    return chosen


def carried(
    format: Format,
    path: str | os.PathLike[str],
    disk: Disk,
    planned: Plan,
    given: Mapping[str, Any],
    report: Report,
) -> Any:
    """Return the same if the image at *path*, which *planned* converts, is ours and a *format*; else those *given*.

    Raises:
        ImageError: as :func:`options_of`.
    """
    if format.options is None:
        return None
    try:
        if format_of(disk, path)[0] is format:
            return options_of(format, path, disk, origin(disk), planned, given, report)
    except (NotOursError, UsageError):
        pass  # nothing of ours tells of options
    return format.options(**{name: given[name] for name in option_names(format) if name in given})


def problems(path: str | os.PathLike[str], disk: Disk | None, found: Origin) -> Iterator[Problem]:
    """Yield why the image at *path*, made from what was *found*, does not tell which options it was made with."""
    try:
        format, _ = format_of(disk, path)
    except UsageError:
        return
    if format.read_back is None:
        return
    try:
        _reading(format, path, disk, found, ())
    except ImageError as error:
        # An archive may be another program's, for a machine of ours that it took.
        severity: Severity = "remark" if isinstance(format.product, OneFile) else "damage"
        consequence = "the machine is another than was asked for"
        yield Problem(
            where=_name(format, path), offset=None, what=error.problem, consequence=consequence, severity=severity
        )


def _reading(
    format: Format, path: str | os.PathLike[str], disk: Disk | None, found: Origin, given: Collection[str]
) -> Reading | None:
    """Return what the image tells of its options but those *given*; None if what tells of them is missing."""
    text = _text(format, path, disk)
    if text is None:
        return None
    layout = found.plan() if disk is None else found.plan().padded(least=disk.size)
    _, subformat = format_of(disk, path)
    job = _job(format, found.bundle, layout, Path(path), subformat)
    try:
        return read_back(format, job, text, given)
    except ImageError as error:
        problem = f"its OVF {error.problem}" if isinstance(format.product, OneFile) else error.problem
        raise ImageError(problem, where=_file(format, path), hint=error.hint) from None


def _tell_what_differs(format: Format, planned: Plan, chosen: Any, others: list[Any], report: Report) -> None:
    """Report the options that may have been given: without them it was the same, and now it is not."""
    how = format.read_back
    if not others or how is None:
        return
    job = _job(format, planned.bundle, planned.disk_for(format), Path("image"), "")
    made = how.places(how.text(replace(job, options=chosen)))
    for other in others:
        if how.places(how.text(replace(job, options=other))) != made:
            names = [name for name in option_names(format) if getattr(other, name) != getattr(chosen, name)]
            words = as_options(names)
            report(
                Note(f"whether it was made with {words} cannot be told, and makes a difference now: give it again")
            )


def _job(format: Format, bundle: Any, layout: DiskLayout, output: Path, subformat: str) -> Job:
    assert format.options is not None
    return Job(
        layout=layout,
        bundle=bundle,
        output=output,
        subformat=format.subformat(subformat).name,
        options=format.options(),
        epoch=bundle.epoch,
        jobs=1,
    )


def _file(format: Format, path: str | os.PathLike[str]) -> Path:
    """Return the file that tells of the options: beside the image at *path*, in it, or itself."""
    assert format.read_back is not None
    if isinstance(format.product, OneFile):
        return Path(path)
    return Path(path, format.read_back.file) if format.read_back.file else format.files(Path(path))[1]


def _name(format: Format, path: str | os.PathLike[str]) -> str:
    return "OVF" if isinstance(format.product, OneFile) else _file(format, path).name


def _text(format: Format, path: str | os.PathLike[str], disk: Disk | None) -> bytes | None:
    """Return what tells of the options; None if there is nothing.

    Raises:
        ImageError: it is too large, or elsewhere.
    """
    assert format.read_back is not None
    if isinstance(format.product, OneFile):
        return _archived(format.read_back.file, disk)
    file = _file(format, path)
    if file.is_symlink():
        raise ImageError("is a symbolic link, which a kit has not", where=file)
    if not file.exists():
        return None
    text = InputFile(file)
    if text.size > _MOST:
        raise ImageError(f"has {text.size} bytes", where=file)
    return text.read(0, text.size)


def _archived(pattern: str, disk: Disk | None) -> bytes | None:
    """Return the first file whose name matches *pattern* in the archive that holds *disk*."""
    if disk is None or not disk.layers:
        return None
    archive = disk.layers[-1]
    for member in members(archive):
        if fnmatch.fnmatch(member.name.lower(), pattern):
            return member.within(archive).read(0, min(member.size, ovf.MAX_BYTES))
    return None


__all__ = ["carried", "options_of", "problems"]
