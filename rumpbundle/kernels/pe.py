"""PE32+ images, which EFI applications are (Microsoft "PE Format"; UEFI Specification 2.1.1)."""

from __future__ import annotations

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.view import View

MACHINES = {
    0x014C: "i386",
    0x01C0: "arm",
    0x01C2: "arm",
    0x01C4: "arm",
    0x8664: "x86-64",
    0xAA64: "aarch64",
    0x5032: "riscv32",
    0x5064: "riscv64",
    0x6264: "loongarch64",
}
EFI_APPLICATION, EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER = 10, 11, 12
MAX_SECTIONS = 96
"""The most the Windows loader takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pe:
    """A PE image."""

    bits: int
    """64 for PE32+, 32 for PE32, 0 if the file ends before it says."""
    machine: str
    subsystem: int
    sections: tuple[str, ...]
    flaw: str = ""
    """Why 64-bit PC firmware does not start it, empty if it does."""

    @property
    def is_efi(self) -> bool:
        return self.subsystem in (EFI_APPLICATION, EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER)

    @property
    def is_uki(self) -> bool:
        """Whether it is a unified kernel image: Linux, initrd and command line in one EFI application."""
        return ".linux" in self.sections

    @property
    def detail(self) -> str:
        """One phrase for people."""
        return f"PE32{'+' if self.bits == 64 else ''} {self.machine}, subsystem {self.subsystem}"


def read(view: View) -> Pe | None:
    """Return the PE image *view* is, or None if it is none."""
    dos = view.read(0, 64)
    if dos[:2] != b"MZ" or len(dos) < 64:
        return None
    at = int.from_bytes(dos[60:64], "little")
    header = view.unpack("<4sHHIIIHH", at)
    if header is None or header[0] != b"PE\0\0":
        return None
    _, machine, count, _, _, _, optional_size, _ = header
    magic = view.unpack("<H", at + 24)
    # It stands at the same place in PE32 and PE32+.
    subsystem = view.unpack("<H", at + 24 + 68)
    name = MACHINES.get(machine, f"machine {machine:#x}")
    if magic is None or subsystem is None or magic[0] not in (0x10B, 0x20B):
        return Pe(
            bits=0,
            machine=name,
            subsystem=0,
            sections=(),
            flaw="is truncated in its PE header",
        )
    names, end = _sections(view, at + 24 + optional_size, min(count, MAX_SECTIONS))
    flaw = ""
    if end > view.size:
        flaw = f"is truncated: its PE sections reach to byte {end}, the file has {view.size}"
    elif subsystem[0] in (EFI_BOOT_DRIVER, EFI_RUNTIME_DRIVER):
        flaw = "is an EFI driver, which no firmware boots"
    elif subsystem[0] != EFI_APPLICATION:
        flaw = "is a Windows program"
    elif name != "x86-64":
        flaw = f"is an EFI application for {name}"
    return Pe(
        bits=64 if magic[0] == 0x20B else 32,
        machine=name,
        subsystem=subsystem[0],
        sections=names,
        flaw=flaw,
    )


def _sections(view: View, at: int, count: int) -> tuple[tuple[str, ...], int]:
    """Return the names of the sections and where the last one's data ends in the file."""
    names: list[str] = []
    end = 0
    for index in range(count):
        row = view.read(at + index * 40, 40)
        if len(row) < 40:
            return tuple(names), view.size + 1
        names.append(row[:8].rstrip(b"\0").decode("latin-1"))
        size, start = (int.from_bytes(row[i : i + 4], "little") for i in (16, 20))
        if size and start:
            end = max(end, start + size)
    return tuple(names), end
