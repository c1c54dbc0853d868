"""Why a file that carries no usable boot protocol is refused, and what its owner can do instead."""

from __future__ import annotations

from rumpbundle.disk import signatures
from rumpbundle.errors import KernelError
from rumpbundle.kernels import elf, foreign, linux, strings
from rumpbundle.kernels.elf import Elf
from rumpbundle.kernels.kernelfile import KernelFile
from rumpbundle.kernels.multiboot import Header
from rumpbundle.kernels.pe import Pe

_RELINK = "link it again: the entry that its notes name must lie in one of its segments"
_RENOTE = "build it again with the notes that Xen wants (xen/include/public/elfnote.h)"
_ELSEWHERE = (
    "take the disk image that is made with that, or give the kernel an entry for Multiboot 2 as well; rumpbundle run "
    "and convert take the image"
)
_BOOTS = "bundle a kernel: an ELF file with a Multiboot header, a Linux bzImage or an EFI application"
_JOIN = "join it with what it starts: cat lnxboot.img core.img, for GRUB's"
_AGAIN = "copy it again from where it comes, or build it again"


def of_kernel(file: KernelFile) -> tuple[str, str]:
    """Return why no disk image boots this kernel and what to do; both empty if it is no kernel at all."""
    problem, advice = _of_kernel(file)
    return problem, advice or (_AGAIN if _is_broken(problem) else "")


def _is_broken(problem: str) -> bool:
    return problem.startswith(("is truncated", "is damaged", "is a damaged"))


def _of_kernel(file: KernelFile) -> tuple[str, str]:
    if file.solo5 and file.solo5 != "virtio":
        return _solo5(file.solo5)
    if file.elf is not None:
        return _elf_kernel(file, file.elf)
    if file.pe is not None:
        return _pe_kernel(file.pe) if file.pe.is_efi or not file.pe.bits else _of(file.placed)
    if file.setup is not None and file.setup.flaw:
        return file.setup.flaw, _JOIN if file.setup.flaw == linux.NOTHING_BEHIND else ""
    return _by_header(file)


def _solo5(target: str) -> tuple[str, str]:
    tender = {"hvt": "solo5-hvt", "spt": "solo5-spt", "muen": "the Muen separation kernel", "xen": "Xen"}.get(target)
    only = f", which only {tender} starts" if tender else ""
    advice = "build it for the virtio target (mirage configure -t virtio)"
    if target == "xen":
        advice = f"make a Xen kit of it (rumpbundle xen), or {advice}"
    return f"is a Solo5 unikernel for {target}{only}", advice


def _pe_kernel(image: Pe) -> tuple[str, str]:
    if not image.flaw:
        return (
            "is a gzip-compressed EFI application, which no firmware unpacks",
            "unpack it with gunzip and bundle the result",
        )
    return image.flaw, image.advice if image.machine == "x86-64" else foreign.ELSEWHERE


def _elf_kernel(file: KernelFile, found: Elf) -> tuple[str, str]:
    if found.machine not in ("i386", "x86-64") and not found.flaw:
        marks = (file.multiboot1, file.multiboot2, file.has_unikraft_sections, file.xen, file.solo5)
        return (f"is a kernel for {found.machine}", foreign.ELSEWHERE) if any(marks) else ("", "")
    if "HERMIT" in file.owners and file.multiboot1 is None and file.multiboot2 is None:
        return (
            "is a HermitOS application, which HermitOS' loader starts",
            "bundle hermit-loader-x86_64-multiboot and give it this file as its first module: --module FILE",
        )
    if file.is_vmlinux:
        by_xen = "; Xen can start this one: rumpbundle xen" if file.xen else ""
        return (
            "is an uncompressed Linux kernel (vmlinux), which no boot loader on a disk starts",
            f"bundle its bzImage (vmlinuz) instead{by_xen}",
        )
    if file.is_xen_pv and not file.pv_flaw:
        return "is a Xen PV kernel, which only Xen's domain builder starts", "make a Xen kit of it: rumpbundle xen"
    if file.multiboot1 is not None or file.multiboot2 is not None:
        # Programs that deal with kernels hold the magic number too.
        return ("", "") if _is_ordinary(found) else _by_header(file)
    if file.has_unikraft_sections:
        return (
            "is a Unikraft kernel without a Multiboot header, as Firecracker boots it (lxboot)",
            "build it for the qemu platform with Multiboot, or as an EFI stub",
        )
    if other := _of_a_system(file, found) or _of_a_loader(file, found):
        return other
    if file.is_xen_pv or (file.pvh_entry is not None and file.pvh_flaw):
        kind, flaw = ("Xen PV", file.pv_flaw) if file.is_xen_pv else ("PVH", file.pvh_flaw)
        return f"is a {kind} kernel that Xen does not start: {flaw}", _RELINK if "is entered" in flaw else _RENOTE
    if file.pvh_entry is not None:
        return (
            "is a kernel that can only be entered by PVH, which no boot loader on a disk does",
            "make a Xen kit of it (rumpbundle xen), or build it with a Multiboot header",
        )
    return "", ""


