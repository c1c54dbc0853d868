"""``rumpbundle --boot BACKEND APP``: bundle, boot, clean up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import click

from rumpbundle import dev_launch
from rumpbundle.bundling.writing import check_no_inputs
from rumpbundle.cli import project
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import recipe_from, recipe_options, report_options
from rumpbundle.cli.session_options import BackendCommand, Session, boot_options, show, written
from rumpbundle.cli.streams import say
from rumpbundle.errors import FinishedImageError
from rumpbundle.host.programs import shown
from rumpbundle.host.shell import quoted
from rumpbundle.kernels.unikernel import Firmware


@click.command(
    "boot",
    cls=BackendCommand,
    example="rumpbundle --boot qemu app.bin --expect '^ready' --timeout 30",
    short_help="bundle an image of the project file, boot it, clean up",
)
@click.argument("app", metavar="APP | NAME", type=click.Path(readable=False), shell_complete=project.completed)
@boot_options
@recipe_options
@report_options
@click.pass_context
def command(ctx: click.Context, /, app: str, **arguments: Any) -> None:
    """Bundle APP, boot the image with its console here, and clean up. Ctrl-C, or Ctrl-A x, ends it.

    A bare NAME is an image that rumpbundle.toml describes, and how it boots; options win over the file.
    """
    terminal = Terminal.of(arguments)
    theirs, entry = ctx.meta["theirs"], None
    if project.is_named([app]):
        from rumpbundle.project.stock import Stock

        entry = project.one(app)
        recipe = entry.recipe(Stock(), project.given(ctx, dict(arguments)))
        theirs = project.booting(ctx, entry, arguments)
    firmware = arguments["firmware"]
    with project.said_by(ctx, entry):
        session = Session(arguments, None if firmware == "both" else Firmware(firmware), theirs)
    if entry is None:
        recipe = recipe_from(app, arguments)
    check_no_inputs(recipe, session.log)
    with terminal, _image_is_run():
        if session.dry_run:
            plan = dev_launch.launch_plan(recipe, session.options, report=terminal)
            format = dev_launch.format_for(session.options)
            bundling = [str(option.name) for option in click.command()(recipe_options(lambda: None)).params]
            words = [format.name, *written(ctx, bundling), app]
            say(shown(["rumpbundle", *(words if entry is None else ["build", "-f", *words])]))
            show(plan)
            return
        session.follow(
            lambda sinks: dev_launch.launch(recipe, options=session.options, sinks=sinks, report=terminal),
            terminal,
        )


@contextlib.contextmanager
def _image_is_run() -> Iterator[None]:
    """Say of a finished image that is given as the kernel how it is booted."""
    try:
        yield
    except FinishedImageError as error:
        hint = f"rumpbundle run {quoted(os.fspath(error.where or 'IMAGE'))}"
        raise FinishedImageError(error.problem, where=error.where, hint=hint) from None
