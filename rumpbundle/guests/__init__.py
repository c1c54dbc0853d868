"""Guest families: one module each, which turns what the user asked for into what that guest reads.

:func:`deliver` is a function from values to values: nothing is placed on a disk here. What it returns is exactly
what the guest must receive; how a boot loader mangles a command line is the loader's module to know.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from rumpbundle.errors import UsageError
from rumpbundle.guests._contract import ESP_HINT, Data, Delivery, Request, Writable, kept
from rumpbundle.guests._several import ConfigFor, ordered, several
from rumpbundle.kernels.unikernel import Family, Protocol, Unikernel
from rumpbundle.manifest import Choice


def deliver(request: Request) -> Delivery:
    """Return what the guest of *request* must be given.

    Raises:
        ConfigError: the guest cannot be given this configuration; the message says why.
        UsageError: it cannot be given these modules, data or volumes.
        InputError: a tree that the file system for it cannot express.
    """
    family = importlib.import_module(f"rumpbundle.guests.{request.kernel.family}")
    delivery = family.deliver(request)
    assert isinstance(delivery, Delivery)
    if delivery.modules and Protocol.EFI in request.boot.values():
        raise UsageError(
            "an EFI application gets no boot modules",
            where=f"--module {delivery.modules[0].name}" if request.modules else "--data",
            hint=_instead(request.kernel),
        )
    return delivery


def _instead(application: Unikernel) -> str:
    """Return what to do where *application* was to get a boot module."""
    others = [protocol for protocol in application.protocols if protocol is not Protocol.EFI]
    if others:
        return f"start it by another protocol (--protocol {others[0]})"
    if application.family is Family.LINUX:
        return (
            "bundle the kernel (vmlinuz) it was made from, or make it anew with that in its initrd (ukify --initrd)"
        )
    return ESP_HINT


def deliver_several(request: Request, configs: Sequence[ConfigFor]) -> tuple[Delivery, tuple[Choice, ...]]:
    """Return what :func:`deliver` does, and the further choices that *configs* are.

    Without a configuration in *request* there is no default, and the delivery is what all of *configs* share.

    Raises:
        RumpbundleError: as :func:`deliver`; the error names the key.
        UsageError: nobody could choose, or a configuration wants another disk than the others.
    """
    return several(deliver, request, configs) if configs else (deliver(request), ())


__all__ = ["ConfigFor", "Data", "Delivery", "Request", "Writable", "deliver", "deliver_several", "kept", "ordered"]
