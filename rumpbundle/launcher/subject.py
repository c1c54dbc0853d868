"""What a finished image starts, for those who judge it without running it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

from rumpbundle.disk.content import Content
from rumpbundle.errors import ImageError
from rumpbundle.events import Report, silent
from rumpbundle.images import detect
from rumpbundle.images.budget import Budget
from rumpbundle.images.disk import Disk
from rumpbundle.images.filesystems.fat import Fat
from rumpbundle.images.filesystems.iso9660 import Iso9660
from rumpbundle.images.partitions import tables
from rumpbundle.images.partitions.mbr import has_boot_code
from rumpbundle.images.volumes import check_is_disk, mounted, only_from_cd, warn_of_cut_off
from rumpbundle.kernels.unikernel import Device, Firmware, Unikernel
from rumpbundle.knowledge.bootcode import BootCode
from rumpbundle.launcher.image import BootImage, described

_EFI = "/efi/boot/bootx64.efi"


def subject(path: str | os.PathLike[str], report: Report = silent) -> tuple[Unikernel, BootCode]:
    """Return the kernel in the image at *path*, and what the image has for firmware to start.

    Of an image that is not ours nothing is known but what boot code its disk has.

    Raises:
        InputError: it cannot be read.
        ImageError: it is no image, or damaged.
    """
    name = os.path.basename(os.fspath(path))
    path = detect.disk_file(path)
    with detect.open_disk(path, report, watch="no") as disk:
        image = described(disk, path)
        boot = image.manifest.get("boot")
        if image.kernel is None or not isinstance(boot, dict):
            check_is_disk(disk, path)
            warn_of_cut_off(disk, path, report)
            kernel = Unikernel(
                name=name, content=Content(()), family=image.family, protocols=(), refusal="has no boot code"
            )
            return kernel, _boot_code(disk)
        drivers = image.kernel.drivers | image.drivers
        kernel = replace(image.kernel, name=name, drivers=drivers, devices=_devices(image))
        return kernel, BootCode(dict.fromkeys(map(str, boot), 0))


def _devices(image: BootImage) -> tuple[Device, ...]:
    assert image.kernel is not None
    return image.kernel.devices if image.devices is None else image.devices


def _boot_code(disk: Disk) -> BootCode:
    """Return what starts from *disk*: a boot sector, or an EFI application in its place."""
    found: dict[str, int] = {}
    cd = only_from_cd(disk)
    if has_boot_code(disk):
        found[Firmware.BIOS] = 0
    with contextlib.suppress(ImageError):
        known = tables(disk)
        counted = {slot.offset: table.sector for table in known for slot in table.slots}
        anywhere: set[int] = set()
        budget = Budget()
        for volume in mounted(disk, known):
            if isinstance(volume.files, Iso9660):  # El Torito leads there as well
                anywhere |= {volume.offset + entry.offset for entry in volume.files.boot_entries}
            if isinstance(volume.files, Fat) and _has_loader(volume.files, budget):
                needs = 0 if volume.offset in anywhere else counted.get(volume.offset, 0)
                found[Firmware.UEFI] = min(needs, found.get(Firmware.UEFI, needs))
    return BootCode(found, disk.sector_size or 0, from_cd=cd)


def _has_loader(files: Fat, budget: Budget) -> bool:
    """Whether UEFI finds something to start in *files*; a damaged one does not hide what stands in others.

    Any FAT may be one, as on a CD or a stick without a table, for the machines of ``check``, which are x86-64 alone;
    :mod:`rumpbundle.finished.bootability` asks what a cloud is to be told: of any machine, and of an ESP alone.
    """
    with contextlib.suppress(ImageError):
        return any(entry.path.lower() == _EFI for entry in files.entries("/", budget))
    return False
