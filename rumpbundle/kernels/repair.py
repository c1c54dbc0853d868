"""Harmless flaws for which GRUB refuses a kernel, mended in the copy that is bundled."""

from __future__ import annotations

import struct

from rumpbundle.disk.content import Content, Literal
from rumpbundle.kernels import elf
from rumpbundle.kernels.kernelfile import KernelFile


def mended(file: KernelFile, content: Content, compression: str) -> tuple[Content, tuple[str, ...]]:
    """Return the copy to bundle and what was done to it. Only what GRUB loads as ELF needs any of this.

    - A PT_LOAD of memory size 0 inside another becomes PT_NULL: there is nothing in it to load, and GRUB stops at
      it with ``overlap detected`` (docs/facts/guests.md#unikraft).
    - A file without section headers gets a table of one null section: GRUB 2.12 wants one, 2.06 does not mind
      (measured with Debian's; kern/elfXX.c). It is done for both, so that the bundled kernel is the same.
    """
    found = file.elf
    headers = [h for h in (file.multiboot1, file.multiboot2) if h is not None]
    if found is None or not any(not h.flaw and h.load is None for h in headers):
        return content, ()
    empty = found.empty_inside_others
    if not empty and found.sections_announced:
        return content, ()
    if compression:
        content = Content.of_bytes(file.view.read(0, file.view.size))
    repairs = []
    for segment in empty:
        content = content.patched(segment.at, elf.PT_NULL.to_bytes(4, "little"))
        repairs.append(
            f"switched off the empty program header at {segment.at:#x}, at which GRUB stops (overlap detected)"
        )
    if not found.sections_announced:
        content = _with_sections(content, found.bits)
        repairs.append("added a table of section headers, without which GRUB 2.12 stops (invalid e_shoff)")
    if compression:
        repairs.append("bundled unpacked")
    return content, tuple(repairs)


def _with_sections(content: Content, bits: int) -> Content:
    """Return the little-endian ELF file *content* with a table of one null section behind it."""
    offset_at, offset_layout, counts_at, entry_size = (0x20, "<I", 0x2E, 40) if bits == 32 else (0x28, "<Q", 0x3A, 64)
    padding = -content.size % 8
    content = content.patched(offset_at, struct.pack(offset_layout, content.size + padding))
    # e_shentsize, e_shnum, and e_shstrndx: no section holds names
    content = content.patched(counts_at, struct.pack("<HHH", entry_size, 1, 0))
    return Content((*content.sources, Literal(bytes(padding + entry_size))))
