"""``rumpbundle convert``: a finished image of any format as any other."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from rumpbundle.bundling.batch import Target, targets, write_targets
from rumpbundle.bundling.writing import check_outputs, default_output
from rumpbundle.cli import rehearsal
from rumpbundle.cli.build import show_outcomes
from rumpbundle.cli.command import Command, completed, options
from rumpbundle.cli.of_formats import check_options, format_options, given_of
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import output_options, report_options
from rumpbundle.cli.values import Input, Output, Size, check_no_directory, format_names, formats_named
from rumpbundle.errors import UsageError
from rumpbundle.finished.convert import plan_of
from rumpbundle.finished.readback import carried
from rumpbundle.host.directories import filled_directory
from rumpbundle.host.shell import quoted
from rumpbundle.images.detect import NoImageError, open_disk
from rumpbundle.images.disk import Disk


@click.command(
    "convert",
    cls=Command,
    example="rumpbundle convert debian.qcow2 -f vmdk:stream,vhdx -o out",
    short_help="a finished image of any format as any other",
)
@click.argument("image", type=Input())
@click.option("-f", "--formats", "names", required=True, multiple=True, metavar="FORMAT[:SUBFORMAT],…",
              shell_complete=completed(format_names),
              help="What to write, separated by commas: vmdk:stream,qcow2; repeatable.")  # fmt: skip
@click.option("-o", "--output", type=Output(), metavar="OUT",
              help="The file to write; for several formats, the directory.  [default: IMAGE's stem]")  # fmt: skip
@click.option("--name", help="The machine's name.  [default: the image's own, or the stem of its file]")
@click.option("--size", type=Size(), metavar="SIZE", help="The least size of the disk: 512M, 2G.")
@click.option("--firmware", type=click.Choice(["both", "bios", "uefi"]), default="both", show_default=True,
              help="What a kit announces of a foreign disk: no more than the disk starts under.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Fail if something is known not to work where a format is for.")
@click.option("--subformat", metavar="NAME", help="Which variant of the one format to write.")
@options(format_options())
@output_options
@report_options
def command(image: str, names: tuple[str, ...], output: Path | None, **arguments: Any) -> int:
    """Write the disk of the finished IMAGE in other formats.

    An image that rumpbundle made becomes what bundling into that format gives, byte for byte. Any other keeps its
    disk as it is; only its backup GPT moves when the disk grows. Into its own format an image that rumpbundle made
    takes along the options it was made with.
    """
    force, dry_run, as_json = (arguments.pop(name) for name in ("force", "dry_run", "as_json"))
    sync = not arguments.pop("no_sync")
    terminal = Terminal.of(arguments)
    asked = {name: arguments.pop(name) for name in ("name", "size", "firmware", "strict")}
    wanted = _targets(image, formats_named(names), output, arguments)
    with terminal, _disk_in(image, wanted, terminal) as disk:
        planned = plan_of(disk, image, formats=[target.format for target in wanted], report=terminal, **asked)
        recipe = dataclasses.replace(planned.recipe, inputs=tuple(file.path for file in disk.others))
        planned = dataclasses.replace(planned, recipe=recipe)
        if len(wanted) == 1:
            check_outputs(wanted[0].format, wanted[0].output, force=force, tidy=not dry_run)
        given = given_of(arguments)
        wanted = tuple(
            dataclasses.replace(target, options=carried(target.format, image, disk, planned, given, terminal))
            for target in wanted
        )
        if dry_run:
            return rehearsal.rehearsed(planned, wanted, terminal, force=force, as_json=as_json)
        with filled_directory(wanted[0].output.parent) if len(wanted) > 1 else contextlib.nullcontext():
            outcomes = write_targets(planned, wanted, force=force, sync=sync, report=terminal)
        digest = planned.bundle.identity.digest if any(outcome.artifact for outcome in outcomes) else None
    if len(wanted) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    show_outcomes(outcomes, digest, None, as_json=as_json, print_commands=bool(arguments.get("print_commands")))
    return max((outcome.error.exit_code for outcome in outcomes if outcome.error is not None), default=0)


@contextlib.contextmanager
def _disk_in(image: str, wanted: Sequence[Target], terminal: Terminal) -> Iterator[Disk]:
    """Give the disk in *image*; of a kernel, say what makes of it what is *wanted*."""
    with contextlib.ExitStack() as stack:
        try:
            disk = stack.enter_context(open_disk(image, terminal, watch="reads", whole=True))
        except NoImageError as error:
            if "kernel" in error.problem:
                error.hint = error.hint or f"rumpbundle {wanted[0].format.name} {quoted(image)}"
            raise
        yield disk


def _targets(image: str, names: list[str], output: Path | None, arguments: dict[str, Any]) -> tuple[Target, ...]:
    """Return what to write, without options.

    Raises:
        UsageError: an option belongs to none of the formats.
    """
    subformat = arguments.pop("subformat", None)
    if subformat and (len(names) > 1 or ":" in names[0]):
        raise UsageError("stands for one format", where="--subformat", hint="write -f FORMAT:SUBFORMAT")
    several = len(names) > 1
    named = [f"{names[0]}:{subformat}"] if subformat else names
    directory = output if several and output is not None else Path(".")
    found = targets(image, named, directory)
    given = given_of(arguments)
    if not several:
        check_no_directory(output, found[0].format)
        path = output or default_output(image, found[0].format)
        found = (dataclasses.replace(found[0], output=path if subformat is None or output else found[0].output),)
    check_options([target.format for target in found], given)
    return found
