"""Solo5 (MirageOS and others), virtio binding: a command line, and the devices its manifest names.

The first word is dropped, the rest is the application's (facts/guests.md, Solo5). There is no environment and no
file system; network and block devices are found by their order on the PCI bus.
"""

from __future__ import annotations

from rumpbundle.errors import UsageError
from rumpbundle.guests import Delivery, Request, arguments_of, command_line, refuse

_CANNOT = {
    "env": "a Solo5 guest has no environment; pass it as an argument (--arg)",
    "hostname": "a Solo5 guest has no host name; pass it as an argument (--arg)",
    "net": "a Solo5 guest configures its own network; for MirageOS: --arg --ipv4=10.0.0.2/24",
    "blk": "a Solo5 guest mounts nothing; it takes the virtio disks its manifest names, in order",
}

_BOOT_DISK = (
    "a Solo5 guest takes every virtio disk for its own data: boot this image from IDE, SATA, SCSI or CD, never virtio"
)


def deliver(request: Request) -> Delivery:
    """Return the command line; modules pass, though no Solo5 guest looks at them.

    Raises:
        ConfigError: the configuration says more than arguments.
        UsageError: data, a volume or a module was given.
    """
    if request.data or request.volumes:
        raise UsageError(
            "a Solo5 guest has no file system and would take a partition of this image for nothing",
            where="--data" if request.data else "--volume",
            hint="make a disk of its own with rumpbundle volume, and attach it as virtio",
        )
    if request.modules:
        raise UsageError("a Solo5 guest ignores boot modules", where=f"--module {request.modules[0].name}")
    text = request.cmdline or ""
    if request.config is not None:
        refuse(request.config, _CANNOT)
        text = " ".join(filter(None, (text, arguments_of(request.config))))
    notes = [_BOOT_DISK]
    for kind, what in (("block", "virtio disks, beside the one it boots from"), ("net", "virtio network cards")):
        names = ", ".join(device.name for device in request.kernel.devices if device.kind == kind)
        if names:
            notes.append(f"its manifest asks for {kind} devices ({names}): give it that many {what}, in this order")
    return Delivery(cmdline=command_line(request, text), notes=tuple(notes))
