"""JSON that may be long: written in pieces, an object that holds no others on one line."""

from __future__ import annotations

from collections.abc import Iterator
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
