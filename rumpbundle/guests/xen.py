"""The Xen hypervisor as a kernel of its own: its options on the command line, dom0 as its boot modules.

It takes the first word for its own name, its first module for dom0's kernel and finds dom0's initrd among the
others (docs/facts/guests.md#xen-hypervisor).
"""

from __future__ import annotations

from rumpbundle.errors import UsageError
from rumpbundle.guests import plain
from rumpbundle.guests._contract import Delivery, Request
from rumpbundle.kernels.unikernel import Protocol


def deliver(request: Request) -> Delivery:
    """Return the command line and the modules, of which there must be one: dom0's kernel.

    Raises:
        ConfigError, UsageError: as for a plain kernel, and if there is no dom0 or no way to tell of it.
    """
    if Protocol.EFI in request.boot.values():
        if request.has_esp_files:
            return plain.deliver(request)
        raise UsageError(
            "Xen as an EFI application reads dom0 and its options from a configuration file of its own beside it",
            where=request.kernel.name,
            hint="bundle the Multiboot 2 build (xen-VERSION.gz), which starts under UEFI too, or give its files with "
            "--esp: EFI/BOOT/BOOTX64.cfg and what that names",
        )
    if not request.modules:
        raise UsageError(
            "Xen needs dom0's kernel as its first module, it panics without one",
            where=request.kernel.name,
            hint="--module VMLINUZ:'console=hvc0' --module INITRD",
        )
    return plain.deliver(request)
