"""Looking: what a file is in every layer, whether a kernel will run somewhere, the files of an image.

:func:`inspect` looks at a kernel, or at a finished image of any format; what it returns is plain values. ``picture``
draws an image's disk.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from rumpbundle.arguments import choice, file_name, flag, reporter, text, words
from rumpbundle.errors import KernelError
from rumpbundle.events import Report, silent
from rumpbundle.images.detect import NoImageError, open_disk
from rumpbundle.images.report.image import ImageReport, look_into
from rumpbundle.kernels.refusal import of_neither
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel

if TYPE_CHECKING:
    from rumpbundle.images.filesystem import Entry
    from rumpbundle.knowledge.verdict import Verdict

PathLike = str | os.PathLike[str]

__all__ = ["ImageReport", "Unikernel", "cat", "check", "inspect", "ls"]


def inspect(path: PathLike, report: Report = silent, *, stored: bool = False) -> Unikernel | ImageReport:
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


def check(
    app: PathLike | Unikernel,
    target: str,
    *,
    firmware: Collection[str] = (),
    protocol: Protocol | str | None = None,
    drivers: Collection[str] = (),
) -> Verdict:
    """Return whether the kernel *app* will run on the platform *target*, with every reason: docs/check.md.

    Raises:
        UsageError: there is no such target, firmware, protocol or driver.
    """
    from rumpbundle.knowledge.check import check as judge

    kernel = app if isinstance(app, Unikernel) else Unikernel.read(file_name("app", app), disk=False)
    wanted = None if protocol is None else Protocol(choice("protocol", protocol, tuple(Protocol)))
    chosen = [choice("firmware", each, tuple(Firmware)) for each in words("firmware", firmware)]
    return judge(kernel, text("target", target), firmware=chosen, protocol=wanted, drivers=words("drivers", drivers))


def ls(image: PathLike, path: str = "", *, report: Report = silent) -> list[tuple[str, Entry]]:
    """Return the files in *image*, of any format, or those at and below *path*, each with its file system's name.

    *report* hears what is not among them, and why: a file system that is not read, a second disk in an archive.

    Raises:
        ImageError: it is no image, or a damaged one; there is no such path.
    """
    from rumpbundle.images.volumes import listed

    with open_disk(image, reporter(report)) as disk:
        return [(volume.name, entry) for volume, entry in listed(disk, text("path", path), report)]


def cat(image: PathLike, path: str, *, report: Report = silent) -> Iterator[bytes]:
    """Yield the file at *path* in *image* in pieces; *report* as :func:`ls` has it, of that file's file system.

    Raises:
        ImageError: it is no image, or a damaged one; there is no such file.
    """
    from rumpbundle.images.volumes import cat as read

    with open_disk(image, reporter(report)) as disk:
        yield from read(disk, text("path", path), report)
