"""``rumpbundle config``: is this configuration right, and what does it say in clean JSON?"""

from __future__ import annotations

import click

from rumpbundle import config
from rumpbundle.cli.command import Command
from rumpbundle.cli.guest import read_config
from rumpbundle.cli.streams import say
from rumpbundle.errors import UsageError


@click.command(
    "config",
    cls=Command,
    example="rumpbundle config cfg.json",
    short_help="check a configuration, or print its JSON Schema",
)
@click.argument("file", metavar="[CFG]", required=False)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configurations, for editors and other tools.")
def command(file: str | None, schema: bool) -> None:
    """Check the configuration CFG (- reads standard input) and print it in clean JSON.

    Files in rumprun's own dialect are read, too: this is how to turn one into clean JSON.
    """
    if schema == (file is not None):
        raise UsageError("give a configuration, or --schema")
    text = config.schema_text() if file is None else config.clean_text(read_config(file))
    say(text.removesuffix("\n"))
