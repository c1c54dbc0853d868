"""The own options of all formats, for a command that learns only from an image or a list which formats it writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rumpbundle import formats as registry
from rumpbundle.cli.command import group
from rumpbundle.cli.one_format import field_options, print_commands_option
from rumpbundle.errors import UsageError
from rumpbundle.formats import Format, option_names


def format_options() -> tuple[Any, ...]:
    """Return the options that single formats have, each once."""
    found: dict[str, Any] = {}
    for format in registry.formats():
        found = field_options(format, unset=True) | found
    return group("For some formats only", "", print_commands_option(), *found.values())


def check_options(formats: Sequence[Format], given: Iterable[str]) -> None:
    """Raise :class:`UsageError` if an option of *given* belongs to none of *formats*."""
    known = {name for format in formats for name in option_names(format)} | {"print_commands"}
    for name in given:
        if name not in known:
            names = ", ".join(format.name for format in formats)
            raise UsageError(f"no option of {names}", where=f"--{name.replace('_', '-')}")


def given_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, of *arguments*; an empty word of a repeatable one takes away all of it."""
    given = {name: value for name, value in arguments.items() if value is not None and value != ()}
    return {name: tuple(filter(None, value)) if isinstance(value, tuple) else value for name, value in given.items()}
