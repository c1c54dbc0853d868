"""``rumpbundle diff``: do two finished images hold the same disk?"""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.long_json import print_json
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.recipe_options import report_options
from rumpbundle.cli.streams import say
from rumpbundle.cli.values import Input
from rumpbundle.finished.diff import diff


@click.command(
    "diff",
    cls=Command,
    example="rumpbundle diff app.vmdk app.raw",
    short_help="do two finished images hold the same disk? if not, what differs",
)
@click.argument("one", metavar="A", type=Input())
@click.argument("other", metavar="B", type=Input())
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable answer.")
@report_options
def command(one: str, other: str, as_json: bool, **arguments: Any) -> int:
    """Compare the disks of two finished images or kits of any formats, from the top (command line, versions, files)
    down to bytes; where two values are shown, the first is A's.

    The exit status is 0 if both hold the same disk, and 1 if not.
    """
    with Terminal.of(arguments) as terminal:
        found = diff(one, other, report=terminal)
    if as_json:
        print_json({"same": not found, "differences": [dataclasses.asdict(each) for each in found]})
    elif found:
        say("\n".join(map(str, found)))
    return 1 if found else 0
