"""Harmless flaws for which GRUB refuses a kernel, mended in the copy that is bundled."""

from __future__ import annotations

from rumpbundle.content import Content
from rumpbundle.kernels import elf
from rumpbundle.kernels.anatomy import Anatomy


def mended(anatomy: Anatomy, content: Content, compression: str) -> tuple[Content, tuple[str, ...]]:
    """Turn each PT_LOAD of memory size 0 that lies inside another into PT_NULL; return the copy and what was done.

    GRUB stops at such a header with ``overlap detected``; there is nothing in it to load (facts/guests.md, Unikraft).
    """
    headers = [h for h in (anatomy.multiboot1, anatomy.multiboot2) if h is not None]
    if anatomy.elf is None or not any(not h.flaw and h.load is None for h in headers):
        return content, ()
    empty = anatomy.elf.empty_inside_others
    if not empty:
        return content, ()
    if compression:
        content = Content.of_bytes(anatomy.view.read(0, anatomy.view.size))
    repairs = []
    for segment in empty:
        content = content.patched(segment.at, elf.PT_NULL.to_bytes(4, "little"))
        repairs.append(
            f"switched off the empty program header at {segment.at:#x}, at which GRUB stops (overlap detected)"
        )
    if compression:
        repairs.append("bundled unpacked")
    return content, tuple(repairs)
