"""A JSON reader that knows where everything stands, so that an error can name the line and column.

Besides JSON (RFC 8259) it reads what rumprun's old tool wrote: commas too many, and repeated keys, which it
keeps; what they mean is for the caller to say. Input is hostile: size, depth and the length of numbers are
bounded.
"""

from __future__ import annotations

import json
import re
from typing import Any
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ConfigError, one_line

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*+"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = {"true": True, "false": False, "null": None}

Kind = OneOf["object", "array", "string", "number", "boolean", "null"]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the character offset it starts at.

    *value* is a tuple of ``(key, node)`` pairs for an object, of nodes for an array, else the Python value.
    """

    kind: Kind
    value: Any
    offset: int

    def plain(self) -> Any:
        """Return the value as dicts, lists and scalars; of repeated keys the last wins."""
        if self.kind == "object":
            return {key: node.plain() for key, node in self.value}
        if self.kind == "array":
            return [node.plain() for node in self.value]
        return self.value

    def at(self, path: str) -> Node:
        """Return the node at a path like ``$.net[0].mask``, or the nearest one above it."""
        node = self
        for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path):
            if name and node.kind == "object":
                found = next((child for key, child in node.value if key == name), None)
            elif index and node.kind == "array" and int(index) < len(node.value):
                found = node.value[int(index)]
            else:
                found = None
            if found is None:
                break
            node = found
        return node


class Document:
    """A text with one JSON value in it, and its name for error messages."""

    def __init__(self, data: bytes, where: str) -> None:
        """Read *data*.

        Raises:
            ConfigError: it is no JSON, is not UTF-8, or exceeds our bounds.
        """
        self.where = where
        if len(data) > MAX_BYTES:
            raise ConfigError(f"is larger than {MAX_BYTES >> 20} MiB", where=where)
        try:
            self.text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"byte {error.start} is not UTF-8", where=where) from None
        self._position = 0
        self.root = self._value(0)
        self._commas()
        if self._position < len(self.text):
            raise self._expected("the end of the file")

    def error(self, problem: str, offset: int, path: str = "", hint: str | None = None) -> ConfigError:
        """Return the error for what stands at *offset*."""
        line = self.text.count("\n", 0, offset) + 1
        column = offset - self.text.rfind("\n", 0, offset)
        subject = f"{path}: {problem}" if path else problem
        return ConfigError(f"{subject} (line {line}, column {column})", where=self.where, hint=hint)

    def _expected(self, what: str) -> ConfigError:
        rest = self.text[self._position : self._position + 12].split("\n")[0]
        return self.error(f"expected {what}, got {one_line(rest)!r}" if rest else f"expected {what}", self._position)

    def _blanks(self) -> None:
        match = _BLANK.match(self.text, self._position)
        assert match
        self._position = match.end()

    def _commas(self) -> bool:
        """Skip blanks and commas; return whether there was a comma."""
        self._blanks()
        found = False
        while self.text.startswith(",", self._position):
            found = True
            self._position += 1
            self._blanks()
        return found

    def _value(self, depth: int) -> Node:
        self._blanks()
        start = self._position
        character = self.text[start : start + 1]
        if character in ("{", "["):
            if depth == MAX_DEPTH:
                raise self.error(f"is nested deeper than {MAX_DEPTH}", start)
            return self._members(start, depth) if character == "{" else self._elements(start, depth)
        if character == '"':
            return Node("string", self._string(), start)
        if match := _NUMBER.match(self.text, start):
            self._position = match.end()
            digits = match.group()
            if len(digits) > 20:
                raise self.error("number has too many digits", start)
            return Node("number", int(digits) if digits.lstrip("-").isdigit() else float(digits), start)
        if (match := _WORD.match(self.text, start)) and match.group() in _WORDS:
            self._position = match.end()
            value = _WORDS[match.group()]
            return Node("null" if value is None else "boolean", value, start)
        raise self._expected("a JSON value")

    def _string(self) -> str:
        start = self._position
        match = _STRING.match(self.text, start)
        if match is None:
            raise self.error("string is not closed, or has a control character or line break in it", start)
        self._position = match.end()
        try:
            value = json.loads(match.group())
            value.encode("utf-8")
        except ValueError:
            raise self.error("string has an escape that is none of JSON's", start) from None
        assert isinstance(value, str)
        return value

    def _members(self, start: int, depth: int) -> Node:
        members: list[tuple[str, Node]] = []
        self._position += 1
        separated = True
        while True:
            separated = self._commas() or separated
            if self.text.startswith("}", self._position):
                self._position += 1
                return Node("object", tuple(members), start)
            if not separated:
                raise self._expected("',' or '}'")
            if not self.text.startswith('"', self._position):
                raise self._expected("a key in double quotes or '}'")
            key = self._string()
            self._blanks()
            if not self.text.startswith(":", self._position):
                raise self._expected("':'")
            self._position += 1
            members.append((key, self._value(depth + 1)))
            separated = False

    def _elements(self, start: int, depth: int) -> Node:
        elements: list[Node] = []
        self._position += 1
        separated = True
        while True:
            separated = self._commas() or separated
            if self.text.startswith("]", self._position):
                self._position += 1
                return Node("array", tuple(elements), start)
            if not separated:
                raise self._expected("',' or ']'")
            elements.append(self._value(depth + 1))
            separated = False
