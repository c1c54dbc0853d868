"""What a kernel says to Xen: its notes, or the section of old that stands in for them.

xen/include/public/elfnote.h, and xen/common/libelf/libelf-dominfo.c for what Xen makes of it: a kernel without an
ENTRY note is entered where ELF says, and a PV kernel must name itself as made for Xen 3.0 and for the generic loader
or as Linux. Mini-OS and other old kernels have a section ``__xen_guest`` of words KEY=VALUE instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rumpbundle.kernels.elf import Elf
from rumpbundle.kernels.notes import ElfNote
from rumpbundle.kernels.view import View

NAMES = {
    1: "entry",
    2: "hypercall_page",
    3: "virt_base",
    4: "paddr_offset",
    5: "xen_version",
    6: "guest_os",
    7: "guest_version",
    8: "loader",
    9: "pae_mode",
    10: "features",
    11: "bsd_symtab",
    12: "hv_start_low",
    14: "suspend_cancel",
    15: "init_p2m",
    17: "supported_features",
    18: "phys32_entry",
}
_TEXTS = frozenset(("xen_version", "guest_os", "guest_version", "loader", "pae_mode", "features", "bsd_symtab"))
OWNERS = frozenset(("Xen", "name"))
"""The second is what GNU Mach's assembler source says."""
_SECTION = "__xen_guest"
_SECTION_BYTES = 4096
_MOST_FIGURES = 1000
"""Of a number that are looked at: Python reads no more than some thousands."""
_ADDRESS = (1 << 64) - 1
_KEYS = {
    "VIRT_ENTRY": "entry",
    "HYPERCALL_PAGE": "hypercall_page",
    "VIRT_BASE": "virt_base",
    "ELF_PADDR_OFFSET": "paddr_offset",
    "XEN_VER": "xen_version",
    "GUEST_OS": "guest_os",
    "GUEST_VER": "guest_version",
    "LOADER": "loader",
    "PAE": "pae_mode",
    "FEATURES": "features",
    "BSD_SYMTAB": "bsd_symtab",
}


def read(view: View, elf: Elf, notes: tuple[ElfNote, ...]) -> dict[str, int | str]:
    """Return what *elf* says to Xen by name, numbers as numbers; empty if nothing."""
    return _of_notes(notes) or _of_section(view, elf)


def _of_notes(notes: tuple[ElfNote, ...]) -> dict[str, int | str]:
    found: dict[str, int | str] = {}
    for note in notes:
        name = NAMES.get(note.type)
        if note.owner not in OWNERS or name is None:
            continue
        if name in _TEXTS:
            found[name] = note.value.split(b"\0", 1)[0][:256].decode("latin-1")
        elif len(note.value) in (4, 8):
            found[name] = int.from_bytes(note.value, "little")
    return found


def _of_section(view: View, elf: Elf) -> dict[str, int | str]:
    section = next((s for s in elf.sections if s.name == _SECTION), None)
    if section is None:
        return {}
    text = view.read(section.offset, min(section.size, _SECTION_BYTES)).split(b"\0", 1)[0].decode("latin-1")
    found: dict[str, int | str] = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        name = _KEYS.get(key.strip())
        if name is None:
            continue
        found[name] = value[:256] if name in _TEXTS else _c_number(value)
    return found


_C_NUMBER = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]*)|([1-9][0-9]*))")


def _c_number(text: str) -> int:
    """Return what *text* begins with as C's strtoull reads it with base 0: in 64 bits, and 0 for nothing."""
    match = _C_NUMBER.match(text)
    if match is None:
        return 0
    sign, *digits = match.groups()
    base, figures = next((base, each) for base, each in zip((16, 8, 10), digits, strict=True) if each is not None)
    value = min(int(figures[:_MOST_FIGURES] or "0", base), _ADDRESS)
    return -value & _ADDRESS if sign == "-" else value


_PV = frozenset(("entry", "hypercall_page", "virt_base", "loader"))
"""A kernel with any of these is for Xen's PV domain builder; a PVH kernel has but its own entry."""


def is_pv(said: Mapping[str, int | str]) -> bool:
    """Whether a kernel that says *said* is meant for Xen's PV domain builder; PVH alone is not that."""
    return not _PV.isdisjoint(said)


def pv_refusal(said: Mapping[str, int | str]) -> str:
    """Return why Xen's domain builder refuses a PV kernel that says *said*, empty if it takes it."""
    loader, guest = (str(said.get(name, "")) for name in ("loader", "guest_os"))
    if not loader.startswith("generic") and not guest.startswith("linux"):
        return "Xen loads only kernels made for its generic loader (a LOADER note), or Linux"
    if not str(said.get("xen_version", "")).startswith("xen-3.0"):
        return "Xen loads only kernels made for Xen 3.0 (a XEN_VERSION note that says xen-3.0)"
    return ""


def misplaced(said: Mapping[str, int | str], elf: Elf, *, pvh: bool, noted: bool) -> str:
    """Return why Xen does not enter *elf*, which says *said*, as a PV or as a *pvh* kernel; empty if it does.

    *noted* says whether it says so in notes. libelf-dominfo.c, elf_xen_addr_calc_check: the entry lies between the
    lowest and the highest address loaded.
    """
    load = elf.load
    entry = said.get("phys32_entry" if pvh else "entry", elf.entry)
    if load is None or not isinstance(entry, int):
        return "it has no segments to load"
    base = 0 if pvh else _number(said, "virt_base", 0)
    moved = 0 if pvh else base - _number(said, "paddr_offset", 0 if noted else base)
    first, end = (address + moved & _ADDRESS for address in (load.start, load.stop))
    if first <= entry & _ADDRESS < end or (said.get("bsd_symtab") == "yes" and entry >= end):
        return ""
    return f"it is entered at {entry:#x}, outside of what is loaded, {first:#x}-{end - 1:#x}"


def _number(said: Mapping[str, int | str], name: str, default: int) -> int:
    value = said.get(name, default)
    return value if isinstance(value, int) else default


def pvh_entry(said: Mapping[str, int | str]) -> int | None:
    """Return where Xen and QEMU enter a PVH kernel that says *said*; None if it is none."""
    entry = said.get("phys32_entry")
    return entry if isinstance(entry, int) else None
