"""Linux: a command line and initrds; what the kernel does not know goes to init.

``KEY=VALUE`` words that are no parameters become init's environment, what follows ``--`` its arguments
(admin-guide/kernel-parameters). ``ip=`` is read by the kernel (CONFIG_IP_PNP) or by the initrd of most
distributions, ``hostname=`` by kernels since 6.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests._contract import Delivery, Request, around_arguments, command_line, refuse
from rumpbundle.manifest import Mounted, Volume

if TYPE_CHECKING:
    from rumpbundle.config import Config, Network

CMDLINE_LIMIT = 2047
"""Bytes of command line an x86 kernel keeps (COMMAND_LINE_SIZE, 2048 with the NUL), where it does not say itself."""

_CANNOT = {"blk": "a Linux guest mounts by itself; see the notes on LABEL= of --data and --volume"}


def deliver(request: Request) -> Delivery:
    """Return the command line, the initrds with the data as the last of them, and the volumes.

    Raises:
        ConfigError: the configuration says what no parameter carries.
        UsageError: the command line is too long.
        InputError: data or a volume that cpio or ext2 cannot express.
    """
    text = request.cmdline or ""
    if request.config is not None:
        refuse(request.config, _CANNOT)
        text = _with_config(text, request.config)
    line = command_line(request, text)
    limit = request.kernel.cmdline_limit or CMDLINE_LIMIT
    if len(line.encode("utf-8", "surrogateescape")) > limit:
        where = request.kernel.name if request.cmdline is None else "--cmdline"
        raise UsageError(f"this kernel cuts its command line off after {limit} bytes", where=where)
    modules = list(request.modules)
    notes = []
    mounts = []
    labels: set[str] = set()
    for data in request.data:
        mounts.append(Mounted(data.mount, f"module {len(modules)}"))
        modules.append(data.as_initrd(labels, request.epoch))
        notes.append(f"{data.mount} is part of the initial file system, in memory; see rumpbundle help guests, Linux")
    volumes: list[Volume] = []
    for writable in request.volumes:
        made, uuid = writable.as_ext2(labels, request.epoch)
        mounts.append(Mounted(writable.mount, f"volume {len(volumes)}", writable=True))
        volumes.append(made)
        notes.append(f"mount the volume with: mount LABEL={made.label} {writable.mount} (UUID={uuid}, ext2)")
    return Delivery(
        cmdline=line, modules=tuple(modules), volumes=tuple(volumes), mounts=tuple(mounts), notes=tuple(notes)
    )


def _with_config(text: str, config: Config) -> str:
    before, after = around_arguments(text, config)
    return " ".join(filter(None, (before, *_parameters(config), *(("--", after) if after else ()))))


def _parameters(config: Config) -> Iterator[str]:
    if config.hostname is not None:
        yield f"hostname={config.hostname}"
    if len(config.net) > 1:
        raise ConfigError("$.net[1]: the kernel's ip= parameter configures one interface")
    for network in config.net:
        yield _ip(network)
    for key, value in config.env.items():
        if "." in key or not re.fullmatch(r"[^\s\"'\\\x00-\x1f\x7f]*", key + value):
            raise ConfigError(
                f"$.env.{key}: cannot reach init through the kernel's command line: no dots in the name (those are "
                "module parameters), no blanks, quotes or backslashes"
            )
        yield f"{key}={value}"


def _ip(network: Network) -> str:
    if network.type != "inet":
        raise ConfigError("$.net[0].type: the kernel's ip= parameter takes IPv4 only")
    if ":" in network.interface:
        raise ConfigError("$.net[0].if: a colon parts the fields of the kernel's ip= parameter")
    if network.method == "dhcp":
        return f"ip=:::::{network.interface}:dhcp"
    bits = (0xFFFFFFFF << (32 - (network.mask or 0))) & 0xFFFFFFFF
    mask = ".".join(map(str, bits.to_bytes(4, "big")))
    return f"ip={network.addr}::{network.gw or ''}:{mask}::{network.interface}:off"
