"""What a file is that is no kernel, so that the refusal can say it and what to do instead."""

from __future__ import annotations

from rumpbundle.disk import signatures
from rumpbundle.disk.signatures import Kind
from rumpbundle.errors import FinishedImageError, KernelError
from rumpbundle.kernels.view import View

_IMAGE = "rumpbundle convert makes other formats of a finished image, rumpbundle run boots it"
ELSEWHERE = "the images are for x86-64 machines: build the kernel for x86-64"
_UNPACK = "unpack it and bundle the kernel inside"
_INITRD = "bundle the kernel and give this one as --module"
_INITRD_NAME = "initr"
"""What initrd.img-6.1.0, initramfs-linux.img and their like have in common."""
PROGRAM = "bundle a unikernel or a kernel with a Multiboot header; a program needs an operating system"
_HINTS = {
    "a cpio archive, perhaps an initrd": _INITRD,
    "a cpio archive": _UNPACK,
    "a tar archive": _UNPACK,
    "a zip archive": _UNPACK,
    "a 7z archive": _UNPACK,
    "an archive of object files or a Debian package": _UNPACK,
    "a Linux kernel for aarch64": ELSEWHERE,
    "a Linux kernel for riscv": ELSEWHERE,
    "a Linux kernel for 32-bit ARM": ELSEWHERE,
    "a script": "bundle a unikernel; a script needs an operating system",
    "a DOS or Windows program": PROGRAM,
    "a Mach-O program, for macOS": PROGRAM,
    "a universal Mach-O program or a Java class": PROGRAM,
    "a WebAssembly module": PROGRAM,
    "an RPM package": _UNPACK,
    "a U-Boot image": "take out the kernel with dumpimage (of U-Boot's tools) and bundle that",
    "a device tree or FIT image": "bundle a kernel for PCs; dumpimage takes one out of a FIT image",
    "an Android boot image": "take out the kernel with unpack_bootimg and bundle that",
    "UEFI firmware, as OVMF": "bundle what the firmware is to start; rumpbundle run finds the firmware itself",
}
"""What to do with a file of each name, where a kernel is expected."""
_INSIDE = "; of a disk image in it, rumpbundle convert makes other formats"
_RAW = "a raw disk image"
_ONLY_HERE = (
    Kind("a DOS or Windows program", "file", b"MZ"),
    Kind("a Linux kernel for 32-bit ARM", "file", b"\x18\x28\x6f\x01", 0x24),
)
"""Where a kernel is expected these mean something; at the start of a disk they might be chance."""


def describe(view: View, name: str = "") -> KernelError | None:
    """Return what *view*, a file called *name*, certainly is other than a kernel, as the error to raise."""
    if not view.size:
        return KernelError("is empty")
    kind = signatures.find(view.size, view.read, (*signatures.KINDS, *_ONLY_HERE))
    found = "" if kind is None else kind.name
    if (kind is None or kind.name == "an ISO image") and signatures.has_partitions(view.read(0, 512)):
        found = _RAW  # a hybrid is a disk as well
    if found == _RAW and name.lower().endswith(".iso"):
        found = "an ISO image"
    if found == _RAW or (kind is not None and kind.role == "disk"):
        return FinishedImageError(f"is {found}", hint=_IMAGE)
    if kind is None:
        return None
    hint = _HINTS.get(kind.name, kind.hint)
    if kind.name.endswith("-compressed") and _INITRD_NAME in name.lower():
        return KernelError(f"is {kind.name}, and by its name an initrd", hint=_INITRD)
    if hint.startswith("unpack it with"):
        hint += " and bundle the result"
    if kind.role in ("compressed", "archive"):
        hint += _INSIDE
    return KernelError(f"is {kind.name}", hint=hint or None)


def unpacked(view: View, name: str) -> KernelError | None:
    """Return the same of a gzip file called *name* whose content *view* is, or begins with."""
    if not view.size or view.read(0, 4) == b"\x7fELF" or view.read(0, 2) == b"MZ":
        return None  # a kernel as likely as not
    found = describe(view, name)
    return None if found is None else after_gunzip(found)


def after_gunzip(error: KernelError) -> KernelError:
    """Return *error*, which is about the content of a gzip file, as one about that file."""
    return type(error)(f"{error.problem} (after gunzip)", hint=error.hint)


def guess(view: View) -> str:
    """Return what *view* seems to be, as a phrase that begins with "is"; empty if nothing comes to mind."""
    start = view.read(0, 4096)
    if not start.strip(b"\0"):
        return "holds only zeros" if len(start) == view.size else "begins with nothing but zeros"
    if signatures.is_text(start):
        return "is a text file"
    if start[510:512] == b"\x55\xaa":
        return "is a boot sector"
    if start[:2] == b"\x55\xaa":
        return "is an option ROM"
    if _is_aout(start[:4]):
        return "is an a.out program or kernel without a Multiboot header"
    if start[:2] in _COFF and len(start) >= 20 and not any(start[16:18]):
        return "is an object file (COFF), which is not linked"
    return ""


_COFF = (b"\x4c\x01", b"\x64\x86")
"""How object files for i386 and x86-64 begin; an optional header, of which they say the size, is none there."""


def _is_aout(head: bytes) -> bool:
    """Whether *head* is the magic number of an a.out file (a.out(5)), for i386 of one of the systems that had it."""
    for order in ("little", "big"):
        word = int.from_bytes(head, order)
        if word & 0xFFFF in (0o407, 0o410, 0o413, 0o314) and word >> 16 in (0, 100, 134):
            return True
    return False
