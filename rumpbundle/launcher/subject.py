"""What a finished image starts, for those who judge it without running it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from rumpbundle.disk.content import Content
from rumpbundle.errors import ImageError
from rumpbundle.events import Report, silent
from rumpbundle.images import detect
from rumpbundle.images.partitions import tables
from rumpbundle.images.volumes import mounted
from rumpbundle.kernels.unikernel import Device, Firmware, Unikernel
from rumpbundle.launcher.image import BootImage, opened


def subject(path: str | os.PathLike[str], report: Report = silent) -> tuple[Unikernel, frozenset[str]]:
    """Return the kernel in the image at *path*, and the firmwares it starts under.

    Of an image that is not ours nothing is known but what boot code its disk has.

    Raises:
        InputError: it cannot be read.
        ImageError: it is no image, or damaged.
    """
    name = os.path.basename(os.fspath(path))
    with opened(path, report, persist=False) as image:
        boot = image.manifest.get("boot")
        if image.kernel is None or not isinstance(boot, dict):
            kernel = Unikernel(
                name=name, content=Content(()), family=image.family, protocols=(), refusal="has no boot code"
            )
            return kernel, _boot_code(path)
        drivers = image.kernel.drivers | image.drivers
        return replace(image.kernel, name=name, drivers=drivers, devices=_devices(image)), frozenset(map(str, boot))


def _devices(image: BootImage) -> tuple[Device, ...]:
    assert image.kernel is not None
    return image.kernel.devices if image.devices is None else image.devices


def _boot_code(path: str | os.PathLike[str]) -> frozenset[str]:
    """Return the firmwares that find something to start: a boot sector, or an EFI application in its place."""
    found = set()
    with detect.open_disk(detect.disk_file(path)) as disk:
        sector = disk.read(0, min(512, disk.size))
        if sector[510:] == b"\x55\xaa" and sector[:440].strip(b"\0"):
            found.add(str(Firmware.BIOS))
        with contextlib.suppress(ImageError):
            for volume in mounted(disk, tuple(tables(disk))):
                if any(entry.path.lower() == "/efi/boot/bootx64.efi" for entry in volume.files.entries()):
                    found.add(str(Firmware.UEFI))
    return frozenset(found)
