"""Where everything stands in a TOML text, for errors that name the line: ``tomllib`` tells that of its own alone.

The text is one that ``tomllib`` has read, so only what tells keys from values has to be known of the language.

Reference: TOML 1.0.0, https://toml.io/en/v1.0.0
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

Path = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[ \t\r]+"
    r"|[][{}=,.\n]"
    r"""|[^][{}=,.\n"'# \t\r]+""",
    re.DOTALL,
)


class KeyOffsets:
    """The offsets of all keys and array elements of a valid TOML text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [
            (found[0], found.start()) for found in _TOKEN.finditer(text) if not re.match(r"[ \t\r#]", found[0])
        ]
        self._at = 0
        self._found: dict[Path, int] = {}
        self._document()

    def __contains__(self, path: Path) -> bool:
        return path in self._found

    def line_of(self, path: Path) -> tuple[int, int]:
        """Return line and column, from 1, of *path*, or of the nearest above it that is written down."""
        while path and path not in self._found:
            path = path[:-1]
        offset = self._found.get(path, 0)
        return self._text.count("\n", 0, offset) + 1, offset - self._text.rfind("\n", 0, offset)

    def _peek(self) -> str:
        return self._tokens[self._at][0] if self._at < len(self._tokens) else ""

    def _take(self) -> tuple[str, int]:
        self._at += 1
        return self._tokens[self._at - 1]

    def _document(self) -> None:
        table: Path = ()
        counts: dict[Path, int] = {}
        while self._at < len(self._tokens):
            if self._peek() == "\n":
                self._take()
            elif self._peek() == "[":
                offset = self._take()[1]
                many = self._peek() == "["
                if many:
                    self._take()
                names = [name for name, _ in self._key("]")]
                table = ()
                for name in names:  # of an array of tables, what is below belongs to its last
                    table += (name,)
                    if table in counts and table != tuple(names):
                        table += (counts[table],)
                if many:
                    counts[table] = number = counts.get(table, -1) + 1
                    self._found.setdefault(table, offset)
                    table += (number,)
                self._found[table] = offset
                for _ in "]]" if many else "]":
                    self._take()
            else:
                self._pair(table)

    def _key(self, end: str) -> Iterator[tuple[str, int]]:
        """Yield the parts of a dotted key, with their offsets, up to the token *end*."""
        while self._peek() != end:
            token, offset = self._take()
            if token != ".":
                yield next(iter(tomllib.loads(f"{token} = 0"))), offset

    def _pair(self, table: Path) -> None:
        path = table
        for name, offset in self._key("="):
            path += (name,)
            self._found.setdefault(path, offset)
        self._take()
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._peek() == "[":
            self._take()
            index = 0
            while self._peek() != "]":
                if self._peek() in (",", "\n"):
                    self._take()
                    continue
                self._found[(*path, index)] = self._tokens[self._at][1]
                self._value((*path, index))
                index += 1
            self._take()
        elif self._peek() == "{":
            self._take()
            while self._peek() != "}":
                if self._peek() in (",", "\n"):
                    self._take()
                else:
                    self._pair(path)
            self._take()
        else:  # a string or a number, of which a time may be two words and a fraction has a dot
            while self._peek() not in ("", "\n", ",", "]", "}"):
                self._take()
