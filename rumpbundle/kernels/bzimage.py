"""Where the setup header of a bzImage leads GRUB, or Xen, to what is not there."""

from __future__ import annotations

from rumpbundle.kernels.view import View

_MOST_SECTORS = 64
"""Of real-mode code that GRUB takes."""
_LOADED_HIGH = 1
"""The bit of loadflags that a zImage does not have."""
_LARGEST_ZIMAGE = 0x8_0000
"""It goes between 64 and 576 KiB."""
_HIGH = 0x10_0000
"""Where the protected-mode part is loaded to, for its own addresses."""
_ROOM = 0xC000_0000 - _HIGH
"""Bytes of memory a PC has between that and its devices, at most."""
_PAGE = 4096
"""Less than this behind what a kernel asks for was never seen to do harm; more hangs GRUB or the kernel."""
_FIRST_WITH_PAYLOAD = 0x0208
_PACKED = (
    *(b"\x7fELF", b"\x1f\x8b", b"BZh", b"\x5d\0\0", b"\x89LZO", b"\xfd7zXZ"),
    *(b"\x02\x21\x4c\x18", b"\x28\xb5\x2f\xfd"),
)
"""How a kernel in a bzImage begins that Xen can unpack."""


def out_of_bounds(head: bytes, sectors: int, size: int, entry: int, wanted: int | None) -> str:
    """Return which field of the setup header in *head* makes GRUB refuse or wreck a kernel; empty if none does.

    *size* are the bytes of its protected-mode part, behind as many *sectors* of real-mode code; *entry* is
    code32_start, 0 where that does not count, and *wanted* init_size, None where the protocol does not have it.
    grub-core/loader/i386/linux.c, grub_cmd_linux; docs/facts/guests.md#linux.
    """
    if head[0x1FE:0x200] != b"\x55\xaa":
        return "is damaged: its boot sector does not end with 55 AA, which GRUB wants"
    if sectors > _MOST_SECTORS:
        return f"is damaged: {sectors} sectors of real-mode code (setup_sects), GRUB takes {_MOST_SECTORS}"
    if not head[0x211] & _LOADED_HIGH and size > _LARGEST_ZIMAGE:
        return f"is a zImage of {size} bytes, and GRUB takes {_LARGEST_ZIMAGE} at most: build it as a bzImage"
    if wanted is not None and wanted + _PAGE <= size:
        return f"is damaged: it wants {wanted} bytes of memory (init_size), and is {size} bytes long"
    if wanted is not None and wanted > _ROOM:
        return f"is damaged: it wants {wanted} bytes of memory (init_size), more than a PC has below its devices"
    if entry and not _HIGH <= entry < _HIGH + size:
        end = _HIGH + size - 1
        return f"is damaged: it is entered at {entry:#x} (code32_start), outside of {_HIGH:#x}-{end:#x}"
    return ""


def hidden(view: View, start: int, version: int, offset: int, length: int) -> str:
    """Return why Xen does not find the kernel in the bzImage whose protected-mode part begins at byte *start*.

    *offset* and *length* are the header's, of what it unpacks. tools/libs/guest/xg_dom_bzimageloader.c.
    """
    if version < _FIRST_WITH_PAYLOAD:
        return f"Xen unpacks a bzImage from boot protocol 2.08 on, this one has {version >> 8}.{version & 255:02}"
    if start + offset + length > view.size:
        return f"its compressed kernel is said to end at byte {start + offset + length}, the file has {view.size}"
    if not view.read(start + offset, 8).startswith(_PACKED):
        return f"no compressed kernel that Xen can unpack stands at byte {start + offset}, where it is said to be"
    return ""
