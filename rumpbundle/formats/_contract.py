"""What a format is, and what its writer is given."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rumpbundle.arguments import choice, count, flag, size, text, words
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import GIB, MIB
from rumpbundle.errors import InputError, UsageError
from rumpbundle.events import Report, silent

if TYPE_CHECKING:
    from rumpbundle.disk.layout import DiskLayout
    from rumpbundle.host.staging import StagedFile
    from rumpbundle.manifest import Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a format's writer is given: the disk (already padded to the format's rules), and how to work."""

    layout: DiskLayout
    bundle: Bundle
    output: Path
    """The name the result will have; for names inside the result. Its directory must not reach an output."""
    subformat: str
    options: Any
    """The format's own options: an instance of its ``options`` class."""
    epoch: int
    jobs: int
    """Threads that may compute at once; the bytes written do not depend on it."""
    report: Report = silent
    label: str = "disk"
    """What the work is called where it is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subformat:
    """One of a format's variants. A format without variants has one that has no name."""

    name: str = ""
    largest: int | None = None
    """The most bytes its disk can have; None where nothing but the file system bounds it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A kit that is to be changed in place, as it is."""

    texts: Mapping[str, bytes]
    """The files beside its disk, by name."""
    changed: tuple[tuple[int, int], ...]
    """Where its disk will differ: first byte and end of each range."""


@dataclass(frozen=True, slots=True)
class OneFile:
    """What a format writes is a single file."""

    write: Callable[[Job, StagedFile], None]


