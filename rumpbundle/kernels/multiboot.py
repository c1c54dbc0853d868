"""Multiboot 1 headers, and what the headers of both versions share, as GRUB reads them.

Multiboot Specification 0.6.96 section 3.1. Where GRUB (2.06 as 2.12) is stricter or laxer than the specification,
GRUB counts: it is the loader in our images (grub-core/loader/i386/multiboot_mbi.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import grubelf
from rumpbundle.kernels.elf import Elf
from rumpbundle.kernels.flaws import Flaw, Padding, Repair
from rumpbundle.kernels.kinds import Firmware
from rumpbundle.kernels.view import View

BEYOND = 1 << 20
"""How far we look for a header that GRUB will not see, to be able to say so."""

UNKNOWN_FLAGS = 0xFFF8
"""Required features of Multiboot 1 that do not exist; GRUB refuses a kernel that asks for one."""
VIDEO = 1 << 2
KLUDGE = 1 << 16
PAGE = 4096


@dataclass(frozen=True, slots=True)
class HeaderKind:
    """Where GRUB looks for a header: its first *size* bytes, words that sum up to 0, within *search* bytes."""

    name: str
    magic: int
    size: int
    align: int
    search: int


_ONE = HeaderKind("Multiboot", 0x1BADB002, 12, 4, 8192)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A Multiboot header."""

    version: int
    offset: int
    flags: int = 0
    """Multiboot 1: its flags."""
    tags: tuple[int, ...] = ()
    """Multiboot 2: the types of its tags, in order."""
    machine: str = "i386"
    load: range | None = None
    """The physical addresses the header itself says it loads to (a.out kludge, address tag)."""
    entry: int | None = None
    """The entry point the header itself gives."""
    lowest: int = 0
    """The lowest address to which it lets itself be moved; it goes there at least."""
    framebuffer: bool = False
    """Whether it asks for a linear framebuffer."""
    text: bool = False
    """Whether it asks for VGA text instead."""
    flaw: str = ""
    """Why GRUB will not boot it by this header, empty if it will."""
    advice: str = ""
    """What to do about that."""
    not_under: tuple[tuple[Firmware, str], ...] = ()
    """Where GRUB takes it under one firmware only: the other, and why not."""
    repairs: tuple[Repair, ...] = ()
    """What must be mended in the copy so that GRUB takes it."""
    padding: Padding | None = None

    @property
    def detail(self) -> str:
        """One phrase for people."""
        kludge = ", loads by its addresses" if self.load is not None else ""
        if self.version == 1:
            return f"at {self.offset:#x}, flags {self.flags:#x}{kludge}"
        return f"at {self.offset:#x}, {self.machine}, tags {' '.join(map(str, self.tags)) or 'none'}{kludge}"


def read1(view: View, elf: Elf | None) -> Header | None:
    """Return the Multiboot 1 header GRUB would take, else the best near miss with its flaw, else None."""
    head = view.read(0, BEYOND)
    near: Header | None = None
    for at, (_, flags, _), flaw in candidates(head, _ONE):
        if flaw is None:
            return _read(view, elf, head, at, flags)
        near = near or Header(version=1, offset=at, flags=flags, flaw=flaw.problem, advice=flaw.advice)
    return near


def candidates(head: bytes, kind: HeaderKind) -> Iterator[tuple[int, tuple[int, ...], Flaw | None]]:
    """Yield offset, words and misplacement of all that might be a header; what has a bad checksum comes last."""
    magic = kind.magic.to_bytes(4, "little")
    unsound = None
    at = head.find(magic)
    while 0 <= at <= len(head) - kind.size:
        words = struct.unpack_from(f"<{kind.size // 4}I", head, at)
        seen = at + kind.size <= kind.search
        if sum(words) & 0xFFFFFFFF:
            if seen and unsound is None:
                unsound = at, words, Flaw(f"its {kind.name} header at {at:#x} has a bad checksum")
        elif at % kind.align:
            problem = f"its {kind.name} header at {at:#x} is not aligned to {kind.align} bytes"
            yield at, words, Flaw(problem, f"put .balign {kind.align} before it")
        elif not seen:
            where = f"GRUB looks only in the first {kind.search >> 10} KiB"
            advice = "link the header nearer to the start of the file"
            yield at, words, Flaw(f"its {kind.name} header is at {at:#x}, {where}", advice)
        else:
            yield at, words, None
        at = head.find(magic, at + 1)
    if unsound is not None:
        yield unsound


