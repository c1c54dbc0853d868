"""A configuration as options on the command line: ``--net``, ``-e``, ``--hostname``, ``--arg``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from rumpbundle.config.model import Config, Network, Program
from rumpbundle.config.reading import explained
from rumpbundle.errors import ConfigError, UsageError


def network(text: str) -> Network:
    """Read ``--net``: ``IF,inet,dhcp``, ``IF,inet6,auto``, ``IF,inet,static,ADDR/MASK[,GW]``.

    ``IF,inet6,auto`` is part of rumprun's language; there is no guest yet that can be told it.

    Raises:
        UsageError: it is none of these; ConfigError: a part of it is wrong.
    """
    # The converter below knows UTF-8 only; undecodable bytes of an argument arrive as surrogates.
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(f"is not UTF-8, which a configuration is: {text!r}", where="--net")
    parts = text.split(",")
    entry: dict[str, Any] = dict(zip(("if", "type", "method"), parts, strict=False))
    rest = parts[3:]
    if len(parts) < 3 or len(rest) > (2 if entry.get("method") == "static" else 0):
        raise UsageError(
            f"expected IF,inet,dhcp or IF,inet,static,ADDR/MASK[,GW] (or inet6), got {text!r}", where="--net"
        )
    if rest:
        entry["addr"], _, mask = rest[0].partition("/")
        if mask:
            entry["mask"] = int(mask) if mask.isascii() and mask.isdigit() and len(mask) < 10 else mask
    if len(rest) > 1:
        entry["gw"] = rest[1]
    try:
        return msgspec.convert(entry, Network, strict=True)
    except msgspec.ValidationError as error:
        problem, path, hint = explained(str(error))
        raise ConfigError(f"{path.removeprefix('$.')}: {problem}", where=f"--net {text}", hint=hint) from None


def variable(text: str) -> tuple[str, str]:
    """Read ``-e KEY=VALUE``.

    Raises:
        UsageError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"expected KEY=VALUE, got {text!r}", where="-e")
    return key, value


def combined(
    base: Config | None,
    *,
    program: str,
    env: Sequence[str] = (),
    hostname: str | None = None,
    net: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Config:
    """Return *base* (or an empty configuration) with what command line options say.

    Variables and interfaces replace those of the same name; *arguments* are added to the one program's, which is
    called *program* where *base* names none.

    Raises:
        UsageError, ConfigError: an option is malformed, or there are several programs the arguments could be for.
    """
    config = Config() if base is None else base
    changes: dict[str, Any] = {}
    if env:
        changes["env"] = config.env | dict(variable(text) for text in env)
    if hostname is not None:
        changes["hostname"] = hostname
    if net:
        entries = {entry.interface: entry for entry in config.net}
        entries |= {entry.interface: entry for entry in map(network, net)}
        changes["net"] = tuple(entries.values())
    if arguments:
        if len(config.rc) > 1:
            raise UsageError("the configuration runs several programs; give their arguments there", where="--arg")
        if config.cmdline is not None:
            raise UsageError("the configuration has a cmdline; add the arguments there, or use rc", where="--arg")
        only = config.rc[0] if config.rc else Program(bin=program)
        changes["rc"] = (msgspec.structs.replace(only, argv=(*only.argv, *arguments)),)
    try:
        return config.replace(**changes)
    except ValueError as error:
        raise ConfigError(str(error).removeprefix("."), where="command line") from None