@dataclass(frozen=True, slots=True)
class Beside:
    """What a format writes is a file and others *beside* it, which have its stem and these suffixes."""

    write: Callable[[Job, Path], None]
    """Fills an empty directory with files of the names :meth:`Format.files` gives."""
    suffixes: tuple[str, ...]
    texts: Callable[[Job, Standing], Mapping[str, bytes]] | None = None
    """The files beside the disk, by name, as they are to be of a kit that stands."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What a format writes is a directory."""

    write: Callable[[Job, Path], None]
    """Fills an empty directory."""
    holds: tuple[str, ...]
    """Patterns of the names in it: --force replaces only a directory that holds nothing else."""
    texts: Callable[[Job, Standing], Mapping[str, bytes]] | None = None
    """As :attr:`Beside.texts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """How the options that a kit was made with are read back from the file beside its disk that tells of them.

    A place is where a value stands in that file, as ``$.tags.web``.
    """

    file: str
    """Its name in a directory or an archive, as a pattern; empty where it stands beside the disk."""
    text: Callable[[Job], bytes]
    """What is written, as far as options decide it."""
    places: Callable[[bytes], Mapping[str, str]]
    """What stands where in it.

    Raises:
        ImageError: it is nothing that can be read.
    """
    candidates: Callable[[Job, Mapping[str, str]], Iterable[Any]]
    """The options that may have given these places, likeliest first. They are written again and compared, so to name
    one too many does no harm; the job's own options are not looked at."""
    decides: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Regular expressions of the places that an option decides, by its field's name."""
    filled: str = ""
    """One of the places where a placeholder waits for the user's own word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """What the options of every format are made from: frozen fields, each declared by :func:`option`."""

    def __post_init__(self) -> None:
        """Take what was given for what it means: sizes as ``64M``, sequences of any kind.

        Raises:
            UsageError: a field has a value that says nothing; ``where`` names its option.
        """
        for field in dataclasses.fields(self):
            given, where = getattr(self, field.name), f"--{field.name.replace('_', '-')}"
            object.__setattr__(self, field.name, _taken(where, given, field.default, field.metadata))


def _taken(where: str, given: Any, default: Any, how: Mapping[str, Any]) -> Any:
    """Return what was *given* for an option of the kind that its *default* has, and what else is known of it."""
    if how["choices"]:
        return choice(where, given, how["choices"])
    if how["multiple"]:
        return words(where, given)
    if how["size"]:
        return size(where, given)
    if isinstance(default, bool):
        return flag(where, given)
    return count(where, given, 0, 1 << 31) if isinstance(default, int) else text(where, given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One output format: what it is, what it writes, and what it can hold."""

    name: str
    suffix: str
    """What its name ends in; of a directory, with the slash."""
    summary: str
    """One line for people: what it is and who takes it."""
    product: OneFile | Beside | Folder
    targets: tuple[str, ...] = ()
    """The platforms (:mod:`rumpbundle.knowledge`) it is made for alone; the kernel is checked against them."""
    needs_disk: bool = True
    """Whether the kernel must be one that boots from the disk."""
    align: int = MIB
    """The disk's size is a multiple of this."""
    least: int = 0
    """The disk is at least this large."""
    subformats: tuple[Subformat, ...] = (Subformat(),)
    """The first is the default."""
    check: Callable[[Job], object] | None = None
    """Raises what ``product`` would refuse of the job beside its size. It must not ask for the bundle's digest, for
    which all would be read; what it returns is not looked at."""
    commands: Callable[[Job], tuple[str, ...]] | None = None
    """The lines for a POSIX shell that use what was written (``--print-commands``); we never run them."""
    options: type[FormatOptions] | None = None
    """Their fields are the format's own command line options."""
    read_back: ReadBack | None = None
    """How they are read back; a format with options has to say."""

    @property
    def tail(self) -> str:
        """What the name of its output ends in."""
        return self.suffix.rstrip("/")

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of its subformats; empty if it has only one."""
        return tuple(each.name for each in self.subformats if each.name)

    def subformat(self, name: str) -> Subformat:
        """Return the subformat called *name*; the default one if that is empty.

        Raises:
            UsageError: it has none of that name.
        """
        for each in self.subformats:
            if not text("--subformat", name) or each.name == name:
                return each
        known = f"{self.name} has {', '.join(self.variants) or 'none'}"
        raise UsageError(f"no such subformat: {name} ({known})", where="--subformat")

    def admit(self, job: Job) -> None:
        """Raise whatever writing *job* would be refused for, before anything is read or written.

        Raises:
            RumpbundleError: the format cannot have a disk of this size, these names or these options.
        """
        self.files(job.output)
        size, chosen = job.layout.size, self.subformat(job.subformat)
        if chosen.largest is not None and size > chosen.largest:
            larger = [each.name for each in self.subformats if each.largest is None or size <= each.largest]
            kind = f"{self.name}:{chosen.name}" if chosen.name else self.name
            raise InputError(
                f"a disk of {-(-size // GIB)} GiB is more than the {chosen.largest // GIB} GiB that {kind} holds",
                hint=f"--subformat {larger[0]} takes it" if larger else None,
            )
        if self.check is not None:
            self.check(job)

    def files(self, output: Path) -> tuple[Path, ...]:
        """Return what is written for *output*: itself and, next to it, the further files of a kit.

        Their stem is the output's name without the suffix of the format (``.gce.tar.gz``), the last part of it
        (``.tar.gz``), or any other extension.

        Raises:
            UsageError: *output* is named as one of the files beside it.
        """
        if not isinstance(self.product, Beside):
            return (output,)
        for suffix in self.product.suffixes:
            if output.suffix == (ending := os.path.splitext(suffix)[1]):
                raise UsageError(
                    f"{ending} is what the file beside the disk is called",
                    where=output,
                    hint=f"give a name that ends in {self.tail}",
                )
        tails = (self.suffix, "." + self.suffix.split(".", 2)[-1], output.suffix)  # .gce.tar.gz, .tar.gz, .gz
        stem = next((output.name.removesuffix(tail) for tail in tails if output.name.endswith(tail)), output.name)
        return (output, *(output.with_name(stem + suffix) for suffix in self.product.suffixes))


def option(
    default: Any,
    help: str,
    *,
    metavar: str | None = None,
    multiple: bool = False,
    choices: tuple[str, ...] = (),
    size: bool = False,
) -> Any:
    """Declare a field of a format's options class; the field's name with dashes is the option's name.

    A *size* is an ``int`` of bytes that people write as ``512M``.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": help, "metavar": metavar, "multiple": multiple, "choices": choices, "size": size},
    )
