"""What option values look like: sizes, modules, directories with the place where the guest sees them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from rumpbundle import formats
from rumpbundle.bundling.recipe import ModuleFile, parsed_mount
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import UsageError
from rumpbundle.host.leftovers import put_right
from rumpbundle.host.shell import quoted
from rumpbundle.units import NoSize, parsed_size


class Size(click.ParamType[int]):
    """A number of bytes, as :func:`rumpbundle.units.parsed_size` reads it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return parsed_size(value)
        except NoSize as error:
            where = param.opts[-1] if param is not None else None
            raise UsageError(str(error), where=where, hint=error.hint) from None


class Seconds(click.ParamType[float]):
    """A length of time that is over some day."""

    name = "seconds"
    _most = 10**9

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds <= self._most:
            self.fail(f"expected seconds, more than 0 and at most {self._most}, got {value!r}", param, ctx)
        return seconds


def check_no_directory(output: str | Path | None, format: formats.Format | None = None) -> None:
    """Raise :class:`UsageError` if *output* is a directory's name, and what *format* has there is a file."""
    if output is None or (format is not None and isinstance(format.product, formats.Folder)):
        return
    if str(output).endswith(os.sep) or os.path.isdir(output):
        hint = f"as in {quoted(os.path.join(output, 'NAME'))}"
        raise UsageError("expected the name of a file, got a directory's", where="--output", hint=hint)


class Output(click.Path):
    """The name of what to write, with *file* of a file alone; not ``-``, which people mean as standard output."""

    def __init__(self, *, file: bool = False) -> None:
        super().__init__(path_type=Path, readable=False)
        self._file = file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-":
            self.fail("is not written front to back: name a file, not standard output", param, ctx)
        if not value:
            self.fail("expected a name, got nothing", param, ctx)
        if self._file:
            check_no_directory(value)
        return super().convert(value, param, ctx)


class ModuleWord(click.ParamType[ModuleFile]):
    """``FILE[:TEXT]``: a boot module and its command line. A file whose name holds a colon wins over the split."""

    name = "module"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ModuleFile:
        if isinstance(value, ModuleFile):
            return value
        if not value.partition(":")[0]:
            self.fail(f"expected FILE[:TEXT], got {value!r}", param, ctx)
        return ModuleFile.parse(value)


@dataclass(frozen=True, slots=True)
class MountedDirectory:
    """``DIR:MOUNT``, for volumes ``DIR:MOUNT[:SIZE]``: a directory, and where the guest sees it."""

    directory: str
    mount: str
    size: int | None = None


class MountWord(click.ParamType[MountedDirectory]):
    """``DIR:MOUNT``, if *sized* also ``DIR:MOUNT:SIZE``; MOUNT begins with a slash, so DIR may hold colons."""

    name = "mount"

    def __init__(self, *, sized: bool) -> None:
        self._sized = sized

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> MountedDirectory:
        if isinstance(value, MountedDirectory):
            return value
        try:
            return MountedDirectory(*parsed_mount(value, sized=self._sized))
        except NoSize as error:
            raise UsageError(str(error), where=param.opts[-1] if param else None, hint=error.hint) from None
        except ValueError as error:
            self.fail(str(error), param, ctx)


def end_of_options(command: click.Command, words: Sequence[str]) -> int:
    """Return where the ``--`` stands in *words* that ends the options of *command*; their number if none does.

    One that is an option's value, as in ``--arg --``, does not.
    """
    return next((at for at in _own(command, words) if words[at] == "--"), len(words))


def without_kernel_option(command: click.Command, words: Sequence[str]) -> list[str]:
    """Return *words* with ``--kernel FILE``, as QEMU has it, as the argument of *command* that it stands for."""
    for at in _own(command, words):
        name, equals, file = words[at].partition("=")
        if words[at] == "--":
            break
        if name == "--kernel" and (equals or words[at + 1 :]):
            return [*words[:at], *([file] if equals else ()), *words[at + 1 :]]
    return list(words)


def _own(command: click.Command, words: Sequence[str]) -> Iterator[int]:
    """Yield where in *words* those stand that are not the value of the option of *command* before them."""
    takes = {name for option in command.params if not getattr(option, "is_flag", False) for name in option.opts}
    at = 0
    while at < len(words):
        yield at
        at += 2 if words[at] in takes and words[at].startswith("-") else 1


def driver_names() -> list[str]:
    """Return the names of all drivers that a platform has a device for."""
    from rumpbundle import knowledge

    offers = [each.offers[kind] for each in knowledge.platforms() for kind in ("disk", "nic")]
    return sorted({offer.name for some in offers for offer in some})


def format_names() -> list[str]:
    """Return the names of all formats, and of their subformats as ``FORMAT:SUBFORMAT``."""
    found = []
    for format in formats.formats():
        found += [format.name, *(f"{format.name}:{each}" for each in format.variants)]
    return found


def formats_named(groups: Iterable[str]) -> list[str]:
    """Return the formats that *groups* name, each a list with commas, as they were given.

    Raises:
        UsageError: there is nothing between two commas, or after the last.
    """
    found = [(group, name.strip()) for group in groups for name in group.split(",")]
    for group, name in found:
        if not name:
            raise UsageError(
                f"expected formats with commas between them, got {group!r}", where="-f", hint="as in -f iso,ova"
            )
    return [name for _, name in found]


class Input(click.Path):
    """A file or kit to read; what a killed run has left half-way between an old and a new one is put right first."""

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from rumpbundle.host import rollback

        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        with contextlib.suppress(ValueError):
            put_right(path.parent, path.name)
            changed = rollback.changed_at(path)
            with rollback.named(changed, path):
                rollback.restore(changed)
                rollback.restore(rollback.changed_at(changed.parent))  # of a kit, whose file this is
        return value
