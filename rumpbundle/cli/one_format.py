"""The commands that bundle as one format, all with the same options, and each with its format's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import click

from rumpbundle.bundling.writing import Result, check_no_inputs, check_outputs, default_output, job_for, plan, write
from rumpbundle.cli.command import completed, group, options
from rumpbundle.cli.guest import GuestCommand
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.provenance import Provenance, provenance_options
from rumpbundle.cli.recipe_options import output_options, recipe_from, recipe_options, report_options
from rumpbundle.cli.results import plan_json, plan_text, result_json, show
from rumpbundle.cli.streams import say, say_json
from rumpbundle.cli.values import Output, Size, driver_names
from rumpbundle.formats import Folder, Format
from rumpbundle.host import signals


def format_command(format: Format) -> click.Command:
    """Return the command that bundles as *format*."""

    def run(app: str, output: Path | None, subformat: str, print_commands: bool, **arguments: Any) -> None:
        recipe = recipe_from(app, arguments)
        force, dry_run, as_json = (arguments.pop(name) for name in ("force", "dry_run", "as_json"))
        sync = not arguments.pop("no_sync")
        provenance = Provenance.of(arguments, force=force, sync=sync)
        terminal = Terminal.of(arguments)
        own = format.options(**arguments) if format.options is not None else None
        path = default_output(app, format) if output is None else output
        check_no_inputs(recipe, format.files(path))
        check_outputs(format, path, force=force, tidy=not dry_run)
        kits = [path] if isinstance(format.product, Folder) else []
        provenance.check(recipe, format.files(path), kits, tidy=not dry_run)
        with terminal:
            planned = plan(recipe, formats=[format], report=terminal)
            if dry_run:
                job = job_for(planned, format, path, subformat=subformat, options=own, report=terminal)
                say_json(plan_json(job, format)) if as_json else say(plan_text(job, format))
                return
            artifact, commands = write(
                planned, format, path, subformat=subformat, options=own, force=force, sync=sync, report=terminal
            )
            result = Result(artifacts=(artifact,), digest=planned.bundle.identity.digest, commands=commands)
            beside = provenance.write(planned.bundle, result.artifacts)
        found = result_json(result, beside) if as_json else None
        with signals.held() as late:
            late.done = True
            show(result, found, beside, print_commands=print_commands)

    own = group(f"Of {format.name} alone", "", *_own_options(format))
    run = options(own)(recipe_options(output_options(provenance_options(report_options(run)))))
    kind = "directory" if isinstance(format.product, Folder) else "file"
    run = click.option(
        "-o",
        "--output",
        type=Output(file=kind == "file"),
        help=f"The {kind} to write.  [default: APP's stem + {format.suffix}]",
    )(run)
    run = click.argument("app", type=click.Path(readable=False))(run)
    return click.command(
        format.name,
        cls=GuestCommand,
        short_help=format.summary,
        help=f"Bundle APP as {format.name}.\n\n{format.summary[:1].upper()}{format.summary[1:]}.",
        example=f"rumpbundle {format.name} app.bin -o out{format.tail} --cmdline '-v' --size 64M",
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
    added.append(print_commands_option(hidden=format.commands is None))
    return [*added, *field_options(format).values()]


def print_commands_option(*, hidden: bool = False) -> Callable[[Any], Any]:
    """Return ``--print-commands``."""
    help = "Print the command lines that use what was written; nothing is run."
    return click.option("--print-commands", is_flag=True, hidden=hidden, help=help)


def field_options(format: Format, *, unset: bool = False) -> dict[str, Callable[[Any], Any]]:
    """Return the option for each field of *format*'s own options; with *unset* they have no defaults of their own."""
    found: dict[str, Callable[[Any], Any]] = {}
    if format.options is None:
        return found
    hints = get_type_hints(format.options)
    for field in dataclasses.fields(format.options):
        multiple, metavar = field.metadata.get("multiple", False), field.metadata.get("metavar")
        kind: dict[str, Any] = {"is_flag": True} if hints[field.name] is bool else {"metavar": metavar}
        if hints[field.name] in (int, int | None):
            kind["type"] = Size() if field.metadata.get("size") else int
        if field.metadata.get("choices"):
            kind["type"] = click.Choice(field.metadata["choices"])
            kind["show_default"] = not unset
        word = field.name.replace("_", "-")
        off = f"/--no-{word}" if unset and "is_flag" in kind else ""
        found[field.name] = click.option(
            f"--{word}{off}",
            field.name,
            multiple=multiple,
            default=None if multiple or unset else field.default,
            help=field.metadata["help"],
            shell_complete=completed(driver_names) if field.name == "driver" else None,
            **kind,
        )
    return found
