"""The Linux/x86 boot protocol: the setup header of a bzImage (Documentation/arch/x86/boot.rst of the kernel)."""

from __future__ import annotations

import struct

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import bzimage
from rumpbundle.kernels.view import View

LOADED_HIGH = 1
XLF_KERNEL_64 = 1
NOTHING_BEHIND = "is a Linux boot header with no kernel behind it, as GRUB's lnxboot.img is"
FIRST_32BIT = 0x0206
"""Images of older protocols (memdisk has 2.03) need not have a 32-bit entry that works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The setup header of a kernel that follows the Linux boot protocol."""

    version: int
    """Of the protocol: 0x020f is 2.15."""
    code32_start: int
    loadflags: int
    init_size: int
    preferred: int
    release: str
    """What the kernel calls itself, empty if it does not say."""
    cmdline_size: int
    """The longest command line that GRUB gives it, in bytes without the final NUL."""
    machine: str
    """``x86-64`` if it has a 64-bit entry, else ``i386``."""
    flaw: str = ""
    xen_flaw: str = ""
    """Why Xen, which unpacks the kernel itself, cannot start it; empty if nothing is known to be in the way."""

    @property
    def needs_real_mode(self) -> bool:
        """Whether only the 16-bit entry starts it (GRUB's ``linux16``): no usable 32-bit entry is there.

        ipxe.lkrn (2.07) has code32_start 0, memdisk is of protocol 2.03: with ``linux`` both hang
        (docs/facts/guests.md#linux).
        """
        return self.version < FIRST_32BIT or not self.code32_start or not self.loadflags & LOADED_HIGH

    @property
    def load(self) -> range | None:
        start = self.preferred or self.code32_start
        return range(start, start + self.init_size) if start and self.init_size else None

    @property
    def detail(self) -> str:
        """One phrase for people."""
        known = f", {self.release}" if self.release else ""
        return f"boot protocol {self.version >> 8}.{self.version & 255:02}{known}"


def read(view: View) -> Setup | None:
    """Return the setup header of *view*, or None if it has none."""
    head = view.read(0, 0x268)
    if head[0x202:0x206] != b"HdrS" or len(head) < 0x22C:
        return None
    head = head.ljust(0x268, b"\0")
    (version,) = struct.unpack_from("<H", head, 0x206)

    def since(least: int, layout: str, offset: int, default: int = 0) -> int:
        value: int = struct.unpack_from(layout, head, offset)[0]
        return value if version >= least else default

    sectors = head[0x1F1] or 4
    (paragraphs,) = struct.unpack_from("<I" if version >= 0x0204 else "<H", head, 0x1F4)
    # The size is rounded up to 16 bytes, the file often is not.
    needed = (sectors + 1) * 512 + max(0, paragraphs * 16 - 15)
    flaw = ""
    if view.size < needed:
        flaw = f"is truncated: its setup header tells of {needed} bytes, the file has {view.size}"
    elif view.size <= (sectors + 1) * 512:
        flaw = NOTHING_BEHIND
    elif version < 0x0200:
        flaw = f"is damaged: Linux boot protocol {version >> 8}.{version & 255:02}"
    code32_start = struct.unpack_from("<I", head, 0x214)[0]
    init_size = since(0x020A, "<I", 0x260)
    start = (sectors + 1) * 512
    announced = init_size if version >= 0x020A else None
    entry = code32_start if head[0x211] & LOADED_HIGH and version >= FIRST_32BIT else 0
    flaw = flaw or bzimage.out_of_bounds(head, sectors, view.size - start, entry, announced)
    return Setup(
        version=version,
        code32_start=code32_start,
        loadflags=head[0x211],
        init_size=init_size,
        preferred=since(0x020A, "<Q", 0x258),
        release=_release(view, struct.unpack_from("<H", head, 0x20E)[0]),
        cmdline_size=_cmdline_size(since(0x0206, "<I", 0x238, 255)),
        machine="x86-64" if since(0x020C, "<H", 0x236) & XLF_KERNEL_64 else "i386",
        flaw=flaw,
        xen_flaw=bzimage.hidden(view, start, version, *struct.unpack_from("<II", head, 0x248)),
    )


def _cmdline_size(announced: int) -> int:
    """Return the bytes of command line that GRUB gives a kernel that has *announced* so many (grub_cmd_linux).

    It counts the NUL in, in 32 bits, and gives 128 at least.
    """
    return max(announced + 1 & 0xFFFFFFFF, 128) - 1


def _release(view: View, pointer: int) -> str:
    text = view.read(pointer + 0x200, 128).split(b"\0", 1)[0] if pointer else b""
    return text.decode("ascii", "replace").strip() if all(32 <= c < 127 for c in text) else ""
