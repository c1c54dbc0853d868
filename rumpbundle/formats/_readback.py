"""The options that a kit was made with, from the file beside its disk that tells of them.

A format guesses them (:class:`ReadBack`); each guess is written again and compared with what is there. So nothing is
taken for what it only resembles, and every value has passed the checks that it has to pass when somebody gives it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError, RumpbundleError, one_line
from rumpbundle.formats._contract import Format, Job

MOST = 1 << 20
"""Bytes of a text that are looked at: 50 tags of EC2's longest, four times, are less."""
_WORD = re.compile(r"\w+", re.ASCII)
_MOST_PATHS = 16 << 20
"""Characters of all places together: a few long names may hold many short ones."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read back."""

    options: tuple[Any, ...]
    """Each of them gives what is there; the likeliest first."""
    filled: tuple[str, ...] = ()
    """The places where the user has put a word for a placeholder."""


def read(format: Format, job: Job, text: bytes, given: Collection[str] = ()) -> Reading:
    """Return the options with which *format* wrote *text* for *job*; those *given* are not looked for.

    Raises:
        ImageError: with none: somebody has changed it; the message says where, the hint which option to give.
    """
    how = format.read_back
    assert how is not None
    assert format.options is not None
    missing = [name for name in option_names(format) if name not in given]
    try:
        there = how.places(text)
    except ImageError as error:
        raise ImageError(error.problem, hint=f"give all of {as_options(missing)}, and it is not read") from None
    excused = [pattern for name, pattern in how.decides.items() if name in given]
    excused += [how.filled] if how.filled else []
    fitting: list[Any] = []
    filled: tuple[str, ...] = ()
    wrong: list[tuple[int, ImageError]] = []
    for guess in how.candidates(job, there):
        unread = {name: getattr(format.options(), name) for name in given if name in how.decides}
        options = dataclasses.replace(guess, **unread)
        try:
            made = how.places(how.text(dataclasses.replace(job, options=options)))
        except RumpbundleError as error:
            wrong.append((0, _refused(error)))
            continue
        differing = [place for place in {**there, **made} if there.get(place) != made.get(place)]
        others = [place for place in differing if not any(re.search(each, place) for each in excused)]
        if others:
            wrong.append((len(others), _changed(format, others[0], there, made, missing)))
        elif options not in fitting:
            fitting.append(options)
            filled = tuple(place for place in differing if how.filled and re.search(how.filled, place))
    if not fitting:
        raise min(wrong, key=lambda each: each[0])[1]
    return Reading(tuple(fitting), filled)


def option_names(format: Format) -> tuple[str, ...]:
    """Return the names of the fields of *format*'s own options."""
    return () if format.options is None else tuple(field.name for field in dataclasses.fields(format.options))


def as_options(names: Collection[str]) -> str:
    """Return the fields called *names* as people give them."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _refused(error: RumpbundleError) -> ImageError:
    """Return what to say of a text that asks for what *error* would be raised for if somebody gave it."""
    option = (error.where or "").partition(" ")[0]
    hint = f"give {option}, and it is not read" if option.startswith("--") else error.hint
    return ImageError(f"is not what bundling wrote: {error.problem}", hint=hint)


def _changed(
    format: Format, place: str, there: Mapping[str, str], made: Mapping[str, str], missing: Collection[str]
) -> ImageError:
    assert format.read_back is not None
    found, wanted = (_shown(each.get(place)) for each in (there, made))
    problem = f"is not what bundling wrote: {one_line(place)} is {found}, expected {wanted}"
    for name, pattern in format.read_back.decides.items():
        if re.search(pattern, place):
            return ImageError(problem, hint=f"give {as_options([name])}, and it is not read")
    hint = f"that would be lost: put it back, or give all of {as_options(missing)}"
    return ImageError(problem, hint=hint)


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return one_line(value if len(value) <= 80 else f"{value[:79]}…")


def flat_json(text: bytes) -> dict[str, str]:
    """Return every value in the JSON object *text* that holds no others, as JSON, by its place.

    Raises:
        ImageError: it is none, or larger than any that is written.
    """
    if len(text) > MOST:
        raise ImageError(f"has {len(text)} bytes, more than any request")
    places = Places()
    try:
        value = json.loads(text)
        for place, leaf in _leaves(value, "$"):
            places.add(place, json.dumps(leaf))
    except (ValueError, RecursionError):
        raise ImageError("is no JSON that we write") from None
    if not isinstance(value, dict):
        raise ImageError("is no JSON object")
    return places.found


class Places:
    """What is *found* in a text, by place."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._left = _MOST_PATHS

    def add(self, place: str, value: str) -> None:
        """Add *value*.

        Raises:
            ValueError: the names of all places are longer together than those of anything that is written.
        """
        self._left -= len(place)
        if self._left < 0:
            raise ValueError("its places have endless names")
        self.found[place] = value


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield place and value of all in *value* that holds no others."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(each, place + (f".{key}" if _WORD.fullmatch(key) else f"[{json.dumps(key)}]"))
    elif isinstance(value, list) and value:
        for number, each in enumerate(value):
            yield from _leaves(each, f"{place}[{number}]")
    else:
        yield place, value


def string(there: Mapping[str, str], place: str) -> str:
    """Return the string at *place* of what :func:`flat_json` gave; empty if there is none."""
    value = json.loads(there.get(place, '""'))
    return value if isinstance(value, str) else ""


def members(there: Mapping[str, str], place: str) -> dict[str, str]:
    """Return the strings in the object at *place*, by their keys."""
    found = {}
    for each in there:
        rest = each.removeprefix(place) if each.startswith(place) else ""
        if _WORD.fullmatch(rest[1:]) and rest[0] == ".":
            found[rest[1:]] = string(there, each)
        elif match := re.fullmatch(r'\[("(?:[^"\\]|\\.)*")\]', rest):
            found[json.loads(match[1])] = string(there, each)
    return found
