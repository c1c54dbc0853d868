"""What a file is, in every layer: a kernel, or a finished image of any format.

:func:`inspect` looks; what it returns is plain values. ``picture`` draws an image's disk.
"""

from __future__ import annotations

import os

from rumpbundle.arguments import file_name, flag, reporter
from rumpbundle.errors import KernelError
from rumpbundle.events import Report, silent
from rumpbundle.images.detect import NoImageError
from rumpbundle.kernels.refusal import of_neither
from rumpbundle.kernels.unikernel import Unikernel
from rumpbundle.report.image import ImageReport, look_into

__all__ = ["ImageReport", "Unikernel", "inspect"]


def inspect(
    path: str | os.PathLike[str], report: Report = silent, *, stored: bool = False
) -> Unikernel | ImageReport:
    """Return what the kernel or finished image at *path* is; with *stored* also where an image's file has the disk.

    A kernel that no disk image can boot is a kernel all the same. *report* hears how far an image is unpacked.

    Raises:
        InputError: it is neither, or cannot be read.
        ImageError: it is a damaged image.
    """
    report, stored = reporter(report), flag("stored", stored)
    if os.path.isdir(file_name("path", path)):
        return look_into(path, report, stored=stored)
    try:
        return Unikernel.read(path, disk=False)
    except KernelError as error:
        try:
            image = look_into(path, report, stored=stored)
        except NoImageError:
            raise of_neither(error) from None
        if image.container == "raw" and not image.tables and not image.volumes:
            raise of_neither(error) from None
        return image
