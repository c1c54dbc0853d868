"""HermitOS: a loader, which is the kernel we bundle, and the application it starts, its first boot module.

What stands on the command line before ``--`` are the kernel's own words, and only what follows it reaches the
application (docs/facts/guests.md#hermitos). There is no file system and no environment but what the application was
built with.
"""

from __future__ import annotations

from rumpbundle.errors import UsageError
from rumpbundle.guests._contract import Delivery, Request, around_arguments, command_line, refuse
from rumpbundle.kernels.unikernel import Protocol

_CANNOT = {
    "env": "HermitOS takes its environment from how it was built",
    "hostname": "HermitOS has no host name to set; pass it as an argument (--arg)",
    "net": "HermitOS asks DHCP itself, if it was built to",
    "blk": "HermitOS mounts nothing from a disk",
}


def deliver(request: Request) -> Delivery:
    """Return the command line and the modules, of which there must be one: the application.

    Raises:
        ConfigError: the configuration says more than arguments.
        UsageError: the application is missing, data or a volume was given, or a second place for arguments.
    """
    if request.data or request.volumes:
        raise UsageError(
            "HermitOS mounts no file system of this image",
            where="--data" if request.data else "--volume",
            hint="build what it needs into the application",
        )
    text = request.cmdline or ""
    if request.config is not None:
        refuse(request.config, _CANNOT)
        before, after = around_arguments(text, request.config)
        text = " ".join(filter(None, (before, *(("--", after) if after else ()))))
    if Protocol.EFI in request.boot.values():
        if not request.has_esp_files:
            raise UsageError(
                "this loader looks for its application beside it, as EFI/BOOT/hermit-app",
                where=request.kernel.name,
                hint="give it with --esp DIR, in DIR/EFI/BOOT/hermit-app",
            )
        return Delivery(cmdline=text, modules=request.modules)
    if not request.modules:
        raise UsageError(
            "HermitOS' loader starts the application that is its first module, and there is none",
            where=request.kernel.name,
            hint="--module APPLICATION",
        )
    return Delivery(cmdline=command_line(request, text), modules=request.modules)
