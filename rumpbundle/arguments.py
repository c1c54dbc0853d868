"""What callers of the library pass, taken for what it means: one check for each kind of value.

*where* is what the caller knows a value by: a keyword, or an option of the command line. Whatever says nothing is a
:class:`UsageError` that names it, here and not somewhere inside.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from rumpbundle.errors import UsageError, nearest
from rumpbundle.events import Report
from rumpbundle.units import LARGEST, NoSize, parsed_size

_SHOWN = 120
"""Characters of a wrong value that a message shows."""
_A_YEAR = 366 * 24 * 3600.0

T = TypeVar("T")


def refused(where: str, expected: str, value: object, hint: str | None = None) -> UsageError:
    """Return the error for a *value* that is not what was *expected*."""
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python writes
        text = "a number of thousands of digits"
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return UsageError(f"expected {expected}, got {shown}", where=where, hint=hint)


def text(where: str, value: Any) -> str:
    """Return *value*, a text that has bytes: a name that is not UTF-8 has (PEP 383), half of a surrogate pair not."""
    if not isinstance(value, str) or not _has_bytes(value):
        raise refused(where, "a text", value)
    return value


def _has_bytes(value: str) -> bool:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def file_name(where: str, value: Any) -> str:
    """Return *value* as the name of a file."""
    name = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(name, str) or not name or "\0" in name or not _has_bytes(name):
        raise refused(where, "the name of a file", value)
    return name


def pattern(where: str, value: Any) -> str:
    """Return *value*, which is a regular expression."""
    try:
        re.compile(text(where, value))
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(f"is no regular expression: {error}", where=where) from None
    return str(value)


def flag(where: str, value: Any) -> bool:
    """Return *value*, which is True or False."""
    if not isinstance(value, bool):
        raise refused(where, "True or False", value)
    return value


def sequence(where: str, value: Any) -> Sequence[Any]:
    """Return *value* as a sequence; a single text is one entry."""
    if isinstance(value, str | os.PathLike):
        return (value,)
    if isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | memoryview | dict):
        return tuple(value)
    raise refused(where, "a list", value)


def words(where: str, value: Any) -> tuple[str, ...]:
    """Return *value* as a sequence of texts."""
    return tuple(text(where, each) for each in sequence(where, value))


def choice(where: str, value: Any, known: Sequence[str]) -> Any:
    """Return *value* if it is one of *known*."""
    if not isinstance(value, str) or value not in known:
        hint = nearest(value, known) if isinstance(value, str) else None
        raise refused(where, f"one of {', '.join(known)}", value, hint)
    return value


def size(where: str, value: Any) -> int:
    """Return *value*, a number of bytes or a text such as ``512M``, in bytes."""
    if isinstance(value, str):
        try:
            return parsed_size(value)
        except NoSize as error:
            raise UsageError(str(error), where=where, hint=error.hint) from None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise refused(where, "a number of bytes or a size such as '512M'", value)
    return value


def count(where: str, value: Any, least: int, most: int) -> int:
    """Return *value* if it is a whole number from *least* to *most*."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise refused(where, f"a whole number from {least} to {most}", value)
    return value


def seconds(where: str, value: Any) -> float | None:
    """Return *value*, a time in seconds, or None for as long as it takes."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value) or value < 0:
        raise refused(where, "a number of seconds", value)
    return min(value, _A_YEAR)


def instance(where: str, value: Any, kind: type[T]) -> T:
    """Return *value* if it is a *kind*."""
    if not isinstance(value, kind):
        raise refused(where, f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}", value)
    return value


def reporter(value: Any) -> Report:
    """Return *value*, what a caller gave as ``report``."""
    if not callable(value):
        raise refused("report", "a function that takes an event", value)
    report: Report = value
    return report


__all__ = [
    "choice",
    "count",
    "file_name",
    "flag",
    "instance",
    "pattern",
    "refused",
    "reporter",
    "seconds",
    "sequence",
    "size",
    "text",
    "words",
]
