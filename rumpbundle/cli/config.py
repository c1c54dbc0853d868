"""``rumpbundle config``: is this configuration right, and what does it say in clean JSON?"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from rumpbundle import config
from rumpbundle.bootloader.smbios import Key
from rumpbundle.cli.command import Command
from rumpbundle.cli.guest import read_config
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.streams import say
from rumpbundle.cli.values import Input
from rumpbundle.config.jsontext import MAX_BYTES
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import UsageError, nearest

if TYPE_CHECKING:
    from rumpbundle.guests import ConfigFor


def _read(path: str, key: str | None) -> config.Config:
    """Read the configuration *path*, or the one in the finished image of that name: for the machine *key* fits."""
    if path == "-" or not (os.path.isdir(path) or _is_image(path)):
        if key is not None:
            raise UsageError("a file holds one configuration, an image may hold more", where="--as")
        return read_config(path)
    from rumpbundle.finished.reconfig import opened
    from rumpbundle.finished.request import config_of, configs_of

    with Terminal() as terminal, opened(path, terminal, whole=False) as (_, found):
        if key is None:
            if not found.bundle.asked.default:
                hint = f"name one with --as, such as {found.bundle.choices[0].key}"
                raise UsageError("holds configurations for some machines only", where=path, hint=hint)
            return config_of(found) or config.Config()
        return _choice(configs_of(found), Key.parse(key, "--as"))


def _choice(configs: Mapping[str, ConfigFor], key: Key) -> config.Config:
    """Return the one of *configs* for *key*, or for a machine with that identity."""
    kind, value = key.identity
    for each in (str(key), f"{kind}:{value}", value):
        if each in configs:
            return configs[each].config
    if not configs:
        raise UsageError("the image holds one configuration, for all machines", where="--as", hint="leave --as out")
    hint = nearest(str(key), configs, f"it holds {len(configs)}, such as {next(iter(configs))}")
    raise UsageError(f"the image holds no configuration of its own for {key}", where="--as", hint=hint)


def _is_image(path: str) -> bool:
    """Whether *path* is too long for a configuration, or holds what no text does."""
    file = InputFile(path)
    return file.size > MAX_BYTES or b"\0" in file.read(0, file.size)


@click.command(
    "config",
    cls=Command,
    example="rumpbundle config cfg.json",
    short_help="check a configuration, or print its JSON Schema",
)
@click.argument("file", metavar="[CFG]", required=False, type=Input())
@click.option("--as", "key", metavar="KEY", help="Of an image with many configurations that for KEY: serial:web7.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of configurations, for editors and other tools.")
def command(file: str | None, key: str | None, schema: bool) -> None:
    """Check the configuration CFG (- reads standard input) and print it in clean JSON.

    Files in rumprun's own dialect are read, too: this is how to turn one into clean JSON. Of a finished image the
    configuration it carries is printed, to be changed and given to reconfig: that of every machine without one of its
    own, or with --as KEY the one for that machine.
    """
    if schema == (file is not None) or (schema and key is not None):
        raise UsageError("give a configuration, or --schema")
    text = config.schema_text() if file is None else config.clean_text(_read(file, key))
    say(text.removesuffix("\n"))