_LOADERS = {"FreeBSD": "loader(8)", "NetBSD": "boot(8)", "OpenBSD": "boot(8)", "DragonFly": "loader(8)"}


def _of_a_system(file: KernelFile, found: Elf) -> tuple[str, str] | None:
    """Return what to say of the kernel of a BSD, which has a boot loader of its own; None if it is none."""
    name = next((name for name in file.owners if name in _LOADERS), str(file.xen.get("guest_os", "")))
    if file.interpreter == "/red/herring":
        name = "FreeBSD"
    # Their programs have the same notes; the kernel alone needs no dynamic linker and is linked to the upper half.
    if name not in _LOADERS or (_interpreter(found) and name != "FreeBSD") or found.entry < _UPPER_HALF[found.bits]:
        return None
    by_pvh = file.pvh_entry is not None and not file.pvh_flaw
    elsewhere = "Xen (rumpbundle xen) and QEMU's -kernel start it too, by PVH; " if by_pvh else ""
    return (
        f"is the kernel of {name}, which only its own boot loader starts, {_LOADERS[name]}",
        f"{elsewhere}for a disk take an image of {name} itself",
    )


_SECTIONS = {
    ".bootloader-config": "the Rust crate bootloader",
    ".stivale2hdr": "Limine (stivale2)",
    ".stivalehdr": "Limine (stivale)",
}
"""Sections of kernels that other loaders start (rust-osdev/bootloader; the stivale specifications)."""


def _of_a_loader(file: KernelFile, found: Elf) -> tuple[str, str] | None:
    """Return what to say of a kernel that is for another boot loader than GRUB; None if it is none."""
    loader = next((_SECTIONS[section.name] for section in found.sections if section.name in _SECTIONS), "")
    if not loader and not _is_ordinary(found) and strings.search(file.view, None, [strings.LIMINE]):
        loader = "Limine"
    if not loader:
        return None
    return f"is a kernel that only the boot loader it is made for starts: {loader}", _ELSEWHERE


_UPPER_HALF = {32: 0xC000_0000, 64: 0xFFFF_8000_0000_0000}


def _by_header(file: KernelFile) -> tuple[str, str]:
    """Return what is wrong with the Multiboot header, if there is one."""
    return _of(next((h for h in (file.multiboot2, file.multiboot1) if h is not None), None))


def _of(header: Header | None) -> tuple[str, str]:
    return (header.flaw, header.advice) if header is not None else ("", "")


def of_other(file: KernelFile, name: str) -> KernelError:
    """Return what a file called *name* is that is no kernel, as the error to raise."""
    if file.elf is None:
        known = foreign.describe(file.view, name)
        if known is None and (code := signatures.boot_code(file.view.size, file.view.read)) is not None:
            return KernelError(f"is {code.name}", hint=code.hint)
        if known is None:
            return KernelError(foreign.guess(file.view) or "is no kernel of any known kind", hint=_BOOTS)
        return known
    problem, hint = _of_elf(file.elf)
    return KernelError(problem, hint=hint or (_AGAIN if _is_broken(problem) else _BOOTS))


def of_neither(error: KernelError) -> KernelError:
    """Return *error*, of a file that is no disk image either, for who only looks at it: not how to bundle."""
    if error.hint != _BOOTS:
        return error
    problem = f"{error.problem}, and is no disk image"
    return KernelError(problem, where=error.where, hint="give a kernel or a disk image")


def _of_elf(found: Elf) -> tuple[str, str]:
    """Return what the ELF file is, as a phrase that begins with a verb, and what to do instead."""
    if found.flaw:
        return found.flaw, ""
    if found.type not in (elf.ET_EXEC, elf.ET_DYN):
        names = {section.name for section in found.sections}
        if ".gnu.linkonce.this_module" in names:
            return "is a module of a Linux kernel", "bundle the kernel (vmlinuz), with the module in its initrd"
        if ".modname" in names:
            return "is a module of GRUB", _BOOTS
        return {
            elf.ET_REL: ("is a relocatable object file", "link it first"),
            elf.ET_CORE: ("is a core dump", ""),
        }.get(found.type, ("is an ELF file, but no executable one", ""))
    where = "" if found.machine in ("i386", "x86-64") else f" for {found.machine}"
    if found.is_library:
        return f"is a shared library{where}", foreign.PROGRAM
    if _interpreter(found):
        return f"is an ordinary dynamically linked program{where}", foreign.PROGRAM
    if where:
        return f"is a program or kernel{where}", foreign.ELSEWHERE
    return (
        "is an ELF program without a boot header: an ordinary static program, or a kernel nothing can boot",
        foreign.PROGRAM,
    )


def _is_ordinary(found: Elf) -> bool:
    """Whether it is an object file, a shared library or a program for a dynamic linker."""
    return found.type not in (elf.ET_EXEC, elf.ET_DYN) or found.is_library or _interpreter(found)


def _interpreter(found: Elf) -> bool:
    return any(s.type == elf.PT_INTERP for s in found.segments)
