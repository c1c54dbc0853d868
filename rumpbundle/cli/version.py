"""``rumpbundle version``."""

from __future__ import annotations

import click

from rumpbundle import __version__
from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say


@click.command("version", cls=Command, short_help="which rumpbundle this is")
def command() -> None:
    """Print the version, as --version does."""
    say(f"rumpbundle {__version__}")
