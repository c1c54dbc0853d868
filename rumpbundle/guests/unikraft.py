"""Unikraft: ``argv[0] [library parameters] -- [the application's arguments]`` on one command line.

docs/facts/guests.md#unikraft; the parameters are those of its libraries posix-environ (``env.vars``) and uknetdev
(``netdev.ip``), and posix-sysinfo has no name to set. A root file system is a cpio archive as the first module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests._contract import Delivery, Request, around_arguments, command_line, refuse

if TYPE_CHECKING:
    from rumpbundle.config import Config, Network

_CANNOT = {
    "blk": "Unikraft mounts by its parameter vfs.fstab; give that with --cmdline",
    "hostname": "Unikraft has no parameter for the host name alone; it comes with netdev.ip (--cmdline)",
}


def deliver(request: Request) -> Delivery:
    """Return library parameters and arguments as a command line.

    Raises:
        ConfigError: the configuration says what no library parameter carries.
        UsageError: data or a volume was given, or a second place for arguments.
    """
    if request.data or request.volumes:
        raise UsageError(
            "which file systems a Unikraft guest can mount depends on the libraries it was built with",
            where="--data" if request.data else "--volume",
            hint="give a cpio archive as --module and name it in --cmdline with vfs.fstab",
        )
    text = request.cmdline or ""
    if request.config is not None:
        refuse(request.config, _CANNOT)
        parameters = " ".join(_parameters(request.config))
        before, after = around_arguments(text, request.config)
        text = " ".join(filter(None, (before, parameters, *(("--", after) if after or parameters else ()))))
    return Delivery(cmdline=command_line(request, text), modules=request.modules)


def _parameters(config: Config) -> Iterator[str]:
    if config.env:
        for key, value in config.env.items():
            if not re.fullmatch(r"[^\s\"'\\\]\[\x00-\x1f\x7f]*", key + value):
                raise ConfigError(
                    f"$.env.{key}: Unikraft's env.vars cannot carry blanks, quotes, brackets or backslashes"
                )
        yield f"env.vars=[ {' '.join(f'{key}={value}' for key, value in config.env.items())} ]"
    if len(config.net) > 1:
        raise ConfigError("$.net[1]: netdev.ip configures Unikraft's first interface; give others with --cmdline")
    for network in config.net:
        yield from _address(network)


def _address(network: Network) -> Iterator[str]:
    if network.type != "inet":
        raise ConfigError("$.net[0].type: netdev.ip takes IPv4 only")
    # Without the parameter the guest's network stack asks DHCP itself, if it was built to.
    if network.method == "static":
        gateway = f":{network.gw}" if network.gw else ""
        yield f"netdev.ip={network.addr}/{network.mask}{gateway}"
