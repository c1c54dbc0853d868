"""Titled tables and texts: aligned lines where they are read by programs or pages, drawn tables on a terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rumpbundle.cli.streams import say, writing
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import one_line

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSection:
    """A *title* with a table (*rows*, under *head* if it needs one) and lines of *text*."""

    title: str
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    text: tuple[str, ...] = ()
    wrapped: bool = False
    """Whether the last column holds sentences, which go on in the next line where one has no room for them."""
    right: frozenset[int] = frozenset()
    """Columns of numbers, which end where they would begin otherwise."""


def show(sections: Sequence[TableSection]) -> None:
    """Print *sections* to standard output."""
    if sys.stdout.isatty():
        _draw(sections)
    else:
        say("\n\n".join(map(plain, sections)))


def plain(section: TableSection) -> str:
    """Return *section* as lines without trailing blanks."""
    table = [tuple(map(one_line, row)) for row in ((section.head, *section.rows) if section.head else section.rows)]
    columns = max((len(row) for row in table), default=0)
    widths = [max((len(row[at]) for row in table if at < len(row)), default=0) for at in range(columns)]
    if section.wrapped:
        table, widths = _wrapped(table, widths)
    lines = [one_line(section.title)]
    for row in table:
        cells = [
            cell.rjust(widths[at]) if at in section.right else cell.ljust(widths[at]) for at, cell in enumerate(row)
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    lines += [("  " + one_line(line)).rstrip() for line in section.text]
    return "\n".join(lines)


_WIDTH = 80


def _wrapped(table: list[tuple[str, ...]], widths: list[int]) -> tuple[list[tuple[str, ...]], list[int]]:
    """Return *table* with its last column cut into lines that let lines have 80 columns, and the new widths."""
    room = max(_WIDTH - sum(width + 2 for width in widths[:-1]) - 2, 20)
    rows: list[tuple[str, ...]] = []
    for *cells, text in table:
        for number, line in enumerate(textwrap.wrap(text, room) or [""]):
            rows.append((*(cells if not number else [""] * len(cells)), line))
    return rows, [*widths[:-1], room]


def _draw(sections: Sequence[TableSection]) -> None:
    from rich.console import Console
    from rich.text import Text

    with writing() as out:
        console = Console(file=out, highlight=False)
        for section in sections:
            console.print(Text(one_line(section.title), style="bold"))
            if section.rows:
                console.print(_drawn(section))
            for line in section.text:
                console.print(Text(f"  {one_line(line)}", style="dim"))
            console.print()


def _drawn(section: TableSection) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if section.head else None, show_header=bool(section.head), pad_edge=True)
    for at in range(max(map(len, (*section.rows, section.head)))):
        title = section.head[at] if at < len(section.head) else ""
        table.add_column(title, justify="right" if at in section.right else "left", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    return table
