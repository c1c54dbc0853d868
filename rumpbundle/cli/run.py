"""``rumpbundle run IMAGE --boot BACKEND``: boot a finished image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import click

from rumpbundle import dev_launch, guests, tree
from rumpbundle.cli.booting import BackendCommand, Session, boot_options, show
from rumpbundle.cli.bundling import report_options
from rumpbundle.cli.render import Terminal
from rumpbundle.cli.values import Mount, Mounted
from rumpbundle.tools import shown
from rumpbundle.unikernel import Firmware


@click.command("run", cls=BackendCommand, short_help="Boot a finished image of any format.")
@click.argument("image", type=click.Path(readable=False))
@boot_options
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="[default: bios if the image boots from it]")
@click.option("--persist", is_flag=True, help="Let the guest write to the image; else its writes are forgotten.")
@click.option(
    "--data",
    type=Mount(sized=False),
    metavar="DIR:MOUNT",
    multiple=True,
    help="A directory as a further disk, read-only, labelled after MOUNT; repeatable.",
)
@click.option(
    "--volume",
    "volumes",
    type=Mount(sized=True),
    metavar="DIR:MOUNT[:SIZE]",
    multiple=True,
    help="A directory as a further disk, writable; what is written is forgotten.",
)
@report_options
@click.pass_context
def command(ctx: click.Context, /, image: str, **arguments: Any) -> None:
    """Boot the finished IMAGE with its console here. Ctrl-C, or Ctrl-A x, ends it."""
    terminal = Terminal(quiet=arguments.pop("quiet"), verbose=arguments.pop("verbose"))
    firmware = arguments.pop("firmware")
    persist = arguments.pop("persist")
    data, volumes = arguments.pop("data"), arguments.pop("volumes")
    disks = _trees(data, volumes)
    session = Session(arguments, None if firmware is None else Firmware(firmware), ctx.meta["theirs"], persist)
    with terminal:
        if session.dry_run:
            plan = dev_launch.run_plan(image, session.options, disks=disks, report=terminal)
            for line in _making(data, volumes):
                click.echo(line)
            show(plan)
            return
        session.follow(
            lambda sinks: dev_launch.run(image, options=session.options, disks=disks, sinks=sinks, report=terminal),
            terminal,
        )


def _making(data: Sequence[Mounted], volumes: Sequence[Mounted]) -> Iterator[str]:
    """Yield the commands that make the further disks, under the names a plan gives them."""
    if data or volumes:
        from rumpbundle.launcher.attached import named

        for each, disk in zip((*data, *volumes), named(_trees(data, volumes)), strict=True):
            words = ["rumpbundle", "volume", each.directory, "-o", disk.path]
            words += ["--label", os.path.splitext(disk.path)[0]]
            words += ["-t", "ext2"] if each in volumes else []
            words += ["--size", str(each.size)] if each.size is not None else []
            yield shown(words)


def _trees(data: Sequence[Mounted], volumes: Sequence[Mounted]) -> list[guests.Data | guests.Writable]:
    return [
        *(guests.Data(tree.scan(each.directory), each.mount) for each in data),
        *(guests.Writable(tree.scan(each.directory), each.mount, each.size) for each in volumes),
    ]
