"""Requests, by what is given to boot: a bundle, a finished image, a kit. What the user chose is added later."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from rumpbundle.disk.flat import disk_errors
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import ImageError
from rumpbundle.events import Report, silent
from rumpbundle.images.records import kitfiles
from rumpbundle.kernels.unikernel import Family, Firmware
from rumpbundle.launcher.backend import Drive, LaunchRequest
from rumpbundle.manifest import Bundle


def of_bundle(bundle: Bundle, config: bytes, *, disk: Drive | None = None, kit: str | None = None) -> LaunchRequest:
    """Return the request to boot what was bundled, from *disk* or as *kit*; *config* is handed over beside it."""
    kernel = bundle.kernel
    return LaunchRequest(
        name=_hypervisor_name(bundle.name),
        family=kernel.family,
        target=kernel.target,
        drivers=kernel.drivers,
        devices=kernel.devices if kernel.family is Family.SOLO5 else None,
        cmdline=bundle.cmdline or kernel.cmdline,
        screen=kernel.screen,
        footprint=bundle.footprint,
        config=config,
        kit=kit,
        disk=disk,
        firmware=Firmware.BIOS if Firmware.BIOS in bundle.boot else Firmware.UEFI,
    )


def of_image(
    path: str | os.PathLike[str],
    stack: contextlib.ExitStack,
    report: Report = silent,
    *,
    persist: bool = False,
    copy: Path | None = None,
) -> LaunchRequest:
    """Return the request to boot the finished image at *path*, which stays open as long as *stack*.

    With *copy*, a directory, a copy there boots: for a hypervisor that cannot forget by itself what a guest writes.

    Raises:
        RumpbundleError: see :func:`rumpbundle.launcher.image.opened`.
    """
    from rumpbundle.launcher.image import opened, unpacked

    if copy is None:
        image = stack.enter_context(opened(path, report, persist=persist))
    else:
        with disk_errors():
            image = unpacked(path, str(copy / kitfiles.XEN_DISK), report)
    kernel = image.kernel
    return LaunchRequest(
        name=_hypervisor_name(os.path.basename(os.fspath(path))),
        family=image.family,
        target="" if kernel is None else kernel.target,
        drivers=image.drivers,
        devices=image.devices,
        cmdline=image.cmdline or ("" if kernel is None else kernel.cmdline),
        screen="" if kernel is None else kernel.screen,
        footprint=image.footprint,
        disk=image.disk,
        firmware=image.firmware,
        bus="cd" if image.cd else None,
    )


def of_kit(path: str | os.PathLike[str], *, copy: Path | None = None) -> LaunchRequest:
    """Return the request to boot the kit at *path*, or a copy of it in the directory *copy*."""
    from rumpbundle.xen.xl import CONFIG_MAX

    kit = Path(path)
    for each in sorted(kit.iterdir()):
        if each.is_symlink():
            # It could lead to any file of this machine, and Xen would follow it.
            raise ImageError("is a symbolic link; a kit has none", where=each)
    name = os.path.basename(os.path.abspath(path)).removesuffix(".xen")
    if copy is not None:
        with disk_errors():
            kit = shutil.copytree(path, copy / "kit")
    config = b""
    if (kit / kitfiles.XEN_CONFIG).exists():
        file = InputFile(kit / kitfiles.XEN_CONFIG)
        config = file.read(0, min(file.size, CONFIG_MAX + 1))
    return LaunchRequest(name=_hypervisor_name(name), config=config, kit=str(kit))


def _hypervisor_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("-") or "app"  # which would be an option
