"""One image a row: a table of values, and how they get into the strings of a project file."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import InputError, nearest

MAX_BYTES = 1 << 30
"""Bytes of a table: some ten million rows."""
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of a table."""

    number: int
    """Its number, from 1; the head of a CSV file is none."""
    line: int
    """The line it begins at."""
    values: Mapping[str, str]

    @property
    def key(self) -> str:
        """The value in the first column, which tells it from the others."""
        return next(iter(self.values.values()))


def read(path: str) -> Iterator[Row]:
    """Yield the rows of a table in CSV with a head, or in JSON lines (``.jsonl``, ``.ndjson``, ``.json``).

    Raises:
        InputError: it cannot be read, or a row is wrong: it has other columns than the head, its key is no name, or
            is another row's too.
    """
    file = InputFile(path)
    if file.size > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES >> 30} GiB", where=path)
    try:
        text = file.read(0, file.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", where=path) from None
    lines = path.lower().endswith((".jsonl", ".ndjson", ".json"))
    seen: dict[str, int] = {}
    for number, (line, values) in enumerate(_json_lines(text, path) if lines else _csv(text, path), 1):
        row = Row(number=number, line=line, values=values)
        if not row.key or row.key in (".", "..") or not row.key.isprintable() or "/" in row.key or "\0" in row.key:
            problem = f"{row.key!r} cannot stand in a file's name: expected printable characters without '/'"
            raise error_in(path, row, problem)
        if name := next((name for name, value in values.items() if "\0" in value), None):
            raise error_in(path, row, f"{name}: holds a NUL, which nothing here can")
        if row.key in seen:
            raise error_in(path, row, f"{row.key!r} is the key of line {seen[row.key]} too")
        seen[row.key] = line
        yield row


def error_in(path: str, row: Row, problem: str, hint: str | None = None) -> InputError:
    """Return the error for something in *row* of the table *path*."""
    return InputError(f"row {row.number} (line {row.line}): {problem}", where=path, hint=hint)


def _csv(text: str, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    head: list[str] = []
    line = 1
    try:
        for cells in reader:
            if cells and not head:
                head = [name.strip() for name in cells]
                _check_head(head, path, line)
            elif cells:
                if len(cells) != len(head):
                    problem = f"line {line}: expected {len(head)} values as the head has, got {len(cells)}"
                    raise InputError(problem, where=path)
                yield line, dict(zip(head, cells, strict=True))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"line {line}: {error}", where=path) from None
    if not head:
        raise InputError("is empty", where=path, hint="its first line names the columns: id,address")


def _check_head(head: list[str], path: str, line: int) -> None:
    for index, name in enumerate(head):
        if not name or name in head[:index] or set(name) & set("{}"):
            problem = "stands twice" if name in head[:index] else "is no name for a column"
            raise InputError(f"line {line}: {name!r} {problem}", where=path)


def _json_lines(text: str, path: str) -> Iterator[tuple[int, dict[str, str]]]:
    head: list[str] = []
    for line, one in enumerate(text.split("\n"), 1):
        if not one.strip():
            continue
        try:
            # A number stays as it is written: 1.50 is no 1.5 in a name.
            found = json.loads(one, parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            hint = "write an object a line, with no [ ] around them" if text.lstrip().startswith("[") else None
            raise InputError(f"line {line}: is no JSON: {error}", where=path, hint=hint) from None
        if not isinstance(found, dict) or not found:
            raise InputError(f"line {line}: expected an object", where=path)
        if not head:
            head = list(found)
            _check_head(head, path, line)
        if set(found) != set(head):
            odd = next(iter(set(found) ^ set(head)))
            raise InputError(f"line {line}: expected the keys of the first row; {odd!r} is in one alone", where=path)
        yield line, {name: _text(found[name], name, path, line) for name in head}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _text(value: Any, name: str, path: str, line: int) -> str:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            problem = f"line {line}: {name}: holds half of a character, a lone surrogate"
            raise InputError(problem, where=path) from None
        return value
    raise InputError(f"line {line}: {name}: expected a text or a number, got {json.dumps(value)}", where=path)


def filled(value: Any, row: Row, table: str) -> Any:
    """Return *value*, a part of a project file, with the row's value for each ``{column}`` in its strings.

    Raises:
        InputError: there is no such column.
    """
    if isinstance(value, str):
        return _FIELD.sub(lambda match: _value(match, row, table), value) if "{" in value or "}" in value else value
    if isinstance(value, dict):
        return {key: filled(inner, row, table) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, row, table) for inner in value]
    return value


def _value(match: re.Match[str], row: Row, table: str) -> str:
    if match[0] in ("{{", "}}"):
        return match[0][0]
    if not match[0].endswith("}"):
        raise error_in(
            table, row, f"the project file has a {{ without its }} in {match.string!r}", "write {{ for a brace"
        )
    if match[1] not in row.values:
        hint = nearest(match[1], row.values, f"columns: {', '.join(row.values)}; write {{{{ for a brace")
        raise error_in(table, row, f"there is no column {match[1]!r}, which the project file names", hint)
    return row.values[match[1]]
