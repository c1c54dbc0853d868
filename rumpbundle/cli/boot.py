"""``rumpbundle --boot BACKEND APP``: bundle, boot, clean up."""

from __future__ import annotations

from typing import Any

import click

from rumpbundle import dev_launch
from rumpbundle.api import check_no_inputs
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import recipe_from, recipe_options, report_options
from rumpbundle.cli.session_options import BackendCommand, Session, boot_options, show
from rumpbundle.cli.streams import say
from rumpbundle.host.programs import shown
from rumpbundle.kernels.unikernel import Firmware


@click.command(
    "boot", cls=BackendCommand, example="rumpbundle --boot qemu app.bin --expect '^ready' --timeout 30", hidden=True
)
@click.argument("app", type=click.Path(readable=False))
@boot_options
@recipe_options
@report_options
@click.pass_context
def command(ctx: click.Context, /, app: str, **arguments: Any) -> None:
    """Bundle APP, boot the image with its console here, and clean up. Ctrl-C, or Ctrl-A x, ends it."""
    terminal = Terminal.of(arguments)
    firmware = arguments["firmware"]
    session = Session(arguments, None if firmware == "both" else Firmware(firmware), ctx.meta["theirs"])
    recipe = recipe_from(app, arguments)
    check_no_inputs(recipe, session.log)
    with terminal:
        if session.dry_run:
            plan = dev_launch.launch_plan(recipe, session.options, report=terminal)
            format = dev_launch.format_for(session.options)
            say(shown(["rumpbundle", format.name, *_bundling_words(ctx), app]))
            show(plan)
            return
        session.follow(
            lambda sinks: dev_launch.launch(recipe, options=session.options, sinks=sinks, report=terminal),
            terminal,
        )


def _bundling_words(ctx: click.Context) -> list[str]:
    """Return the options that bundle among the words of the command line, as they were written."""
    written, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta["own"]))
    words: list[str] = []
    for option in click.command()(recipe_options(lambda: None)).params:
        value = written.get(str(option.name))
        for each in value if isinstance(value, list) else [] if value is None else [value]:
            words += [option.opts[0]] if each is True else [option.opts[0], each]
    return words
