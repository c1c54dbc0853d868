"""Multiboot 2 headers as GRUB reads them.

Multiboot2 Specification 2.0 section 3.1, and grub-core/loader/multiboot_mbi2.c of GRUB 2.06 and 2.12, which counts:
it ignores the header's length and walks from tag to tag to the first of type 0, each on a multiple of 8 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import grubelf
from rumpbundle.kernels.elf import SHT_REL, SHT_RELA, Elf
from rumpbundle.kernels.flaws import Flaw, Repair
from rumpbundle.kernels.kinds import Firmware
from rumpbundle.kernels.multiboot import BEYOND, Header, HeaderKind, by_addresses, candidates
from rumpbundle.kernels.view import View

_TWO = HeaderKind("Multiboot 2", 0xE85250D6, 16, 8, 32768)
_ARCHITECTURES = {0: "i386", 4: "mips"}

# Types of the header tags, and of the information tags a kernel may ask for.
_INFORMATION, _ADDRESS, _ENTRY, _CONSOLE, _FRAMEBUFFER, _EFI_BS, _ENTRY_EFI64, _RELOCATABLE = 1, 2, 3, 4, 5, 7, 9, 10
_KNOWN_TAGS = frozenset(
    (_INFORMATION, _ADDRESS, _ENTRY, _CONSOLE, _FRAMEBUFFER, 6, _EFI_BS, _ENTRY_EFI64, _RELOCATABLE)
)
_SMBIOS = 13
_KNOWN_INFORMATION = frozenset(range(22)) - {_SMBIOS}
_CONSOLE_REQUIRED, _EGA_TEXT = 1, 2
_CONSOLE_ADVICE = (
    "add a framebuffer tag (5), or take VGA text too (bit 1 of the flags in tag 4), or require no console"
)
_WHOLE_FILE = 0xFFFFFFFF
"""As load address: load from the start of the file."""


@dataclass(frozen=True, slots=True)
class _Tag:
    at: int
    kind: int
    flags: int
    size: int
    body: bytes

    @property
    def optional(self) -> bool:
        return bool(self.flags & 1)

    @property
    def words(self) -> tuple[int, ...]:
        """The body as far as the size goes: for a list."""
        return struct.unpack_from(f"<{len(self.body) // 4}I", self.body)


def read2(view: View, elf: Elf | None) -> Header | None:
    """Return the Multiboot 2 header GRUB would take, else the best near miss with its flaw, else None."""
    head = view.read(0, BEYOND)
    near: Header | None = None
    for at, (_, architecture, _, _), flaw in candidates(head, _TWO):
        machine = _ARCHITECTURES.get(architecture, f"architecture {architecture}")
        if flaw is None and machine != "i386":
            flaw = Flaw(f"its Multiboot 2 header is for {machine}")
        if flaw is None:
            return _read(view, elf, head, at)
        near = near or Header(version=2, offset=at, machine=machine, flaw=flaw.problem, advice=flaw.advice)
    return near


def _read(view: View, elf: Elf | None, head: bytes, at: int) -> Header:
    tags, flaw = _tags(head[: _TWO.search], at + 16)
    kinds = tuple(tag.kind for tag in tags)
    load = entry = padding = None
    repairs: list[Repair] = []
    for tag in tags:
        # Their fields count whatever size the tag has.
        fields = struct.unpack("<4I", head[tag.at + 8 : tag.at + 24].ljust(16, b"\0"))
        if tag.kind == _ADDRESS:
            header_addr, load_addr, load_end, bss_end = fields
            if load_addr == _WHOLE_FILE:
                load_addr = header_addr - at
                repairs += _with_load_address(tag, load_addr) if load_end and bss_end else []
            addresses = (header_addr, load_addr, load_end, bss_end)
            load, padding, wrong = by_addresses(view, at, *addresses, moved=_RELOCATABLE in kinds)
            flaw = flaw or wrong
        elif tag.kind == _ENTRY:
            entry = fields[0]
    if unmet := next((wrong for tag in tags if (wrong := _unmet(tag))), None):
        # A tag of no known type is what stands behind one that is not padded, or is what it says.
        unknown = next((at for at, tag in enumerate(tags) if tag.kind not in _KNOWN_TAGS), 0)
        flaw = flaw or _misaligned(tags[:unknown]) or unmet
    moved = load if load is not None or elf is None or elf.flaw else elf.load
    flaw = flaw or _entry_flaw(tags, elf, load) or _range_flaw(tags, moved)
    if _ADDRESS not in kinds:
        flaw = flaw or _elf_flaw(view, elf, relocatable=_RELOCATABLE in kinds)
    not_under = tuple(_not_under(tags, kinds))
    if len({firmware for firmware, _ in not_under}) == len(Firmware):
        flaw = flaw or _nowhere(not_under[0][1])
    return Header(
        version=2,
        offset=at,
        tags=kinds,
        load=load,
        entry=entry,
        lowest=_lowest(tags),
        framebuffer=_FRAMEBUFFER in kinds,
        text=_FRAMEBUFFER not in kinds and any(flags & _EGA_TEXT for flags in _consoles(tags)),
        flaw=flaw.problem if flaw else "",
        advice=flaw.advice if flaw else "",
        not_under=not_under,
        repairs=(*repairs, *(_optional_smbios(tag) for tag in tags if _needs_smbios(tag))),
        padding=padding,
    )


def _entry_flaw(tags: list[_Tag], elf: Elf | None, load: range | None) -> Flaw | None:
    """Return what is wrong where a tag has GRUB enter at an address at which nothing was loaded."""
    if load is not None:
        loaded = [load]
    elif elf is not None and not elf.flaw:
        loaded = [*elf.loaded]
    else:
        return None
    kinds = {tag.kind for tag in tags}
    for tag in tags:
        if tag.kind == _ENTRY or (tag.kind == _ENTRY_EFI64 and _EFI_BS in kinds):
            entry = int.from_bytes(tag.body[:4], "little")
            if not any(entry in each for each in loaded):
                return Flaw(
                    f"its Multiboot 2 header enters at {entry:#x} (tag {tag.kind}), outside of what it loads",
                    "give the physical address of the first instruction",
                )
    return None


def _lowest(tags: list[_Tag]) -> int:
    """Return the lowest address to which a kernel lets itself be moved; 0 if it does not."""
    moved = next((tag for tag in reversed(tags) if tag.kind == _RELOCATABLE and len(tag.words) >= 3), None)
    if moved is None:
        return 0
    low, _, align = moved.words[:3]
    # GRUB takes any number, and rounds with what is no power of two to what comes.
    return -(-low // align) * align if align and not align & align - 1 else low


def _range_flaw(tags: list[_Tag], load: range | None) -> Flaw | None:
    """Return what is wrong where a kernel that takes *load* may be moved only to where there is no room for it."""
    size = load.stop - load.start if load is not None else 0
    for tag in tags:
        if tag.kind != _RELOCATABLE or len(tag.words) < 3:
            continue
        low, high, align = tag.words[:3]
        where = f"its Multiboot 2 header lets it be loaded from {low:#x} up to {high:#x}"
        if low > high:
            return Flaw(f"{where}, which is nowhere")
        if _lowest([tag]) + size > min(high, grubelf.HIGHEST):
            aligned = f" at a multiple of {align:#x}" if _lowest([tag]) > low else ""
            advice = "give min_addr and max_addr (tag 10) with that room between them, below 3 GiB"
            return Flaw(f"{where}, where a PC has no room for its {size} bytes{aligned}", advice)
    return None


def _elf_flaw(view: View, elf: Elf | None, *, relocatable: bool) -> Flaw | None:
    if flaw := grubelf.flaw(elf, view, _TWO.search):
        return flaw
    if elf is not None and any(s.type in (SHT_REL, SHT_RELA) for s in elf.sections):
        return Flaw(
            "has relocation sections, which GRUB's multiboot2 refuses",
            "link it without --emit-relocs (-q), not as PIE, or take them out of the file: objcopy "
            "--remove-section='.rel*'",
        )
    if relocatable and elf is not None:
        # It goes elsewhere; but GRUB wants its addresses in 32 bits all the same.
        return grubelf.load_flaw(each for each in elf.loaded if each.stop >= 1 << 32)
    return grubelf.place_flaw(elf, view)


def _tags(head: bytes, at: int) -> tuple[list[_Tag], Flaw | None]:
    """Return each tag up to the first of type 0, and what is wrong with their chain."""
    tags: list[_Tag] = []
    while at + 8 <= len(head):
        kind, flags, size = struct.unpack_from("<HHI", head, at)
        if kind == 0:
            return tags, None
        if not size:
            still = Flaw(f"its Multiboot 2 header has a tag of size 0 at {at:#x}, over which GRUB stands still")
            return tags, _misaligned(tags) or still
        tags.append(_Tag(at, kind, flags, size, head[at + 8 : max(at + size, at + 8)]))
        at += (size + 7) & ~7
    return tags, _misaligned(tags) or Flaw(
        "its Multiboot 2 header has no end tag", "end it with a tag of type 0, size 8"
    )


def _misaligned(tags: list[_Tag]) -> Flaw | None:
    """Return what is wrong where some tag's size is no multiple of 8: the next one begins elsewhere, most likely."""
    for tag in tags:
        if tag.size % 8:
            return Flaw(
                f"its Multiboot 2 header has a tag of type {tag.kind} and {tag.size} bytes at {tag.at:#x}, behind "
                f"which GRUB looks for the next at {tag.at + (tag.size + 7 & ~7):#x}, and finds none there",
                "put .balign 8 before each tag",
            )
    return None


