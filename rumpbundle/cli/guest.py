"""The options that tell the guest something: its configuration, its data, its volumes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rumpbundle import guests
from rumpbundle.bundling import recipe
from rumpbundle.cli.command import Command, group
from rumpbundle.cli.values import MountedDirectory, MountWord, end_of_options, without_kernel_option
from rumpbundle.disk import tree
from rumpbundle.errors import InputError, UsageError
from rumpbundle.guests import ConfigFor, ordered
from rumpbundle.manifest import stem

if TYPE_CHECKING:
    from rumpbundle.config import Config

_CONFIG_OPTIONS = (
    click.option("-c", "--config", metavar="CFG", help="The guest's configuration, in JSON; - reads standard input."),
    click.option("-e", "--env", metavar="KEY=VALUE", multiple=True, help="Set an environment variable; repeatable."),
    click.option("--hostname", metavar="NAME", help="The guest's host name."),
    click.option("--net", metavar="IF,TYPE,METHOD", multiple=True,
                 help="Configure an interface: vioif0,inet,dhcp; vioif0,inet,static,10.0.0.2/24,10.0.0.1; "
                      "vioif0,inet6,static,fd00::2/64."),
    click.option("--arg", "arguments", metavar="ARG", multiple=True,
                 help="An argument of the guest's program; repeatable. Where nothing is booted, all words "
                      "after -- are arguments, too."),
)  # fmt: skip
_CONFIGS_OPTIONS = (
    click.option("--config-for", "config_for", metavar="KEY=CFG", multiple=True,
                 help="A configuration for the machines that KEY fits, as serial:web7; -c is for all others; "
                      "repeatable."),
    click.option("--configs", metavar="DIR", help="The same for each file KEY.json in DIR."),
)  # fmt: skip
CONFIG_OPTIONS = group("The configuration", "-c cfg.json -e MODE=fast --arg /srv", *_CONFIG_OPTIONS,
                       *_CONFIGS_OPTIONS)  # fmt: skip
GUEST_OPTIONS = group(
    "The guest", "-c cfg.json --data site:/srv --volume state:/var:64M --arg /srv",
    *_CONFIG_OPTIONS,
    *_CONFIGS_OPTIONS,
    click.option("--data", type=MountWord(sized=False), metavar="DIR:MOUNT", multiple=True,
                 help="A directory the guest sees, read-only, at MOUNT; repeatable as far as the guest can."),
    click.option("--volume", "volumes", type=MountWord(sized=True), metavar="DIR:MOUNT[:SIZE]", multiple=True,
                 help="A directory as a writable ext2 partition of the image."),
)  # fmt: skip


class GuestCommand(Command):
    """A command that bundles: it takes all words after ``--`` as arguments of the guest's program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = end_of_options(self, args)
        args = [*args[:at], *(f"--arg={word}" for word in args[at + 1 :])]
        return super().parse_args(ctx, without_kernel_option(self, args))


def guest_from(app: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Take what the ``GUEST_OPTIONS`` gave out of *arguments* and return it as fields of a Recipe."""
    file = arguments["config"]
    config = config_from(stem(os.path.normpath(app)) or "app", None, arguments)
    further, files = configs_from(arguments)
    return {
        "config": config,
        "config_name": None if file is None else named(file),
        "configs": further,
        "data": data_of(arguments.pop("data")),
        "volumes": volumes_of(arguments.pop("volumes")),
        "inputs": (*(() if file is None else (origin_of(file),)), *files),
    }


def config_from(program: str, base: Config | None, arguments: dict[str, Any]) -> Config | None:
    """Take what the ``CONFIG_OPTIONS`` gave out of *arguments*; return *base*, or what ``-c`` named, with it."""
    env, hostname, net, words, file = (
        arguments.pop(name) for name in ("env", "hostname", "net", "arguments", "config")
    )
    config = base if file is None else read_config(file)
    if env or hostname is not None or net or words:
        from rumpbundle.config import combined

        config = combined(config, program=program, env=env, hostname=hostname, net=net, arguments=words)
    return config


def configs_from(arguments: dict[str, Any]) -> tuple[tuple[ConfigFor, ...], tuple[str, ...]]:
    """Take ``--config-for`` and ``--configs`` out of *arguments*; return what they name, and the files of it."""
    pairs = []
    for text in arguments.pop("config_for"):
        key, equals, path = text.rpartition("=")
        if not equals:
            raise UsageError(f"expected KEY=CFG, got {text!r}", where="--config-for")
        pairs.append((key, path))
    directory = arguments.pop("configs")
    if directory is not None:
        pairs += recipe.configs_in(directory)
    read = (ConfigFor(key, read_config(path), named(path)) for key, path in pairs)
    return ordered(tuple(read)) if pairs else (), tuple(origin_of(path) for _, path in pairs)


def named(path: str) -> str:
    """Return what errors call the configuration *path*."""
    return "standard input" if path == "-" else path


def origin_of(path: str) -> str:
    """Return the file that the configuration *path* is read from."""
    return "/dev/stdin" if path == "-" else path


def data_of(options: Sequence[MountedDirectory]) -> tuple[guests.Data, ...]:
    """Look into the directories that ``--data`` named."""
    return tuple(guests.Data(tree.scan(each.directory), each.mount) for each in options)


def volumes_of(options: Sequence[MountedDirectory]) -> tuple[guests.Writable, ...]:
    """Look into the directories that ``--volume`` named."""
    return tuple(guests.Writable(tree.scan(each.directory), each.mount, each.size) for each in options)


def read_config(path: str) -> Config:
    """Read the configuration in the file *path*, or on standard input if it is ``-``; never more than it may have."""
    if path != "-":
        return recipe.read_config(path)
    from rumpbundle.config import parse
    from rumpbundle.config.jsontext import MAX_BYTES

    try:
        text = sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {os.strerror(error.errno or 0)}", where="standard input") from None
    return parse(text, "standard input")