def _read(view: View, elf: Elf | None, head: bytes, at: int, flags: int) -> Header:
    flaw = None
    if flags & UNKNOWN_FLAGS:
        flaw = Flaw(f"its Multiboot flags {flags:#x} require a feature GRUB does not have")
    elif view.size < 32:
        flaw = Flaw("is truncated: GRUB wants at least 32 bytes")
    load = entry = padding = None
    if flags & KLUDGE:
        if len(head) < at + 32:
            flaw = flaw or Flaw("is truncated in its Multiboot header")
        else:
            *addresses, entry = struct.unpack_from("<IIIII", head, at + 12)
            load, padding, wrong = by_addresses(view, at, *addresses)
            if not wrong and load is not None and entry not in load:
                wrong = Flaw(f"its Multiboot header enters at {entry:#x}, outside of what it loads")
            flaw = flaw or wrong
    else:
        flaw = flaw or grubelf.flaw(elf, view, _ONE.search) or grubelf.place_flaw(elf, view)
    mode = _video_mode(head, at) if flags & VIDEO else None
    return Header(
        version=1,
        offset=at,
        flags=flags,
        load=load,
        entry=entry,
        framebuffer=mode == 0,
        text=mode == 1,
        flaw=flaw.problem if flaw else "",
        advice=flaw.advice if flaw else "",
        repairs=_without_video(at, flags) if flags & VIDEO and mode is None else (),
        padding=padding,
    )


def _video_mode(head: bytes, at: int) -> int | None:
    """Return the mode type GRUB reads, 0 (graphics) or 1 (text), or None for another, at which it stops.

    It reads it wherever the header is, be there such a field or not.
    """
    (mode,) = struct.unpack("<I", head[at + 32 : min(at + 36, _ONE.search)].ljust(4, b"\xff"))
    return mode if mode in (0, 1) else None


def _without_video(at: int, flags: int) -> tuple[Repair, ...]:
    without = flags & ~VIDEO
    return (
        Repair(
            at + 4,
            struct.pack("<II", without, -(_ONE.magic + without) & 0xFFFFFFFF),
            "switched off the request for a video mode (flag 2) in the Multiboot header, which has no such fields: "
            "GRUB stops at what stands there (unsupported graphical mode type)",
        ),
    )


def by_addresses(
    view: View, at: int, header_addr: int, load_addr: int, load_end: int, bss_end: int, *, moved: bool = False
) -> tuple[range | None, Padding | None, Flaw | None]:
    """Return what the address fields ("a.out kludge") load, what the file lacks of it, and what is wrong there.

    One that is *moved* goes where GRUB finds memory, whatever they say.
    """
    start = at + load_addr - header_addr  # behind the header, if the header itself is not to be loaded
    if start < 0:
        return None, None, Flaw("its Multiboot header's addresses begin before the file does")
    length = load_end - load_addr if load_end else view.size - start
    if length <= 0 or (bss_end and bss_end < load_addr + length):
        return None, None, Flaw("its Multiboot header's addresses run backwards")
    load = range(load_addr, bss_end or load_addr + length)
    held = range(load_addr, load_addr + length)
    flaw = grubelf.load_flaw((load,)) or grubelf.hole_flaw([held] if any(grubelf.lost(view, held, start)) else ())
    if flaw is not None and not moved:
        return load, None, flaw
    missing = start + length - view.size
    if missing >= PAGE:
        # GRUB does not notice and starts half a kernel.
        problem = f"its Multiboot header loads up to byte {start + length}, the file has {view.size}"
        return load, None, Flaw(f"is truncated: {problem}", "let load_end_addr be the end of .data")
    if missing > 0:
        reason = f"added {missing} zeros at the end: its Multiboot header loads so much more than the file has"
        return load, Padding(missing, reason), None
    return load, None, None
