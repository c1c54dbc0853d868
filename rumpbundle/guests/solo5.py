"""Solo5 (MirageOS and others), virtio binding: a command line, and the devices its manifest names.

The first word is dropped, the rest is the application's (docs/facts/guests.md#solo5). There is no environment and no
file system. Virtio has no names, so the first device on the PCI bus is the manifest's first, and so on; a device of
another kind there ends the guest at boot, and so does a missing one when it is asked for (bindings/virtio/pci.c,
virtio_blk.c, virtio_net.c). Versions before pull request 581 drive the first block and the first network device only,
and fail whoever asks for a second.
"""

from __future__ import annotations

from collections.abc import Sequence

from rumpbundle.errors import KernelError, UsageError
from rumpbundle.guests._contract import Delivery, Request, arguments_of, command_line, refuse
from rumpbundle.kernels.unikernel import Device

CMDLINE_LIMIT = 8191
"""Bytes of command line it keeps, without the first word; it cuts off what is longer (bindings/virtio/platform.c)."""

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
        KernelError: its manifest asks for devices that its own Solo5 cannot drive.
    """
    if request.kernel.undriven:
        raise KernelError(
            f"its manifest asks for {_listed(request.kernel.devices)}, but the Solo5 it was built with drives one "
            "block and one network device: it fails when it asks for the next",
            where=request.kernel.name,
            hint="build it with a Solo5 whose virtio binding drives several, or with one of each in its manifest",
        )
    if request.data or request.volumes:
        raise UsageError(
            "a Solo5 guest has no file system, so a partition of this image is of no use to it",
            where="--data" if request.data else "--volume",
            hint="make a disk of its own with rumpbundle volume; under QEMU: rumpbundle run IMAGE --volume DIR:/NAME",
        )
    if request.modules:
        raise UsageError("a Solo5 guest ignores boot modules", where=f"--module {request.modules[0].name}")
    text = request.cmdline or ""
    if request.config is not None:
        refuse(request.config, _CANNOT)
        text = " ".join(filter(None, (text, arguments_of(request.config))))
    if len(text.encode("utf-8", "surrogateescape")) > CMDLINE_LIMIT:
        where = request.kernel.name if request.cmdline is None else "--cmdline"
        raise UsageError(f"a Solo5 guest cuts its command line off after {CMDLINE_LIMIT} bytes", where=where)
    # The build for Xen has no drivers, so there is nothing to attach (Solo5's CHANGES.md, 0.6.6).
    notes = () if request.kernel.target == "xen" else (_BOOT_DISK, _wanted(request.kernel.devices))
    return Delivery(cmdline=command_line(request, text), notes=notes)


def _wanted(devices: Sequence[Device]) -> str:
    if not devices:
        return "its manifest asks for no devices: give it no virtio disk and no virtio network card"
    return f"its manifest asks for {_listed(devices)}: give it these virtio devices, in this order, and no others"


def _listed(devices: Sequence[Device]) -> str:
    return ", ".join(map(str, devices))
