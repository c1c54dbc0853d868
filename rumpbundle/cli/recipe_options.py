"""The commands that bundle: one a format, all with the same options, and each with its format's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import click

from rumpbundle import hybrid
from rumpbundle.api import Recipe, Result, check_no_inputs, default_output, job_for, plan, write
from rumpbundle.cli.guest import GUEST_OPTIONS, GuestCommand, guest_from
from rumpbundle.cli.render import Terminal
from rumpbundle.cli.streams import say, say_json, say_path
from rumpbundle.cli.values import Module, Output, Size
from rumpbundle.disk import tree
from rumpbundle.errors import one_line
from rumpbundle.formats import Folder, Format, Job
from rumpbundle.host import signals
from rumpbundle.host.staging import check_free
from rumpbundle.units import shown_size

F = TypeVar("F", bound=Callable[..., Any])

_RECIPE_OPTIONS = (
    click.option("--cmdline", metavar="TEXT", help="The kernel's command line."),
    click.option("--no-argv0", is_flag=True,
                 help="Do not put the kernel's file name before a Multiboot command line."),
    click.option("--module", "modules", type=Module(), metavar="FILE[:TEXT]", multiple=True,
                 help="A further boot module (Linux: the initrd); repeatable, in order."),
    *GUEST_OPTIONS,
    click.option("--esp", metavar="DIR",
                 help="Files beside an EFI application: what is in DIR goes to the root of its EFI partition."),
    click.option("--size", type=Size(), default=0, metavar="SIZE", help="The least size of the disk: 512M, 2G."),
    click.option("--config-room", type=Size(), default=0, metavar="SIZE",
                 help="Room to keep for a later `reconfig`, besides the 4 KiB there always are."),
    click.option("--firmware", type=click.Choice(["both", "bios", "uefi"]), default="both", show_default=True,
                 help="Which firmware the image can boot from."),
    click.option("--protocol", default="auto", show_default=True,
                 type=click.Choice(["auto", "multiboot", "multiboot2", "linux", "linux16", "efi"]),
                 help="Which of the kernel's boot protocols to use."),
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
)

NO_SYNC = click.option(
    "--no-sync",
    is_flag=True,
    help="Do not wait for the disk before the output takes its name: for what need not outlive a power cut.",
)

_OUTPUT_OPTIONS = (
    click.option("--force", is_flag=True, help="Overwrite an existing output."),
    NO_SYNC,
    click.option("--dry-run", is_flag=True, help="Print the plan and write nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result."),
)


def options(*groups: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    """Return a decorator that adds all options of *groups*, in order."""

    def decorate(function: F) -> F:
        for group in reversed(groups):
            for add in reversed(group):
                function = add(function)
        return function

    return decorate


def recipe_options(function: F) -> F:
    """Add the options of every command that bundles; :func:`recipe_from` takes them out again."""
    return options(_RECIPE_OPTIONS)(function)


def report_options(function: F) -> F:
    """Add ``-q`` and ``-v``."""
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


def format_command(format: Format) -> click.Command:
    """Return the command that bundles as *format*."""

    def run(app: str, output: Path | None, subformat: str, print_commands: bool, **arguments: Any) -> None:
        recipe = recipe_from(app, arguments)
        force, dry_run, as_json = (arguments.pop(name) for name in ("force", "dry_run", "as_json"))
        sync = not arguments.pop("no_sync")
        terminal = Terminal(quiet=arguments.pop("quiet"), verbose=arguments.pop("verbose"))
        own = format.options(**arguments) if format.options is not None else None
        path = default_output(app, format) if output is None else output
        if not dry_run:
            check_free(path, force=force)
        check_no_inputs(recipe, format.files(path))
        with terminal:
            planned = plan(recipe, formats=[format], report=terminal)
            if dry_run:
                job = job_for(planned, format, path, subformat=subformat, options=own, report=terminal)
                say_json(described(job, format)) if as_json else say(plan_text(job, format))
                return
            artifact, commands = write(
                planned, format, path, subformat=subformat, options=own, force=force, sync=sync, report=terminal
            )
            result = Result(artifacts=(artifact,), digest=planned.bundle.identity.digest, commands=commands)
        with signals.held() as late:
            late.done = True
            show(result, as_json=as_json, print_commands=print_commands)

    run = options(_RECIPE_OPTIONS, _OUTPUT_OPTIONS, _REPORT_OPTIONS)(run)
    for added in reversed(_own_options(format)):
        run = added(run)
    kind = "directory" if isinstance(format.product, Folder) else "file"
    run = click.option(
        "-o",
        "--output",
        type=Output(),
        help=f"The {kind} to write.  [default: APP's stem + {format.suffix}]",
    )(run)
    run = click.argument("app", type=click.Path(readable=False))(run)
    return click.command(
        format.name,
        cls=GuestCommand,
        short_help=format.summary,
        help=f"Bundle APP as {format.name}: {format.summary}.",
    )(run)


def _own_options(format: Format) -> list[Callable[[Any], Any]]:
    """Return the options only *format* has."""
    added: list[Callable[[Any], Any]] = []
    if format.variants:
        choice = click.Choice(format.variants)
        added.append(click.option("--subformat", type=choice, default=format.variants[0], show_default=True,
                                  help="Which variant to write."))  # fmt: skip
    else:
        added.append(click.option("--subformat", default="", hidden=True))
    hidden = format.commands is None
    added.append(click.option("--print-commands", is_flag=True, hidden=hidden,
                              help="Print the command lines that use what was written; nothing is run."))  # fmt: skip
    if format.options is not None:
        hints = get_type_hints(format.options)
        for field in dataclasses.fields(format.options):
            multiple, metavar = field.metadata.get("multiple", False), field.metadata.get("metavar")
            kind: dict[str, Any] = {"is_flag": True} if hints[field.name] is bool else {"metavar": metavar}
            if hints[field.name] in (int, int | None):
                kind["type"] = Size() if field.metadata.get("size") else int
            if field.metadata.get("choices"):
                kind["type"] = click.Choice(field.metadata["choices"])
                kind["show_default"] = True
            default = None if multiple else field.default
            name = f"--{field.name.replace('_', '-')}"
            added.append(
                click.option(
                    name, field.name, multiple=multiple, default=default, help=field.metadata["help"], **kind
                )
            )
    return added


def show(result: Result, *, as_json: bool, print_commands: bool = False) -> None:
    """Print *result* to standard output: JSON, or a path a line (and commands, if asked for)."""
    if as_json:
        value = {
            "artifacts": [{"format": a.format, "path": str(a.path)} for a in result.artifacts],
            "digest": result.digest,
        }
        if print_commands:
            value["commands"] = list(result.commands)
        say_json(value)
        return
    for path in result.paths:
        say_path(path)
    for line in result.commands if print_commands else ():
        say(line)


def described(job: Job, format: Format) -> dict[str, Any]:
    """Return the plan for ``--dry-run --json``."""
    disk, bundle = job.layout, job.bundle
    return {
        "format": format.name,
        "output": str(job.output),
        "tools": list(format.subformat(job.subformat).tools),
        "name": bundle.name,
        "labels": hybrid.labels(bundle),
        "family": str(bundle.kernel.family),
        "boot": {str(firmware): str(protocol) for firmware, protocol in bundle.boot.items()},
        "cmdline": bundle.cmdline,
        "size": disk.size,
        "table": disk.table,
        "partitions": [{"name": p.name, "first_lba": p.first_lba, "last_lba": p.last_lba} for p in disk.partitions],
        "extents": [{"offset": e.offset, "length": e.length, "what": e.label} for e in disk.extents],
    }


def plan_text(job: Job, format: Format) -> str:
    """Return the plan for ``--dry-run``."""
    disk, bundle = job.layout, job.bundle
    boots = ", ".join(f"{firmware.upper()} by {protocol}" for firmware, protocol in bundle.boot.items())
    lines = [
        f"would write  {job.output} ({format.name})",
        f"boots        {bundle.kernel.name} ({bundle.kernel.family}) under {boots or 'no firmware'}",
        f"cmdline      {bundle.cmdline}",
        f"labels       {', '.join(f'{label} ({of})' for of, label in hybrid.labels(bundle).items())}",
        f"disk         {disk.size} bytes ({shown_size(disk.size)}), {shown_size(disk.payload)} of them used",
        f"needs        {', '.join(format.subformat(job.subformat).tools) or 'no external program'}",
        "",
        f"partitions ({disk.table})",
    ]
    lines += [f"  {p.first_lba:>12} {p.last_lba:>12}  {p.name}" for p in disk.partitions]
    lines += ["", "extents (offset, length in bytes)"]
    lines += [f"  {e.offset:>14} {e.length:>14}  {e.label}" for e in disk.extents]
    return "\n".join(map(one_line, lines))
