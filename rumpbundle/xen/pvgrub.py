"""PV-GRUB: how a Xen PV kernel starts from its own disk, as Amazon EC2 started paravirtual instances.

PV-GRUB is GRUB Legacy as a Xen kernel. The machine starts it instead of the guest; it reads ``/boot/grub/menu.lst``
on the first disk and starts the kernel that names. ISO 9660 with Rock Ridge is among its file systems (Xen,
stubdom/grub/Makefile), so it reads the one disk layout; on ext2 it would take a hole in a file for block 0. Kernel,
menu and configuration stand where the old ``rumprun ec2`` put them, but for the kernel's own directory.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rumpbundle.errors import InputError, UsageError
from rumpbundle.kernels.unikernel import Family
from rumpbundle.manifest import Bundle
from rumpbundle.xen import domain
from rumpbundle.xen.xl import PV_CMDLINE_MAX

MENU = "menu.lst"
CONFIG = "json.cfg"
"""Where a rumprun finds its configuration, at the root of its disk: nobody writes it to xenstore there."""


def starts(bundle: Bundle) -> bool:
    """Whether *bundle*'s kernel is one that PV-GRUB starts and no firmware does."""
    return not bundle.kernel.protocols and domain.is_pv(bundle.kernel)


def menu(bundle: Bundle, kernel: str, modules: Sequence[str]) -> str:
    """Return the text of ``menu.lst``; *kernel* and *modules* are paths on the disk."""
    lines = ["default 0", "timeout 1", "", f"title {bundle.name}", "  root (hd0)"]
    lines.append(f"  kernel {kernel} {_cmdline(bundle)}".rstrip())
    lines += [f"  initrd {module}" for module in modules]
    return "\n".join(lines) + "\n"


def _cmdline(bundle: Bundle) -> str:
    if bundle.kernel.family is Family.RUMPRUN and bundle.config:
        return f"_RUMPRUN_ROOTFSCFG=/{CONFIG}"
    return bundle.cmdline


def check(bundle: Bundle) -> None:
    """Look at what PV-GRUB cannot be told.

    Raises:
        InputError: a file's name, or the command line.
        UsageError: more modules than one, or volumes, for which there is no disk.
    """
    for name in (bundle.kernel.name, *(module.name for module in bundle.modules)):
        if not re.fullmatch(r"[!-\[\]-~]+", name):
            raise InputError("PV-GRUB cannot open a file of this name", where=name, hint="rename it: letters, digits")
    if len(bundle.modules) > 1:
        raise UsageError("PV-GRUB gives a kernel one module", where=f"--module {bundle.modules[1].name}")
    if bundle.volumes:
        raise UsageError(
            "a paravirtual instance starts with one disk", where="--volume", hint="put it in with --data"
        )
    line = _cmdline(bundle).encode("utf-8", "surrogateescape")
    if len(line) > PV_CMDLINE_MAX or b"\n" in line or b"\r" in line:
        raise InputError(
            f"a PV kernel's command line is one line of at most {PV_CMDLINE_MAX} bytes, this has {len(line)}",
            where="--cmdline",
        )
