"""Harmless flaws for which GRUB refuses a kernel, mended in the copy that is bundled."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rumpbundle.disk.content import Content, Literal
from rumpbundle.kernels import grubelf
from rumpbundle.kernels.flaws import Padding, Repair
from rumpbundle.kernels.kernelfile import KernelFile
from rumpbundle.kernels.multiboot import Header


def mended(file: KernelFile, content: Content, compression: str) -> tuple[Content, tuple[str, ...]]:
    """Return the copy to bundle and what was done to it.

    Besides what the headers and :mod:`rumpbundle.kernels.grubelf` want, a file without section headers gets a table
    of one null section: GRUB 2.12 wants one, 2.06 does not mind (measured with Debian's; kern/elfXX.c). It is done
    for both, so that the bundled kernel is the same.
    """
    headers = [h for h in (file.multiboot2, file.multiboot1) if h is not None and not h.flaw and file.pe is None]
    repairs = [*_repairs(file, headers)]
    paddings = [header.padding for header in headers if header.padding is not None]
    padding = max(paddings, key=_length, default=None)
    unsectioned = file.elf is not None and not file.elf.sections_announced and _by_elf(headers)
    if not repairs and padding is None and not unsectioned:
        return content, ()
    if compression:
        content = Content.of_bytes(file.view.read(0, file.view.size))
    said = [repair.reason for repair in repairs]
    for repair in repairs:
        content = content.patched(repair.at, repair.data)
    if padding is not None:
        content = Content((*content.sources, Literal(bytes(padding.length))))
        said.append(padding.reason)
    if unsectioned and file.elf is not None:
        content = _with_sections(content, file.elf.bits)
        said.append("added a table of section headers, without which GRUB 2.12 stops (invalid e_shoff)")
    if compression:
        said.append("bundled unpacked")
    return content, tuple(said)


def _length(padding: Padding) -> int:
    return padding.length


def _by_elf(headers: list[Header]) -> bool:
    """Whether GRUB may load the file by its ELF headers."""
    return any(header.load is None for header in headers)


def _repairs(file: KernelFile, headers: list[Header]) -> Iterator[Repair]:
    for header in headers:
        yield from header.repairs
    if file.elf is not None and _by_elf(headers):
        yield from grubelf.repairs(file.elf, file.view)


def _with_sections(content: Content, bits: int) -> Content:
    """Return the little-endian ELF file *content* with a table of one null section behind it."""
    offset_at, offset_layout, counts_at, entry_size = (0x20, "<I", 0x2E, 40) if bits == 32 else (0x28, "<Q", 0x3A, 64)
    padding = -content.size % 8
    content = content.patched(offset_at, struct.pack(offset_layout, content.size + padding))
    # e_shentsize, e_shnum, and e_shstrndx: no section holds names
    content = content.patched(counts_at, struct.pack("<HHH", entry_size, 1, 0))
    return Content((*content.sources, Literal(bytes(padding + entry_size))))
