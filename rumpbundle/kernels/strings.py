"""Who made a kernel and which drivers it holds, by the texts and symbols in it (docs/facts/guests.md#rumprun)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rumpbundle.kernels.elf import Elf
from rumpbundle.kernels.view import View

LIMIT = 64 << 20
"""Bytes searched at most: what names a kernel stands in its first megabytes."""

_PROGBITS, _STRTAB = 1, 3
_SILENT = (".text", ".debug", ".eh_frame", ".rel", ".init", ".fini")
"""Sections that hold no texts of interest, and often most of the file."""

RUMPRUN = b"_RUMPRUN_ROOTFSCFG="
RUMPRUN_HW = b"rump kernel bare metal bootstrap"
UNIKRAFT = b"Unikraft"
XEN = b"Xen version %d"
GNU_MACH = b"GNU Mach "
INVADERS = b"  YOU  LOSE"
SOLO5_SINGLE = b": not configured\n"
"""What Solo5's virtio binding says of every block and network device after the first of a kind, in the versions that
drive but one each (bindings/virtio/pci.c until its pull request 581)."""
MARKS = (RUMPRUN, RUMPRUN_HW, UNIKRAFT, XEN, GNU_MACH, INVADERS)
"""What tells families, and kernels with known troubles, apart."""

RUMPRUN_DRIVERS: Mapping[bytes, str] = {
    # The names NetBSD's config(1) gives the drivers; also the ends of their symbols' names.
    b"ld_virtio\0": "virtio-blk",
    b"vioscsi\0": "virtio-scsi",
    b"umass\0": "usb",
    b"vioif\0": "virtio-net",
    b"Intel i82540EM": "e1000",
    b"xenif\0": "xen-net",
}
UNIKRAFT_DRIVERS: Mapping[bytes, str] = {b"virtio-blk\0": "virtio-blk", b"virtio-net\0": "virtio-net"}


def search(view: View, elf: Elf | None, needles: Iterable[bytes]) -> frozenset[bytes]:
    """Return those of *needles* that occur in *view*; of an ELF file, in its sections of texts and names."""
    wanted = set(needles)
    overlap = max(map(len, wanted), default=1) - 1
    found: set[bytes] = set()
    left = LIMIT
    for offset, size in _places(view, elf):
        for chunk in view.chunks(offset, min(size, left), overlap):
            found |= {needle for needle in wanted - found if needle in chunk}
            if found == wanted:
                return frozenset(found)
        left -= min(size, left)
    return frozenset(found)


def _places(view: View, elf: Elf | None) -> list[tuple[int, int]]:
    sections = elf.sections if elf is not None else ()
    texts = [
        (s.offset, s.size)
        for s in sections
        if s.type in (_PROGBITS, _STRTAB) and s.size and not s.name.startswith(_SILENT)
    ]
    if any(s.name.startswith(".rodata") for s in sections):
        return texts
    return [(0, view.size)]
