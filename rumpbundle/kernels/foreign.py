"""What a file is that is no kernel, so that the refusal can say it and what to do instead."""

from __future__ import annotations

from rumpbundle.disk import signatures
from rumpbundle.disk.signatures import Kind
from rumpbundle.errors import FinishedImageError, KernelError
from rumpbundle.kernels.view import View

_IMAGE = "rumpbundle convert makes other formats of a finished image, rumpbundle run boots it"
_X86 = "the images are for x86-64 machines: build the kernel for x86-64"
_INITRD = "bundle the kernel and give this one as --module"
_HINTS = {
    "a cpio archive, perhaps an initrd": _INITRD,
    "a tar archive": "unpack it and bundle the kernel inside",
    "a zip archive": "unpack it and bundle the kernel inside",
    "a 7z archive": "unpack it and bundle the kernel inside",
    "an archive of object files or a Debian package": "unpack it and bundle the kernel inside",
    "a Linux kernel for aarch64": _X86,
    "a Linux kernel for riscv": _X86,
    "a script": "bundle a unikernel; a script needs an operating system",
}
"""What to do with a file of each name, where a kernel is expected."""
_INSIDE = "; of a disk image in it, rumpbundle convert makes other formats"
_RAW = "a raw disk image"
_PROGRAM = Kind("a DOS or Windows program", "file", b"MZ")


def describe(view: View, name: str = "") -> KernelError | None:
    """Return what *view*, a file called *name*, certainly is other than a kernel, as the error to raise."""
    if not view.size:
        return KernelError("is empty")
    kind = signatures.find(view.size, view.read, (*signatures.KINDS, _PROGRAM))
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
    if hint.startswith("unpack it with"):
        hint += " and bundle the result"
    if kind.role in ("compressed", "archive"):
        hint += _INSIDE
    return KernelError(f"is {kind.name}", hint=hint or None)


def guess(view: View) -> str:
    """Return what *view* seems to be, as a phrase that begins with "is"; empty if nothing comes to mind."""
    start = view.read(0, 4096)
    if not start.strip(b"\0"):
        return "holds only zeros" if len(start) == view.size else "begins with nothing but zeros"
    if signatures.is_text(start):
        return "is a text file"
    if start[510:512] == b"\x55\xaa":
        return "is a boot sector"
    return ""
