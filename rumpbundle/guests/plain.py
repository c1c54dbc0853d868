"""Plain kernels: no convention we know of, so they get a command line and boot modules and nothing is made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests._contract import ESP_HINT, Delivery, Request, command_line
from rumpbundle.kernels.unikernel import Protocol

if TYPE_CHECKING:
    from rumpbundle.config import Config


def deliver(request: Request) -> Delivery:
    """Return the command line and the modules as they were asked for.

    Raises:
        ConfigError: a configuration was given that says anything.
        UsageError: data or a volume was given.
    """
    application = Protocol.EFI in request.boot.values()
    if request.config is not None and _says_something(request.config):
        raise ConfigError(
            "rumpbundle does not know how this kernel reads a configuration",
            where=request.kernel.name,
            hint=f"pass what it reads with --cmdline, or {ESP_HINT if application else 'as a file with --module'}",
        )
    if request.data or request.volumes:
        raise UsageError(
            "rumpbundle does not know how this kernel mounts a file system",
            where=request.kernel.name,
            hint=ESP_HINT
            if application
            else "make a disk for it with rumpbundle volume, or pass a file with --module",
        )
    return Delivery(cmdline=command_line(request, request.cmdline or ""), modules=request.modules)


def _says_something(config: Config) -> bool:
    """Return whether *config* is not empty, as that which ``rumpbundle config`` prints of an image without any."""
    from rumpbundle.config import builtins

    return bool(builtins(config))
