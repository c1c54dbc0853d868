"""``rumpbundle ls``: the files in a finished image."""

from __future__ import annotations

from typing import Any

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.long_json import print_rows
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.streams import say
from rumpbundle.cli.values import Input
from rumpbundle.errors import one_line
from rumpbundle.images.detect import open_disk
from rumpbundle.images.filesystem import Entry
from rumpbundle.images.volumes import MountedVolume, listed, mode_text


@click.command(
    "ls", cls=Command, example="rumpbundle ls app.ova /boot", short_help="the files in a finished image of any format"
)
@click.argument("image", type=Input())
@click.argument("path", default="")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable list.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def command(image: str, path: str, as_json: bool, quiet: bool) -> None:
    """List the files in IMAGE, or those at and below PATH.

    IMAGE is a finished image of any format. A PATH is looked for in each of its file systems, or in one:
    fat:/EFI/BOOT.
    """
    with Terminal(quiet=quiet) as terminal, open_disk(image, terminal) as disk:
        found = listed(disk, path, terminal)
        if as_json:
            print_rows(_described(*each) for each in found)
        for volume, entry in found:
            target = f" -> {entry.target}" if entry.kind == "symlink" else ""
            say(one_line(f"{mode_text(volume, entry)} {entry.size:>12} {volume.name}:{entry.path}{target}"))


def _described(volume: MountedVolume, entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {
        "volume": volume.name,
        "path": entry.path,
        "kind": entry.kind,
        "size": entry.size,
        "mode": f"{entry.mode:04o}",
    }
    return value | ({"target": entry.target} if entry.kind == "symlink" else {})
