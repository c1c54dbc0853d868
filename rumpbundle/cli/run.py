"""``rumpbundle run IMAGE --boot BACKEND``: boot a finished image."""

from __future__ import annotations

from typing import Any

import click

from rumpbundle import dev_launch
from rumpbundle.cli.booting import BackendCommand, Session, boot_options, show
from rumpbundle.cli.bundling import report_options
from rumpbundle.cli.render import Terminal
from rumpbundle.unikernel import Firmware


@click.command("run", cls=BackendCommand, short_help="Boot a finished image of any format.")
@click.argument("image", type=click.Path(readable=False))
@boot_options
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="[default: bios if the image boots from it]")
@click.option("--persist", is_flag=True, help="Let the guest write to the image; else its writes are forgotten.")
@report_options
@click.pass_context
def command(ctx: click.Context, /, image: str, **arguments: Any) -> None:
    """Boot the finished IMAGE with its console here. Ctrl-C, or Ctrl-A x, ends it."""
    terminal = Terminal(quiet=arguments.pop("quiet"), verbose=arguments.pop("verbose"))
    firmware = arguments.pop("firmware")
    persist = arguments.pop("persist")
    session = Session(arguments, None if firmware is None else Firmware(firmware), ctx.meta["theirs"], persist)
    with terminal:
        if session.dry_run:
            show(dev_launch.run_plan(image, session.options, report=terminal))
            return
        session.follow(
            lambda sinks: dev_launch.run(image, options=session.options, sinks=sinks, report=terminal), terminal
        )
