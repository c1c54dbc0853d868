"""``rumpbundle reconfig``: a finished image with another configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from rumpbundle.bundling.batch import files_of
from rumpbundle.bundling.writing import Artifact, Plan, Result, check_outputs, job_for, write
from rumpbundle.cli.command import options
from rumpbundle.cli.guest import CONFIG_OPTIONS, GuestCommand, config_from, configs_from, named, origin_of
from rumpbundle.cli.of_formats import check_options, format_options, given_of
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import output_options, report_options
from rumpbundle.cli.results import plan_json, plan_text, result_json, show
from rumpbundle.cli.streams import say, say_json
from rumpbundle.cli.values import Input, Output, check_no_directory
from rumpbundle.errors import UsageError
from rumpbundle.events import Note
from rumpbundle.finished import inplace
from rumpbundle.finished.origin import Origin
from rumpbundle.finished.readback import options_of
from rumpbundle.finished.reconfig import format_of, opened, plan_of, stays
from rumpbundle.finished.request import config_of
from rumpbundle.formats import Format
from rumpbundle.host import rollback
from rumpbundle.images.disk import Disk
from rumpbundle.manifest import stem


@click.command(
    "reconfig",
    cls=GuestCommand,
    example="rumpbundle reconfig web.qcow2 -e PORT=8080 -o web8080.qcow2",
    short_help="a finished image with another configuration",
)
@click.argument("image", type=Input())
@click.option("-o", "--output", type=Output(), metavar="NEW", help="The image to write; IMAGE stays as it is.")
@click.option("--in-place", is_flag=True, help="Change IMAGE itself, wholly or not at all.")
@click.option("--cmdline", metavar="TEXT", help="Another kernel command line.  [default: the image's]")
@options(CONFIG_OPTIONS)
@options(format_options())
@output_options
@report_options
def command(image: str, output: Path | None, in_place: bool, cmdline: str | None, **arguments: Any) -> None:
    """Write the finished IMAGE with another configuration: what bundling with that would have given, byte for byte.

    Options override what the image carries; -c replaces it, and --config-for what it carries for that KEY. Kernel,
    files, boot images and dates stay what they are in the image.
    """
    _check_one_place(output, in_place=in_place)
    shown = Path(image) if output is None else output
    path = rollback.changed_at(Path(image)) if output is None else output  # a link to the image stays one
    force, dry_run, as_json = (arguments.pop(name) for name in ("force", "dry_run", "as_json"))
    sync = not arguments.pop("no_sync")
    terminal = Terminal.of(arguments)
    with contextlib.ExitStack() as stack:
        stack.enter_context(terminal)
        stack.enter_context(rollback.named(path, shown))
        lock = stack.enter_context(contextlib.ExitStack())
        if in_place and not dry_run and inplace.disk_file(path).is_file():
            lock.enter_context(rollback.locked(inplace.disk_file(path)))
        disk, found = stack.enter_context(opened(image, terminal))
        format, subformat = format_of(disk, image)
        check_no_directory(output, format)
        if not in_place:
            check_outputs(format, path, force=force, tidy=not dry_run)
        planned = plan_from(found, image, cmdline, arguments)
        _tell_default(found, planned, terminal)
        given = given_of(arguments)
        check_options([format], given)
        if in_place:
            # The image is what is read, and what is to be replaced: as an input it does not count.
            planned = dataclasses.replace(planned, recipe=dataclasses.replace(planned.recipe, app=os.devnull))
        own = options_of(format, image, disk, found, planned, given, terminal)
        if dry_run:
            job = job_for(planned, format, shown, subformat=subformat, options=own, report=terminal)
            say_json(plan_json(job, format)) if as_json else say(plan_text(job, format))
            return
        changes = _in_place(planned, found, disk, path, format, subformat, own) if in_place else None
        if changes is not None:
            rollback.apply(path, changes, sync=sync)
            commands: tuple[str, ...] = ()
        else:
            if in_place:
                lock.close()  # qemu-img locks it, too
                terminal(Note(f"{shown.name} is written anew"))
            _, commands = write(
                planned,
                format,
                path,
                subformat=subformat,
                options=own,
                force=force or in_place,
                sync=sync,
                report=terminal,
            )
            if in_place:
                written = [rollback.Patch(file, 0, b"", b"") for file in files_of(Artifact(format.name, path))]
                rollback.apply(path, inplace.sums(path, written), sync=sync)
        artifact = Artifact(format.name, shown)
        result = Result(artifacts=(artifact,), digest=planned.bundle.identity.digest, commands=commands)
    show(result, result_json(result) if as_json else None, print_commands=bool(given.get("print_commands")))


def _check_one_place(output: Path | None, *, in_place: bool) -> None:
    if in_place == (output is not None):
        both = "-o and --in-place exclude each other: " if in_place else ""
        raise UsageError(f"{both}give -o NEW to write another image, or --in-place to change this one")


def plan_from(found: Origin, image: str, cmdline: str | None, arguments: dict[str, Any]) -> Plan:
    """Return the plan of *image*, read as *found*, with what the options say; they are taken out of *arguments*."""
    file = arguments["config"]
    config = config_from(stem(found.bundle.kernel.name) or "app", config_of(found), arguments)
    configs, files = configs_from(arguments)
    inputs = (*(() if file is None else (origin_of(file),)), *files)
    name = None if file is None else named(file)
    return plan_of(found, image, config=config, cmdline=cmdline, config_name=name, configs=configs, inputs=inputs)


def _tell_default(found: Origin, planned: Plan, terminal: Terminal) -> None:
    """Note that the image has lost its default."""
    if found.bundle.asked.default and not planned.bundle.asked.default:
        terminal(
            Note("there is no default any more: a machine without a configuration of its own halts; -c gives one")
        )


def _in_place(
    planned: Plan, found: Origin, disk: Disk | None, path: Path, format: Format, subformat: str, own: Any
) -> list[rollback.Patch] | None:
    """Return what changes of the image at *path*, which holds *disk*; None if it has to be written anew."""
    kind = (format.name, format.subformat(subformat).name)
    if disk is None or kind not in inplace.FORMATS or not stays(found.plan(), planned.disk):
        return None
    job = job_for(planned, format, path, subformat=subformat, options=own)
    return inplace.patches(disk, path, found.plan(), job, format)
