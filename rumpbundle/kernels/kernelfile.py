"""Everything there is to read in one kernel file, before anybody judges it."""

from __future__ import annotations

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels import elf, linux, multiboot, multiboot2, notes, pe, xen
from rumpbundle.kernels.view import View


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile:
    """The parts of a kernel file; None stands for a part it does not have."""

    view: View
    elf: elf.Elf | None
    pe: pe.Pe | None
    setup: linux.Setup | None
    multiboot1: multiboot.Header | None
    multiboot2: multiboot.Header | None
    is_vmlinux: bool
    """It is Linux, as an ELF file instead of a bzImage."""
    xen: dict[str, int | str]
    solo5: str
    """The Solo5 target it was built for, or empty."""
    devices: tuple[notes.Device, ...]
    owners: frozenset[str]
    """Who wrote notes into it."""
    interpreter: str
    """The dynamic linker it names, or empty."""

    @classmethod
    def read(cls, view: View) -> KernelFile:
        found = elf.read(view)
        noted = notes.read(view, found) if found is not None else ()
        return cls(
            view=view,
            elf=found,
            pe=pe.read(view) if found is None else None,
            setup=linux.read(view) if found is None else None,
            multiboot1=multiboot.read1(view, found),
            multiboot2=multiboot2.read2(view, found),
            is_vmlinux=found is not None and found.type == elf.ET_EXEC and any(n.owner == "Linux" for n in noted),
            xen=xen.read(view, found, noted) if found is not None else {},
            solo5=notes.solo5_target(noted),
            devices=notes.solo5_devices(noted),
            owners=frozenset(note.owner for note in noted),
            interpreter=elf.interpreter(view, found) if found is not None else "",
        )

    @property
    def is_xen_pv(self) -> bool:
        """Whether Xen's domain builder can start it as a paravirtual guest; PVH alone is not that."""
        return xen.is_pv(self.xen)

    @property
    def pvh_entry(self) -> int | None:
        return xen.pvh_entry(self.xen)

    @property
    def pv_flaw(self) -> str:
        """Why Xen does not enter it as a PV kernel, though it is one; empty if nothing is known to be in the way."""
        return self._xen_flaw(self.is_xen_pv, pvh=False)

    @property
    def pvh_flaw(self) -> str:
        """The same of a PVH kernel."""
        return self._xen_flaw(self.pvh_entry is not None, pvh=True)

    def _xen_flaw(self, able: bool, *, pvh: bool) -> str:
        if self.elf is None:
            return self.setup.xen_flaw if self.setup is not None else ""
        if not able:
            return ""
        if self.elf.machine not in ("i386", "x86-64"):
            return f"it is a kernel for {self.elf.machine}"
        return xen.flaw(self.xen, self.elf, pvh=pvh, noted=xen.OWNER in self.owners)

    @property
    def placed(self) -> multiboot.Header | None:
        """The Multiboot header by whose addresses GRUB loads it, whatever kind of file it is otherwise."""
        headers = (self.multiboot2, self.multiboot1)
        return next((each for each in headers if each is not None and each.load is not None), None)

    @property
    def has_unikraft_sections(self) -> bool:
        return self.elf is not None and any(s.name.startswith(".uk_") for s in self.elf.sections)

    @property
    def machine(self) -> str:
        if self.elf is not None:
            return self.elf.machine
        if self.setup is not None:
            return self.setup.machine
        return self.pe.machine if self.pe is not None else "i386"

    @property
    def is_flat(self) -> bool:
        """Whether it has none of the outer forms a kernel usually has; a Multiboot header may do without."""
        return self.elf is None and self.pe is None and self.setup is None

    @property
    def executable(self) -> str:
        """The outer form: ``ELF32``, ``ELF64``, ``PE32+``, ``PE32`` or ``flat``."""
        if self.elf is not None:
            return f"ELF{self.elf.bits}"
        if self.pe is not None:
            return "PE32+" if self.pe.bits == 64 else "PE32"
        return "flat"
