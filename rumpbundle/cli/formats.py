"""``rumpbundle formats``: what can be written, for whom, and what is missing here."""

from __future__ import annotations

import click

from rumpbundle.cli.streams import say, say_json
from rumpbundle.formats import formats
from rumpbundle.host import environment


@click.command("formats")
@click.option("--json", "as_json", is_flag=True, help="Print a machine-readable list.")
def command(as_json: bool) -> None:
    """List the formats, and the tools each one misses on this machine."""
    rows = []
    for format in formats():
        tools = dict.fromkeys(tool for each in format.subformats for tool in each.tools)
        missing = [tool for tool in tools if environment.find_program(tool) is None]
        rows.append(
            {
                "name": format.name,
                "suffix": format.suffix,
                "summary": format.summary,
                "subformats": list(format.variants),
                "missing": missing,
            }
        )
    if as_json:
        say_json(rows)
        return
    for row in rows:
        lacks = f"  (missing here: {', '.join(row['missing'])})" if row["missing"] else ""
        variants = f" [{', '.join(row['subformats'])}]" if row["subformats"] else ""
        say(f"{row['name']:<6} {row['suffix']:<12} {row['summary']}{variants}{lacks}")