def _unmet(tag: _Tag) -> Flaw | None:
    """Return what the required *tag* asks for that GRUB does not give, None if it gives all."""
    if tag.optional:
        return None
    if tag.kind not in _KNOWN_TAGS:
        return Flaw(
            f"its Multiboot 2 header requires tag {tag.kind}, which GRUB does not know",
            "make it optional (its flag 1)",
        )
    if tag.kind == _INFORMATION and tag.size < 8:
        return Flaw(f"its Multiboot 2 header has a request of {tag.size} bytes at {tag.at:#x}, too few for a tag")
    unknown = [wanted for wanted in tag.words if wanted not in _KNOWN_INFORMATION]
    if tag.kind == _INFORMATION and unknown and set(unknown) != {_SMBIOS}:
        wanted = next(each for each in unknown if each != _SMBIOS)
        return Flaw(
            f"its Multiboot 2 header requires information {wanted}, which GRUB does not give",
            "make the request optional (its flag 1)",
        )
    return None


def _needs_smbios(tag: _Tag) -> bool:
    return tag.kind == _INFORMATION and not tag.optional and _SMBIOS in tag.words


def _optional_smbios(tag: _Tag) -> Repair:
    return Repair(
        tag.at + 2,
        (tag.flags | 1).to_bytes(2, "little"),
        f"made its request for information {', '.join(map(str, tag.words))} optional: GRUB does not give "
        f"{_SMBIOS} (SMBIOS), and stops at who requires it (unsupported information tag)",
    )


