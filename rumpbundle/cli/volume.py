"""``rumpbundle volume``: a directory as a file-system image, for a disk of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from rumpbundle import volume
from rumpbundle.cli.command import Command
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import NO_SYNC, report_options
from rumpbundle.cli.results import size_and_digest
from rumpbundle.cli.streams import say_json, say_path
from rumpbundle.cli.values import Output, Size
from rumpbundle.disk import tree
from rumpbundle.errors import InputError, UsageError
from rumpbundle.events import Note, Report
from rumpbundle.host import environment
from rumpbundle.host.overlap import check_apart
from rumpbundle.host.staging import check_free
from rumpbundle.manifest import HEAD_ROOM


@click.command(
    "volume",
    cls=Command,
    example="rumpbundle volume state -o state.ext2 -t ext2 --free 64M",
    short_help="a directory as a file-system image",
)
@click.argument("directory", metavar="DIR", type=click.Path(readable=False))
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=Output(file=True),
    required=True,
    help="The image to write.",
)
@click.option(
    "-t",
    "--type",
    "kind",
    type=click.Choice(["iso9660", "ext2"]),
    default="iso9660",
    show_default=True,
    help="Its file system: read-only or writable.",
)
@click.option("--free", type=Size(), metavar="SIZE", help="ext2: how much room to leave.  [default: 16M]")
@click.option("--size", type=Size(), metavar="SIZE", help="ext2: how large it is, instead of --free.")
@click.option("--label", metavar="LABEL", help="Its label, exactly: config-2, cidata.  [default: DIR's name]")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@NO_SYNC
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable result.")
@report_options
def command(
    directory: str, output: Path, kind: volume.FileSystem, free: int | None, size: int | None, label: str | None,
    force: bool, no_sync: bool, as_json: bool, quiet: bool, verbose: bool, progress: str,
) -> None:  # fmt: skip
    """Make DIR and all below it a file system in the file OUT, to be attached as a disk of its own.

    Everything in it belongs to root and has one date (SOURCE_DATE_EPOCH, else 1980): the same directory gives the
    same bytes anywhere. Modes, symbolic and hard links, empty directories and holes are kept.
    """
    if free is not None and size is not None:
        raise UsageError("--free and --size contradict each other: give one of them")
    if kind != "ext2" and (free is not None or size is not None):
        raise UsageError("--free and --size are for ext2; a read-only file system is as large as its files")
    check_free(output, force=force)
    with Terminal(quiet=quiet, verbose=verbose, progress=progress) as terminal:
        label = _label(directory, kind, terminal) if label is None else _checked(label, kind)
        root = tree.scan(directory)
        check_apart([output], tree.origins(root))
        shown: dict[str, Any] = {"output": str(output), "type": kind, "label": label}
        if kind == "ext2":
            room = HEAD_ROOM if free is None else free
            made, uuid = volume.ext2(root, label=label, epoch=environment.epoch(), size=size, free=room)
            shown["uuid"] = uuid
        else:
            made = volume.iso9660(root, label=label, epoch=environment.epoch())
        volume.save(made, output, force=force, sync=not no_sync, report=terminal)
    say_json(shown | size_and_digest(output)) if as_json else say_path(output)


def _checked(label: str, kind: volume.FileSystem) -> str:
    try:
        volume.check_label(label, kind)
    except InputError as error:
        error.where = "--label"
        raise
    return label


def _label(directory: str, kind: volume.FileSystem, report: Report) -> str:
    """Return *directory*'s name as the label, or what can be made of it."""
    name = os.path.basename(os.path.abspath(directory))
    try:
        volume.check_label(name, kind)
    except InputError:
        label = volume.label_for(f"/{name}", set())
        report(Note(f"its label is {label}; {name} cannot be one"))
        return label
    return name
