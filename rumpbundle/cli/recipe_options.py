"""The options that several commands share, and the recipe they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from rumpbundle.bundling.writing import Recipe
from rumpbundle.cli.command import group, options
from rumpbundle.cli.guest import GUEST_OPTIONS, guest_from
from rumpbundle.cli.values import ModuleWord, Size
from rumpbundle.disk import tree

F = TypeVar("F", bound=Callable[..., Any])

_KERNEL_OPTIONS = group(
    "The kernel", "--cmdline '-v' --module initrd.gz",
    click.option("--cmdline", "--append", "cmdline", metavar="TEXT", help="The kernel's command line."),
    click.option("--no-argv0", is_flag=True,
                 help="Do not put the kernel's file name before a Multiboot command line."),
    click.option("--module", "--initrd", "modules", type=ModuleWord(), metavar="FILE[:TEXT]", multiple=True,
                 help="A further boot module (Linux: the initrd); repeatable, in order."),
    click.option("--protocol", default="auto", show_default=True,
                 type=click.Choice(["auto", "multiboot", "multiboot2", "linux", "linux16", "efi"]),
                 help="Which of the kernel's boot protocols to use."),
)  # fmt: skip

_DISK_OPTIONS = group(
    "The machine", "--size 512M --firmware uefi --name web",
    click.option("--esp", metavar="DIR",
                 help="Files beside an EFI application: what is in DIR goes to the root of its EFI partition."),
    click.option("--size", type=Size(), default=0, metavar="SIZE", help="The least size of the disk: 512M, 2G."),
    click.option("--config-room", type=Size(), default=0, metavar="SIZE",
                 help="Room to keep for a later `reconfig`, besides the 4 KiB there always are."),
    click.option("--firmware", type=click.Choice(["both", "bios", "uefi"]), default="both", show_default=True,
                 help="Which firmware the image can boot from."),
    click.option("--strict", is_flag=True,
                 help="Fail, instead of warning, if the kernel is known not to work where the format is for."),
    click.option("--console", type=click.Choice(["both", "serial", "vga"]), default="both", show_default=True,
                 help="Where the boot loader speaks."),
    click.option("--name", metavar="NAME",
                 help="The machine's name: volume label, OVF name, image name.  [default: APP's stem]"),
)  # fmt: skip

_REPORT_OPTIONS = (
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Show the external commands, ready to paste."),
    click.option("--progress", type=click.Choice(["auto", "json", "none"]), default="auto",
                 help="auto: a bar on a terminal; json: a line for each step; none."),
)  # fmt: skip

NO_SYNC = click.option(
    "--no-sync",
    is_flag=True,
    help="Do not wait for the disk before the output takes its name: for what need not outlive a power cut.",
)

_OUTPUT_OPTIONS = group(
    "The output",
    "--force --json",
    click.option("--force", is_flag=True, help="Overwrite an existing output."),
    NO_SYNC,
    click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result."),
)


def recipe_options(function: F) -> F:
    """Add the options of every command that bundles; :func:`recipe_from` takes them out again."""
    return options(_KERNEL_OPTIONS, GUEST_OPTIONS, _DISK_OPTIONS)(function)


def report_options(function: F) -> F:
    """Add ``-q``, ``-v`` and ``--progress``; :class:`rumpbundle.cli.progress.Terminal` takes them out again."""
    return options(_REPORT_OPTIONS)(function)


def output_options(function: F) -> F:
    """Add ``--force``, ``--no-sync``, ``--dry-run`` and ``--json``."""
    return options(_OUTPUT_OPTIONS)(function)


def recipe_from(app: str, arguments: dict[str, Any]) -> Recipe:
    """Take the options that :func:`recipe_options` added out of *arguments* and return their recipe."""
    taken = {name: arguments.pop(name) for name in
             ("cmdline", "size", "config_room", "firmware", "protocol", "strict", "console", "name")}  # fmt: skip
    return Recipe(
        app=app,
        argv0=not arguments.pop("no_argv0"),
        modules=tuple(arguments.pop("modules")),
        esp=None if (esp := arguments.pop("esp")) is None else tree.scan(esp),
        **guest_from(app, arguments),
        **taken,
    )
