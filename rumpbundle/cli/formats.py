"""``rumpbundle formats``: what can be written, for whom, and what is missing here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from rumpbundle.cli.command import Command
from rumpbundle.cli.streams import say_json
from rumpbundle.cli.tables import Section, show
from rumpbundle.formats import ALIASES, Format, formats
from rumpbundle.host import environment


@click.command("formats", cls=Command, short_help="what can be written, for whom, and what is missing here")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable list.")
def command(as_json: bool) -> None:
    """List the formats and their subformats, and the program each one needs."""
    found = list(formats())
    missing = {
        tool
        for format in found
        for subformat in format.subformats
        for tool in subformat.tools
        if environment.find_program(tool) is None
    }
    if as_json:
        say_json([_described(format, missing) for format in found])
        return
    rows = tuple(row for format in found for row in _rows(format, missing))
    head = ("format", "suffix", "needs", "what it is, and who takes it")
    show([Section(title="formats", head=head, rows=rows, wrapped=True)])


def _described(format: Format, missing: set[str]) -> dict[str, Any]:
    tools = dict.fromkeys(tool for subformat in format.subformats for tool in subformat.tools)
    return {
        "name": format.name,
        "aliases": [alias for alias, name in ALIASES.items() if name == format.name],
        "suffix": format.suffix,
        "summary": format.summary,
        "subformats": list(format.variants),
        "tools": {each.name or format.name: list(each.tools) for each in format.subformats},
        "missing": [tool for tool in tools if tool in missing],
    }


def _rows(format: Format, missing: set[str]) -> Iterator[tuple[str, ...]]:
    """Yield a row for the format, and one for each further subformat."""
    for number, subformat in enumerate(format.subformats):
        needs = ", ".join(f"{tool} (missing)" if tool in missing else tool for tool in subformat.tools) or "-"
        name = f"{format.name}:{subformat.name}" if subformat.name else format.name
        yield (name, "", needs, "") if number else (name, format.suffix, needs, format.summary)