def _with_load_address(tag: _Tag, load_addr: int) -> list[Repair]:
    """Return the repair that gives the address *tag* the load address for which its -1 stands."""
    if not 0 <= load_addr <= 0xFFFFFFFF:
        return []
    return [
        Repair(
            tag.at + 12,
            load_addr.to_bytes(4, "little"),
            f"wrote the load address {load_addr:#x} for the -1 in its Multiboot 2 header, with which GRUB counts "
            "wrong where load_end_addr and bss_end_addr are given",
        )
    ]


def _nowhere(why: str) -> Flaw:
    """Return the flaw of a header that GRUB takes under no firmware."""
    return Flaw(why, _CONSOLE_ADVICE if "requires a console" in why else "")


def _consoles(tags: list[_Tag]) -> list[int]:
    """Return the flags of the console tags."""
    return [tag.words[0] for tag in tags if tag.kind == _CONSOLE and tag.words]


def _not_under(tags: list[_Tag], kinds: tuple[int, ...]) -> Iterator[tuple[Firmware, str]]:
    """Yield the firmwares under which GRUB refuses these tags, and why."""
    consoles = _consoles(tags)
    if any(flags & _CONSOLE_REQUIRED for flags in consoles) and _FRAMEBUFFER not in kinds:
        if not all(flags & _EGA_TEXT for flags in consoles):
            yield Firmware.BIOS, "its Multiboot 2 header requires a console, and takes none that GRUB can give"
        yield (
            Firmware.UEFI,
            "its Multiboot 2 header requires a console, and has no framebuffer tag: UEFI has no VGA text",
        )
    if _EFI_BS in kinds and _ENTRY_EFI64 not in kinds:
        # Whatever its flags; docs/facts/guests.md#other-kernels.
        why = (
            "its Multiboot 2 header has EFI's boot services kept (tag 7) and gives no entry for that (tag 9): GRUB "
            "enters its entry for 32 bits in 64-bit mode; add tag 9, or leave out tag 7"
        )
        yield Firmware.UEFI, why
    if _ADDRESS in kinds and _ENTRY not in kinds:
        why = "its Multiboot 2 header gives load addresses but no entry address"
        if {_EFI_BS, _ENTRY_EFI64} <= set(kinds):
            yield Firmware.BIOS, f"{why} for BIOS (tag 3), only one for UEFI (tag 9)"
        else:
            yield Firmware.BIOS, why
            yield Firmware.UEFI, why
