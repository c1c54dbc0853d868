"""Looking from Python: what a kernel or an image is, whether a kernel will run somewhere, the files of an image."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from rumpbundle.arguments import choice, file_name, reporter, text, words
from rumpbundle.events import Report, silent
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel
from rumpbundle.report import inspect

if TYPE_CHECKING:
    from rumpbundle.images.filesystem import Entry
    from rumpbundle.knowledge.verdict import Verdict

PathLike = str | os.PathLike[str]


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
    from rumpbundle.images.detect import open_disk
    from rumpbundle.images.volumes import listed

    with open_disk(image, reporter(report)) as disk:
        return [(volume.name, entry) for volume, entry in listed(disk, text("path", path), report)]


def cat(image: PathLike, path: str, *, report: Report = silent) -> Iterator[bytes]:
    """Yield the file at *path* in *image* in pieces; *report* as :func:`ls` has it, of that file's file system.

    Raises:
        ImageError: it is no image, or a damaged one; there is no such file.
    """
    from rumpbundle.images.detect import open_disk
    from rumpbundle.images.volumes import cat as read

    with open_disk(image, reporter(report)) as disk:
        yield from read(disk, text("path", path), report)


__all__ = ["cat", "check", "inspect", "ls"]
