"""What a kernel says to Xen: its notes, or the section of old that stands in for them.

xen/include/public/elfnote.h, and xen/common/libelf/libelf-dominfo.c for what Xen makes of it: a kernel without an
ENTRY note is entered where ELF says, and a PV kernel must name itself as made for Xen 3.0 and for the generic loader
or as Linux. Mini-OS and other old kernels have a section ``__xen_guest`` of words KEY=VALUE instead; it counts where
no note has the owner ``Xen``. Each reason here was seen to make Xen 4.17 refuse a kernel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

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
OWNER = "Xen"
"""GNU Mach's notes have the owner ``name``: Xen passes over them."""
_SECTION = "__xen_guest"
_SECTION_BYTES = 4096
_MOST_FIGURES = 1000
"""Of a number that are looked at: Python reads no more than some thousands."""
_ADDRESS = (1 << 64) - 1
_UNSET32 = (1 << 32) - 1
"""A PVH entry that counts as none."""
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
        if note.owner != OWNER or name is None:
            continue
        if name in _TEXTS:
            found[name] = note.value.split(b"\0", 1)[0][:256].decode("latin-1")
        else:
            # Any other length is read as 0 (elf_note_numeric).
            found[name] = int.from_bytes(note.value, "little") if len(note.value) in (1, 2, 4, 8) else 0
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


_FEATURES = (
    "writable_page_tables writable_descriptor_tables auto_translated_physmap supervisor_mode_kernel "
    "pae_pgdir_above_4gb mmu_pt_update_preserve_ad highmem_assist gnttab_map_avail_bits hvm_callback_vector "
    "hvm_safe_pvclock hvm_pirqs dom0 grant_map_identity memory_op_vnode_supported ARM_SMCCC_supported "
    "linux_rsdp_unrestricted not_direct_mapped direct_mapped"
)
"""xen/include/public/features.h."""


def flaw(said: Mapping[str, int | str], elf: Elf, *, pvh: bool, noted: bool) -> str:
    """Return why Xen does not start *elf*, which says *said*, as a PV or as a *pvh* kernel; empty if it does.

    *noted* says whether it says so in notes.
    """
    required = {word[1:] for word in str(said.get("features", "")).split("|") if word.startswith("!")}
    if unknown := sorted(required.difference(_FEATURES.split())):
        return f"it requires a feature that Xen does not know, {unknown[0]}"
    if "dom0" in required:
        return "it runs as Xen's first domain only: it requires the feature dom0"
    if "paddr_offset" in said and "virt_base" not in said:
        return "it says PADDR_OFFSET to Xen, and no VIRT_BASE"
    why = "" if pvh else _pv_refusal(said, elf, required)
    return why or _misplaced(said, elf, pvh=pvh, noted=noted)


def _pv_refusal(said: Mapping[str, int | str], elf: Elf, required: Collection[str]) -> str:
    loader, guest = (str(said.get(name, "")) for name in ("loader", "guest_os"))
    if not loader.startswith("generic") and not guest.startswith("linux"):
        return "Xen loads only kernels made for its generic loader (a LOADER note), or Linux"
    if not str(said.get("xen_version", "")).startswith("xen-3.0"):
        return "Xen loads only kernels made for Xen 3.0 (a XEN_VERSION note that says xen-3.0)"
    pae = str(said.get("pae_mode", ""))
    if elf.machine == "i386" and not pae.startswith("yes") and "bimodal" not in pae:
        return "a 32-bit kernel needs PAE on Xen (a PAE_MODE note that says yes)"
    if "auto_translated_physmap" in required:
        return "it requires the feature auto_translated_physmap, which PV domains do not have"
    return ""


def _misplaced(said: Mapping[str, int | str], elf: Elf, *, pvh: bool, noted: bool) -> str:
    """Return what is wrong with the addresses that *elf* says, by elf_xen_addr_calc_check of libelf-dominfo.c.

    The entry lies between the lowest and the highest address loaded, and the list of its pages (INIT_P2M) does not.
    """
    load = elf.load
    entry = pvh_entry(said) if pvh else said.get("entry", elf.entry)
    if load is None or not isinstance(entry, int):
        return "it has no segments to load"
    base = 0 if pvh else _number(said, "virt_base", 0)
    moved = 0 if pvh else base - _number(said, "paddr_offset", 0 if noted else base)
    first, end = (address + moved & _ADDRESS for address in (load.start, load.stop))
    if base > first:
        return f"its VIRT_BASE, {base:#x}, lies above where it is loaded, {first:#x}"
    if first <= _number(said, "init_p2m", end) < end:
        return "the place for the list of its pages (INIT_P2M) lies inside of it"
    if first <= entry & _ADDRESS < end or (said.get("bsd_symtab") == "yes" and entry >= end):
        return ""
    return f"it is entered at {entry:#x}, outside of what is loaded, {first:#x}-{end - 1:#x}"


def _number(said: Mapping[str, int | str], name: str, default: int) -> int:
    value = said.get(name, default)
    return value if isinstance(value, int) else default


def pvh_entry(said: Mapping[str, int | str]) -> int | None:
    """Return where Xen and QEMU enter a PVH kernel that says *said*; None if it is none."""
    entry = said.get("phys32_entry")
    # Xen keeps 32 bits of it.
    found = entry & _UNSET32 if isinstance(entry, int) else _UNSET32
    return found if found != _UNSET32 else None
