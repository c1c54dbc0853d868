"""JSON that may be long: written in pieces, an object that holds no others on one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from rumpbundle.cli.streams import json_text, writing

_AT_ONCE = 1000
"""Pieces."""


def print_json(value: Any) -> None:
    """Write *value*, and a line's end, to standard output.

    ``json.dumps`` with an indent takes seconds and hundreds of megabytes for a list of 200,000 files; objects without
    an indent are encoded in C.
    """
    pieces = _pieces(value, "\n")
    with writing() as out:
        while text := "".join(islice(pieces, _AT_ONCE)):
            out.write(text)
        out.write("\n")


def print_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """Write *rows*, objects that hold no others, as :func:`print_json` does a list of them; nothing if one raises.

    Text takes a third of the memory that millions of objects do.
    """
    texts: list[str] = []
    rest = iter(rows)
    while some := list(islice(rest, _AT_ONCE)):
        texts.append(",\n ".join(map(json_text, some)))
    with writing() as out:
        out.write("[" if texts else "[]\n")
        for number, text in enumerate(texts):
            out.write(f",\n {text}" if number else f"\n {text}")
        out.write("\n]\n" if texts else "")


def _pieces(value: Any, line: str) -> Iterator[str]:
    """Yield *value* as JSON; *line* begins a new line at its depth."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not any(isinstance(each, dict | list) for each in inner):
        yield json_text(value)
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    separator = opening
    for key in value if isinstance(value, dict) else range(len(value)):
        yield f"{separator}{line} "
        if isinstance(value, dict):
            yield f"{json_text(str(key))}: "
        yield from _pieces(value[key], f"{line} ")
        separator = ","
    yield f"{line}{closing}"
