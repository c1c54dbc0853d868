"""``rumpbundle config``: is this configuration right, and what does it say in clean JSON?"""

from __future__ import annotations

import os

import click

from rumpbundle import config
from rumpbundle.cli.command import Command
from rumpbundle.cli.guest import read_config
from rumpbundle.cli.streams import say
from rumpbundle.cli.values import Input
from rumpbundle.config.jsontext import MAX_BYTES
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import UsageError


def _read(path: str) -> config.Config:
    """Read the configuration *path*, or the one in the finished image of that name."""
    if path != "-" and (os.path.isdir(path) or _is_image(path)):
        from rumpbundle.finished.origin import origin
        from rumpbundle.finished.request import config_of
        from rumpbundle.images.detect import open_disk

        with open_disk(path) as disk:
            return config_of(origin(disk)) or config.Config()
    return read_config(path)


def _is_image(path: str) -> bool:
    """Whether *path* is too long for a configuration, or holds what no text does."""
    file = InputFile(path)
    return file.size > MAX_BYTES or b"\0" in file.read(0, file.size)


@click.command(
    "config",
    cls=Command,
    example="rumpbundle config cfg.json",
    short_help="check a configuration, or print its JSON Schema",
)
@click.argument("file", metavar="[CFG]", required=False, type=Input())
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configurations, for editors and other tools.")
def command(file: str | None, schema: bool) -> None:
    """Check the configuration CFG (- reads standard input) and print it in clean JSON.

    Files in rumprun's own dialect are read, too: this is how to turn one into clean JSON. Of a finished image the
    configuration it carries is printed, to be changed and given to reconfig.
    """
    if schema == (file is not None):
        raise UsageError("give a configuration, or --schema")
    text = config.schema_text() if file is None else config.clean_text(_read(file))
    say(text.removesuffix("\n"))
