"""Titled tables: aligned lines for programs, drawn for terminals, and never more lines than asked for."""

from __future__ import annotations

import io
import sys

from rumpbundle.cli import tables
from rumpbundle.cli.tables import TableSection

TABLE = TableSection(
    title="title", head=("#", "name"), rows=(("1", "[bold]a"), ("10", "b\nc")), text=("note",), right=frozenset((0,))
)


def test_plain_lines_are_aligned_and_escaped():
    assert tables.plain(TABLE) == "title\n   #  name\n   1  [bold]a\n  10  b\\nc\n  note"
    assert tables.plain(TableSection(title="only")) == "only"


def test_a_terminal_gets_the_same_words_drawn(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    tables.show([TABLE, TableSection(title="plain", rows=(("x", "y"),))])
    words = screen.getvalue()
    for word in ("title", "[bold]a", "b\\nc", "note", "plain"):
        assert word in words


def test_elsewhere_sections_are_apart_by_a_blank_line(capsys):
    tables.show([TABLE, TableSection(title="next")])
    assert capsys.readouterr().out.endswith("  note\n\nnext\n")
