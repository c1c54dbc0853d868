"""What a format is, and what its writer is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import MIB
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One output format.

    A format is a single file (``write``), or a *kit* of several (``write_kit``): a directory if the suffix
    ends in ``/``, else the file ``suffix`` names and others beside it (``beside``).
    """

    name: str
    suffix: str
    summary: str
    """One line for people: what it is and who takes it."""
    write: Callable[[Job, StagedFile], None] | None = None
    write_kit: Callable[[Job, Path], None] | None = None
    """Fills an empty directory; for a kit that is no directory, with files of the names :meth:`files` gives."""
    beside: tuple[str, ...] = ()
    """Suffixes of the further files of a kit that is no directory."""
    holds: tuple[str, ...] = ()
    """Patterns of the names in a kit's directory: --force replaces only a directory that holds nothing else."""
    targets: tuple[str, ...] = ()
    """The platforms (:mod:`rumpbundle.knowledge`) it is made for alone; the kernel is checked against them."""
    needs_disk: bool = True
    """Whether the kernel must be one that boots from the disk."""
    align: int = MIB
    """The disk's size is a multiple of this."""
    least: int = 0
    """The disk is at least this large."""
    subformats: tuple[str, ...] = ()
    """The first is the default."""
    tools: tuple[str, ...] = ()
    """External programs it needs."""
    commands: Callable[[Job], tuple[str, ...]] | None = None
    """The lines for a POSIX shell that use what was written (``--print-commands``); we never run them."""
    options: type | None = None
    """A frozen dataclass whose fields (see :func:`option`) are the format's own command line options."""

    def files(self, output: Path) -> tuple[Path, ...]:
        """Return what is written for *output*: itself and, next to it, the further files of a kit."""
        tails = (self.suffix, "." + self.suffix.split(".", 2)[-1], output.suffix)  # .gce.tar.gz, .tar.gz, .gz
        stem = next((output.name.removesuffix(tail) for tail in tails if output.name.endswith(tail)), output.name)
        return (output, *(output.with_name(stem + suffix) for suffix in self.beside))


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
