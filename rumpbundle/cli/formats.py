"""``rumpbundle formats``: what can be written, and for whom."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say_json
from rumpbundle.cli.tables import TableSection, show
from rumpbundle.formats import ALIASES, Format, formats


@click.command("formats", cls=Command, short_help="what can be written, and for whom")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable list.")
def command(as_json: bool) -> None:
    """List the formats and their subformats. All are written by rumpbundle itself: none needs another program."""
    found = list(formats())
    if as_json:
        say_json([_described(format) for format in found])
        return
    rows = tuple(row for format in found for row in _rows(format))
    head = ("format", "suffix", "what it is, and who takes it")
    show([TableSection(title="formats", head=head, rows=rows, wrapped=True)])


def _described(format: Format) -> dict[str, Any]:
    return {
        "name": format.name,
        "aliases": [alias for alias, name in ALIASES.items() if name == format.name],
        "suffix": format.suffix,
        "summary": format.summary,
        "subformats": list(format.variants),
        # For scripts of the time when some were written by qemu-img.
        "tools": {each.name or format.name: [] for each in format.subformats},
        "missing": [],
    }


def _rows(format: Format) -> Iterator[tuple[str, ...]]:
    """Yield a row for the format, and one for each further subformat."""
    for number, subformat in enumerate(format.subformats):
        name = f"{format.name}:{subformat.name}" if subformat.name else format.name
        yield (name, "", "") if number else (name, format.suffix, format.summary)
