"""What a file is that is no kernel, so that the refusal can say it and what to do instead."""

from __future__ import annotations

from rumpbundle.kernels.view import View

_DISK = "bundle the kernel itself; run boots finished images"
_UNPACK = "unpack it and bundle the kernel inside"

_MAGICS: tuple[tuple[int, bytes, str, str], ...] = (
    (0x8001, b"CD001", "is an ISO image", _DISK),
    (0, b"QFI\xfb", "is a qcow2 disk image", _DISK),
    (0, b"KDMV", "is a VMDK disk image", _DISK),
    (0, b"# Disk DescriptorFile", "is a VMDK descriptor", _DISK),
    (0x40, b"\x7f\x10\xda\xbe", "is a VDI disk image", _DISK),
    (0, b"vhdxfile", "is a VHDX disk image", _DISK),
    (0, b"conectix", "is a VHD disk image", _DISK),
    (0x200, b"EFI PART", "is a disk image with a GPT", _DISK),
    (0x438, b"\x53\xef", "is an ext2, ext3 or ext4 file system", ""),
    (0, b"hsqs", "is a squashfs file system", ""),
    (257, b"ustar", "is a tar archive", _UNPACK),
    (0, b"PK\x03\x04", "is a zip archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    (0, b"!<arch>\n", "is an archive of object files or a Debian package", _UNPACK),
    (0, b"070701", "is a cpio archive, perhaps an initrd", "bundle the kernel and give this one as --module"),
    (0, b"070702", "is a cpio archive, perhaps an initrd", "bundle the kernel and give this one as --module"),
    (0, b"\xfd7zXZ\0", "is xz-compressed", "unpack it with unxz and bundle the result"),
    (0, b"\x28\xb5\x2f\xfd", "is zstd-compressed", "unpack it with unzstd and bundle the result"),
    (0, b"BZh", "is bzip2-compressed", "unpack it with bunzip2 and bundle the result"),
    (0, b"\x04\x22\x4d\x18", "is lz4-compressed", "unpack it with unlz4 and bundle the result"),
    (0, b"\x89LZO", "is lzop-compressed", "unpack it with lzop -d and bundle the result"),
    (0, b"\x5d\0\0", "is lzma-compressed", "unpack it with unlzma and bundle the result"),
    (0, b"\xfe\xed\xfa\xce", "is a Mach-O program, for macOS", ""),
    (0, b"\xce\xfa\xed\xfe", "is a Mach-O program, for macOS", ""),
    (0, b"\xfe\xed\xfa\xcf", "is a Mach-O program, for macOS", ""),
    (0, b"\xcf\xfa\xed\xfe", "is a Mach-O program, for macOS", ""),
    (0, b"\xca\xfe\xba\xbe", "is a universal Mach-O program or a Java class", ""),
    (0, b"\0asm", "is a WebAssembly module", ""),
    (
        0x38,
        b"ARM\x64",
        "is a Linux kernel for aarch64",
        "the images are for x86-64 machines: build the kernel for x86-64",
    ),
    (
        0x38,
        b"RSC\x05",
        "is a Linux kernel for riscv",
        "the images are for x86-64 machines: build the kernel for x86-64",
    ),
    (0, b"\x27\x05\x19\x56", "is a U-Boot image", ""),
    (0, b"\xd0\x0d\xfe\xed", "is a device tree or FIT image", ""),
    (0, b"ANDROID!", "is an Android boot image", ""),
    (0, b"#!", "is a script", "bundle a unikernel; a script needs an operating system"),
    (0, b"MZ", "is a DOS or Windows program", ""),
    (0, b"SQLite format 3\0", "is an SQLite database", ""),
    (0, b"%PDF-", "is a PDF document", ""),
    (0, b"\x89PNG", "is a PNG picture", ""),
)

_TEXT = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100)))


def describe(view: View) -> tuple[str, str]:
    """Return what *view* certainly is, as a phrase that begins with "is", and a hint; both empty if unknown."""
    if not view.size:
        return "is empty", ""
    head = view.read(0, 0x8006)
    for offset, magic, problem, hint in _MAGICS:
        if head.startswith(magic, offset):
            return problem, hint
    if head[510:512] == b"\x55\xaa" and _has_partitions(head):
        return "is a disk image with an MBR", _DISK
    return "", ""


def guess(view: View) -> str:
    """Return what *view* seems to be, as a phrase that begins with "is"; empty if nothing comes to mind."""
    start = view.read(0, 4096)
    if not start.strip(b"\0"):
        return "holds only zeros" if len(start) == view.size else "begins with nothing but zeros"
    if not start.translate(None, _TEXT):
        return "is a text file"
    if start[510:512] == b"\x55\xaa":
        return "is a boot sector"
    return ""


def _has_partitions(head: bytes) -> bool:
    """Whether the MBR's table is one: boot flags are set or clear, and some entry has a type and a size."""
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    return all(e[0] in (0, 0x80) for e in entries) and any(e[4] and any(e[12:]) for e in entries)
