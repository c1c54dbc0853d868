"""``rumpbundle run IMAGE --boot BACKEND``: boot a finished image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from rumpbundle import dev_launch, guests
from rumpbundle.bundling.writing import check_no_inputs
from rumpbundle.cli.command import options
from rumpbundle.cli.guest import CONFIG_OPTIONS, data_of, volumes_of
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import report_options
from rumpbundle.cli.session_options import BackendCommand, Session, boot_options, show, written
from rumpbundle.cli.streams import say
from rumpbundle.cli.values import Input, MountedDirectory, MountWord
from rumpbundle.disk.tree import origins
from rumpbundle.errors import UsageError
from rumpbundle.formats import Format
from rumpbundle.host.overlap import check_apart, inode
from rumpbundle.host.programs import shown
from rumpbundle.kernels.unikernel import Firmware

_CHANGES = ("config", "env", "hostname", "net", "arguments", "config_for", "configs", "cmdline")
"""The options of ``reconfig`` that say what changes."""

_RECONFIG = "rumpbundle reconfig IMAGE -o NEW writes it; run that"


@click.command(
    "run",
    cls=BackendCommand,
    example="rumpbundle run app.vmdk --boot qemu",
    short_help="boot a finished image of any format",
)
@click.argument("image", type=Input())
@boot_options
@click.option(
    "--firmware",
    type=click.Choice(["bios", "uefi"]),
    help="The firmware of the machine.  [default: bios, if the image boots from it]",
)
@click.option("--persist", is_flag=True, help="Let the guest write to the image; else its writes are forgotten.")
@click.option(
    "--data",
    type=MountWord(sized=False),
    metavar="DIR:MOUNT",
    multiple=True,
    help="A directory as a further disk, read-only, labelled after MOUNT; repeatable.",
)
@click.option(
    "--volume",
    "volumes",
    type=MountWord(sized=True),
    metavar="DIR:MOUNT[:SIZE]",
    multiple=True,
    help="A directory as a further disk, writable; what is written is forgotten.",
)
@options(CONFIG_OPTIONS)
@click.option("--cmdline", metavar="TEXT", help="Another kernel command line.  [default: the image's]")
@report_options
@click.pass_context
def command(ctx: click.Context, /, image: str, **arguments: Any) -> None:
    """Boot the finished IMAGE with its console here. Ctrl-C, or Ctrl-A x, ends it.

    With a configuration or command line, a copy boots that has it (as reconfig makes it); IMAGE stays as it is.
    """
    terminal = Terminal.of(arguments)
    firmware = arguments.pop("firmware")
    persist = arguments.pop("persist")
    changes = {name: arguments.pop(name) for name in _CHANGES}
    is_changed = any(value not in (None, ()) for value in changes.values())
    if persist and is_changed:
        raise UsageError("a copy boots with the other configuration", where="--persist", hint=_RECONFIG)
    data, volumes = arguments.pop("data"), arguments.pop("volumes")
    disks: Sequence[guests.Data | guests.Writable] = (*data_of(data), *volumes_of(volumes))
    session = Session(arguments, None if firmware is None else Firmware(firmware), ctx.meta["theirs"], persist)
    check_apart(session.log, [inode(image), *(each for disk in disks for each in origins(disk.tree))])
    with terminal:
        if is_changed:
            _run_changed(ctx, image, changes, session, disks, terminal)
            return
        if session.dry_run:
            plan = dev_launch.run_plan(image, session.options, disks=disks, report=terminal)
            for line in _making((*data, *volumes), disks):
                say(line)
            show(plan)
            return
        session.follow(
            lambda sinks: dev_launch.run(image, options=session.options, disks=disks, sinks=sinks, report=terminal),
            terminal,
        )


def _run_changed(
    ctx: click.Context,
    image: str,
    changes: dict[str, Any],
    session: Session,
    disks: Sequence[guests.Data | guests.Writable],
    terminal: Terminal,
) -> None:
    """Boot what ``reconfig`` of *image* with *changes* would write, or print the commands that do."""
    from rumpbundle.cli.reconfig import plan_from
    from rumpbundle.finished.reconfig import format_of, opened

    with opened(image, terminal) as (disk, found):
        planned = plan_from(found, image, changes.pop("cmdline"), changes)
        check_no_inputs(planned.recipe, session.log)
        if session.dry_run:
            _show_copy(ctx, image, format_of(disk, image)[0])
            return
        session.follow(
            lambda sinks: dev_launch.launch_planned(
                planned, session.options, disks=disks, sinks=sinks, report=terminal
            ),
            terminal,
        )


def _show_copy(ctx: click.Context, image: str, format: Format) -> None:
    """Print the commands that boot a changed copy of *image*, which is a *format*."""
    name = os.path.basename(os.path.normpath(image))
    base = name.removesuffix(format.tail) if name.endswith(format.tail) else os.path.splitext(name)[0]
    files = [str(each) for each in format.files(Path(f"{base}.copy{name.removeprefix(base)}"))]
    # A word that begins with a dash would be an option.
    copy, *beside = [f"./{each}" if each.startswith("-") else each for each in files]
    others = {str(option.name) for option in ctx.command.params} - {*_CHANGES, "image", "dry_run"}
    theirs = ctx.meta["theirs"]
    say(shown(["rumpbundle", "reconfig", image, *written(ctx, _CHANGES), "-o", copy]))
    say(shown(["rumpbundle", "run", copy, *written(ctx, others), *(["--", *theirs] if theirs else [])]))
    say(shown(["rm", "-r", copy, *beside]))


def _making(options: Sequence[MountedDirectory], disks: Sequence[guests.Data | guests.Writable]) -> Iterator[str]:
    """Yield the commands that make the further *disks*, under the names a plan gives them, from what named them."""
    if disks:
        from rumpbundle.launcher.attached import named

        for option, disk, made in zip(options, disks, named(disks), strict=True):
            words = ["rumpbundle", "volume", option.directory, "-o", made.path]
            words += ["--label", os.path.splitext(made.path)[0]]
            words += ["-t", "ext2"] if isinstance(disk, guests.Writable) else []
            words += ["--size", str(option.size)] if option.size is not None else []
            yield shown(words)
