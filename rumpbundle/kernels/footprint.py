"""How much memory a kernel and its boot modules take once they are loaded."""

from __future__ import annotations

from collections.abc import Iterable

_FAR = 2 << 30
"""A kernel that loads above is linked to virtual addresses; a PC has no memory there to give it."""
_PLAIN_CPIO = b"0707"
"""How an initial file system of Linux begins if it is not compressed (Linux, initramfs buffer format)."""
_PACKED = 4
"""How much larger what a compressed module holds may be; xz makes a fifth of program code at best."""


def footprint(load: range | None, kernel_size: int, modules: Iterable[tuple[int, bytes]], *, unpacks: bool) -> int:
    """Return the bytes of memory it takes to load a kernel and its modules.

    *load* is where the kernel is loaded to, its ``.bss`` included; *modules* are size and first bytes of each. A module
    stands there as it is, and again where the guest copies it to; *unpacks* says that this guest unpacks it as well.
    """
    if load is None:
        kernel = 2 * kernel_size
    else:
        kernel = load.stop if load.stop <= _FAR else len(load)
    for size, head in modules:
        kernel += size * (1 + (_PACKED if unpacks and not head.startswith(_PLAIN_CPIO) else 1))
    return kernel
