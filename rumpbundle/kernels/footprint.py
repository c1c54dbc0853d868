"""How much memory a kernel and its boot modules take once they are loaded."""

from __future__ import annotations

from collections.abc import Iterable

from rumpbundle.kernels.kinds import Family
from rumpbundle.kernels.unikernel import Unikernel

_FAR = 3 << 30
"""A kernel that loads above is linked to virtual addresses; a PC has no memory there to give it."""
_PLAIN_CPIO = b"0707"
"""How an initial file system of Linux begins if it is not compressed (Linux, initramfs buffer format)."""
_PACKED = 4
"""How many times its size a compressed module may hold; xz makes a fifth of program code at best."""


def footprint(kernel: Unikernel, modules: Iterable[tuple[int, bytes]]) -> int:
    """Return the bytes of memory it takes to load *kernel*, ``.bss`` and symbols included, and its modules.

    *modules* are size and first bytes of each. A module stands in memory as it is, and again where the guest copies
    it to; a Linux unpacks it as well.
    """
    load = kernel.load
    taken = 2 * kernel.content.size if load is None else load.stop
    if load is not None and load.stop > _FAR:
        taken = load.stop - load.start
    total = taken + kernel.unloaded
    for size, head in modules:
        packed = kernel.family is Family.LINUX and not head.startswith(_PLAIN_CPIO)
        total += size * (1 + (_PACKED if packed else 1))
    return total
