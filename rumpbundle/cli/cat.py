"""``rumpbundle cat``: one file of a finished image."""

from __future__ import annotations

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.streams import say_bytes
from rumpbundle.cli.values import Input
from rumpbundle.images.detect import open_disk
from rumpbundle.images.volumes import cat


@click.command(
    "cat",
    cls=Command,
    example="rumpbundle cat app.vmdk /boot/grub/grub.cfg",
    short_help="a file in a finished image of any format, to standard output",
)
@click.argument("image", type=Input())
@click.argument("path")
def command(image: str, path: str) -> None:
    """Write the file at PATH in IMAGE to standard output, byte for byte.

    `rumpbundle ls IMAGE` lists what there is. A PATH is looked for in each of its file systems, or in one:
    fat:/EFI/BOOT/BOOTX64.EFI.
    """
    with Terminal() as terminal, open_disk(image, terminal) as disk:
        for chunk in cat(disk, path, terminal):
            say_bytes(chunk)
