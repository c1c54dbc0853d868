"""What a file is, by its first (or last) bytes: a row a kind, with what to do where it cannot be used.

Readers of images and of kernels look here, so that both call the same file by the same name.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass

HEAD_BYTES = 0x8006
"""The first bytes of a file, all that rows with a place in front ask for."""
TAIL_BYTES = 512

Role = OneOf["disk", "archive", "compressed", "unread", "file"]
"""``disk``: an image we read. ``archive``, ``compressed``: it may hold one. ``unread``: an image that we do not read.
``file``: something else."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: *name* stands after "is", *hint* says what to do with it."""

    name: str
    role: Role
    magic: bytes
    offset: int = 0
    """Where *magic* stands; negative: from the end."""
    hint: str = ""


_QEMU = "qemu-img convert -O qcow2 makes an image of it that is read"
_ISO = "make an ISO of it with the program it comes from, or one that reads it"
_RESTORE = "restore it to a disk, and take an image of that"
_RBD = (b"diff v1\n", b"diff v2\n", b"image v2\n")
_UNPACK = "unpack it and name what is inside"

BITLOCKER_TO_GO = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")
"""At byte 424 of a boot sector that is a FAT's in all else: what follows is encrypted (libbde, "BitLocker To Go")."""

ZSTD_SKIPPABLE = tuple(bytes([nibble, 0x2A, 0x4D, 0x18]) for nibble in range(0x50, 0x60))
"""How frames begin that zstd skips; pzstd begins with one, and "seekable" files end with one (RFC 8878 §3.1.2)."""

KINDS: tuple[Kind, ...] = (
    Kind("a qcow2 image", "disk", b"QFI\xfb"),
    Kind("a VMDK image", "disk", b"KDMV"),
    Kind("a VMDK descriptor", "disk", b"# Disk DescriptorFile"),
    Kind("a VDI image", "disk", b"\x7f\x10\xda\xbe", 0x40),
    Kind("a VHDX image", "disk", b"vhdxfile"),
    Kind("a VHD image", "disk", b"conectix"),
    Kind("a VHD image", "disk", b"conectix", -512),
    Kind("a VHD image", "disk", b"conectix", -511),
    # Before what stands deeper: that may be a mark of the disk in it.
    Kind("a tar archive", "archive", b"ustar", 257, _UNPACK),
    Kind("a raw disk image", "disk", b"EFI PART", 512),
    *(Kind(f"a raw disk image of {n}-byte sectors", "disk", b"EFI PART", n) for n in (1024, 2048, 4096)),
    Kind("an ISO image", "disk", b"CD001", 0x8001),
    Kind("a squashfs file system", "disk", b"hsqs"),
    Kind("an XFS file system", "disk", b"XFSB"),
    Kind("an NTFS file system", "disk", b"NTFS    ", 3),
    Kind("an exFAT file system", "disk", b"EXFAT   ", 3),
    Kind("a BitLocker-encrypted disk", "unread", BITLOCKER_TO_GO, 424, "decrypt it first"),
    Kind("a FAT file system", "disk", b"FAT12   ", 54),
    Kind("a FAT file system", "disk", b"FAT16   ", 54),
    Kind("a FAT file system", "disk", b"FAT32   ", 82),
    # Images that others read.
    Kind("a VMDK of ESX's old sparse kind (COWD)", "unread", b"COWD", 0, "vmkfstools -i makes a flat VMDK of it"),
    Kind(
        "a VMDK of ESXi's SESPARSE kind",
        "unread",
        b"\xbe\xba\xfe\xca\0\0\0\0",
        0,
        "vmkfstools -i makes a flat VMDK of it",
    ),
    Kind("a LUKS-encrypted disk", "unread", b"LUKS\xba\xbe", 0, "cryptsetup open decrypts it"),
    Kind("a BitLocker-encrypted disk", "unread", b"-FVE-FS-", 3, "decrypt it first"),
    Kind("a QED image", "unread", b"QED\0", 0, _QEMU),
    Kind("a Parallels image", "unread", b"WithoutFreeSpace", 0, _QEMU),
    Kind("a Parallels image", "unread", b"WithouFreSpacExt", 0, _QEMU),
    Kind("a cloop image", "unread", b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", 0, _QEMU),
    Kind("a Bochs image", "unread", b"Bochs Virtual HD Image", 0, _QEMU),
    Kind("a DMG image", "unread", b"koly", -512, _QEMU),
    Kind("an encrypted DMG image", "unread", b"encrcdsa", 0, "hdiutil convert decrypts it"),
    Kind("a WIM archive, which holds files and no disk", "unread", b"MSWIM\0\0\0"),
    Kind("an EWF (E01) forensic image", "unread", b"EVF\x09\x0d\x0a\xff\0", 0, "ewfexport makes a raw disk of it"),
    Kind("an EWF (Ex01) forensic image", "unread", b"EVF2\r\n\x81\0", 0, "ewfexport makes a raw disk of it"),
    Kind("an AFF forensic image", "unread", b"AFF10\r\n\0", 0, "affconvert makes a raw disk of it"),
    Kind("an Android sparse image", "unread", b"\x3a\xff\x26\xed", 0, "simg2img makes a raw disk of it"),
    Kind("a Windows Full Flash Update (FFU)", "unread", b"SignedImage ", 4, "DISM /Apply-Ffu writes it to a disk"),
    Kind("a partclone image", "unread", b"partclone-image", 0, "partclone.restore writes the file system in it"),
    Kind("a Proxmox backup", "unread", b"VMA\0", 0, "vma extract unpacks its disks"),
    Kind("a QEMU snapshot or saved machine", "unread", b"QEVM"),
    Kind("a partimage image", "unread", b"PaRtImAgE-VoLuMe", 0, "partimage restores the file system in it"),
    Kind("an ntfsclone image", "unread", b"\0ntfsclone-image", 0, "ntfsclone --restore-image writes what is in it"),
    Kind("an e2image file", "unread", b"\x10\xb7\x2b\x7f", 0, "e2image -I writes the structures that are in it"),
    Kind("an XFS metadata dump", "unread", b"XFSM", 0, "xfs_mdrestore writes the structures that are in it"),
    Kind("an XFS metadata dump", "unread", b"XMD2", 0, "xfs_mdrestore writes the structures that are in it"),
    Kind("a btrfs metadata dump", "unread", b"\x8bf\x95r\xe2%\\\xbd", 0, "btrfs-image -r writes what is in it"),
    Kind("a btrfs send stream", "unread", b"btrfs-stream\0", 0, "btrfs receive writes the files in it"),
    Kind("a ZFS send stream", "unread", b"\xac\xcb\xba\xf5\2\0\0\0", 8, "zfs receive writes what is in it"),
    Kind("an xfsdump", "unread", b"xFSdump0", 0, "xfsrestore writes the files in it"),
    *(Kind("a Ceph RBD export", "unread", b"rbd " + kind, 0, "rbd import takes it") for kind in _RBD),
    Kind("an fsarchiver archive", "unread", b"FsArCh_00", 0, "fsarchiver restfs writes the file system in it"),
    Kind("a Ghost image", "unread", b"\xfe\xef\x01", 0, _RESTORE),
    Kind("an Acronis backup", "unread", b"\xce\x24\xb9\xa2", 0, _RESTORE),
    Kind("an Apple sparse image", "unread", b"sprs", 0, "hdiutil convert -format UDTO makes a plain image of it"),
    Kind(
        "an Apple sparse image (ASIF)", "unread", b"shdw", 0, "diskutil image create from makes a plain image of it"
    ),
    Kind("a Nero image", "unread", b"NER5", -12, _ISO),
    Kind("a Nero image", "unread", b"NERO", -8, _ISO),
    Kind("an Alcohol descriptor, whose .mdf holds the disc", "unread", b"MEDIA DESCRIPTOR", 0, _ISO),
    Kind("a UIF image", "unread", b"bbis", -64, _ISO),
    Kind("a DAA image", "unread", b"DAA\0", 0, _ISO),
    Kind("a compressed ISO (ISZ)", "unread", b"IsZ!", 0, _ISO),
    Kind("a compressed ISO (CISO)", "unread", b"CISO", 0, _ISO),
    Kind("an ECM-encoded disc", "unread", b"ECM\0", 0, "unecm decodes it"),
    Kind("a saved VirtualBox machine", "unread", b"\x7fVirtualBox SavedState"),
    *(Kind("a saved VMware machine", "unread", bytes([byte]) + b"\xbe\xd2\xbe") for byte in (0xD0, 0xD2)),
    Kind("a saved VMware machine", "unread", b"\xd1\xbe\xd1\xbe"),
    Kind("a machine saved by libvirt", "unread", b"LibvirtQemudSave"),
    Kind("a machine saved by Xen", "unread", b"LinuxGuestRecord"),
    Kind("a CHD image", "unread", b"MComprHD", 0, "chdman extracthd makes a raw disk of it"),
    # What may hold an image.
    Kind("gzip-compressed", "compressed", b"\x1f\x8b", 0, "unpack it with gunzip"),
    Kind("xz-compressed", "compressed", b"\xfd7zXZ\0", 0, "unpack it with unxz"),
    Kind("zstd-compressed", "compressed", b"\x28\xb5\x2f\xfd", 0, "unpack it with unzstd"),
    *(Kind("zstd-compressed", "compressed", magic, 0, "unpack it with unzstd") for magic in ZSTD_SKIPPABLE),
    Kind("bzip2-compressed", "compressed", b"BZh", 0, "unpack it with bunzip2"),
    Kind("lz4-compressed", "unread", b"\x04\x22\x4d\x18", 0, "unpack it with unlz4"),
    Kind("lz4-compressed", "unread", b"\x02\x21\x4c\x18", 0, "unpack it with unlz4"),
    Kind("lzop-compressed", "unread", b"\x89LZO", 0, "unpack it with lzop -d"),
    Kind("lzip-compressed", "unread", b"LZIP", 0, "unpack it with lzip -d"),
    Kind("compressed with compress", "unread", b"\x1f\x9d", 0, "unpack it with uncompress"),
    Kind("rzip-compressed", "unread", b"RZIP", 0, "unpack it with rzip -d"),
    Kind("lrzip-compressed", "unread", b"LRZI", 0, "unpack it with lrzip -d"),
    Kind("a zpaq archive", "unread", b"7kSt\xa0\x31\x83\xd3", 0, _UNPACK),
    Kind("a xar archive", "unread", b"xar!", 0, _UNPACK),
    Kind("lzma-compressed", "unread", b"\x5d\0\0", 0, "unpack it with unlzma"),
    Kind("a zip archive", "unread", b"PK\x03\x04", 0, _UNPACK),
    Kind("a zip archive", "unread", b"PK\x05\x06", 0, _UNPACK),
    Kind("a 7z archive", "unread", b"7z\xbc\xaf\x27\x1c", 0, _UNPACK),
    Kind("a RAR archive", "unread", b"Rar!\x1a\x07", 0, _UNPACK),
    Kind("a cabinet archive", "unread", b"MSCF\0\0\0\0", 0, _UNPACK),
    # What holds none.
    Kind("an archive of object files or a Debian package", "file", b"!<arch>\n"),
    Kind("an RPM package", "file", b"\xed\xab\xee\xdb"),
    Kind("a cpio archive, perhaps an initrd", "file", b"070701"),
    Kind("a cpio archive, perhaps an initrd", "file", b"070702"),
    Kind("a cpio archive", "file", b"070707"),
    Kind("a cpio archive", "file", b"\xc7\x71"),
    Kind("a cpio archive", "file", b"\x71\xc7"),
    Kind("a Mach-O program, for macOS", "file", b"\xfe\xed\xfa\xce"),
    Kind("a Mach-O program, for macOS", "file", b"\xce\xfa\xed\xfe"),
    Kind("a Mach-O program, for macOS", "file", b"\xfe\xed\xfa\xcf"),
    Kind("a Mach-O program, for macOS", "file", b"\xcf\xfa\xed\xfe"),
    Kind("a universal Mach-O program or a Java class", "file", b"\xca\xfe\xba\xbe"),
    Kind("a WebAssembly module", "file", b"\0asm"),
    Kind("a Linux kernel for aarch64", "file", b"ARM\x64", 0x38),
    Kind("a Linux kernel for riscv", "file", b"RSC\x05", 0x38),
    Kind("UEFI firmware, as OVMF", "file", b"_FVH", 0x28),
    Kind("a U-Boot image", "file", b"\x27\x05\x19\x56"),
    Kind("a device tree or FIT image", "file", b"\xd0\x0d\xfe\xed"),
    Kind("an Android boot image", "file", b"ANDROID!"),
    Kind("a script", "file", b"#!"),
    Kind("an SQLite database", "file", b"SQLite format 3\0"),
    Kind("a PDF document", "file", b"%PDF-"),
    Kind("a PNG picture", "file", b"\x89PNG"),
    # Two bytes, which any other kind of file may have there.
    Kind("an ext2, ext3 or ext4 file system", "disk", b"\x53\xef", 0x438),
)
"""The first that fits counts."""


KERNELS: tuple[Kind, ...] = (
    Kind("a Linux kernel", "file", b"HdrS", 0x202),
    Kind("an ELF program or kernel", "file", b"\x7fELF"),
    Kind("a DOS or Windows program, or an EFI application", "file", b"MZ"),
)
"""What readers of kernels know better than by a few bytes."""

_WORDS = 4096
"""The first bytes of a file, in which boot code has the words that tell what it is."""
_CORE = "it is a part of GRUB's core image, which grub-mkimage puts together"
_MBR = "it belongs into the first sector of a disk, in front of the partition table"
_PXE = "a boot server hands it to network cards; ipxe.lkrn (of Debian's package ipxe) can be bundled"


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file of at most *most* bytes with *words* among its first: boot code for something else than a disk image."""

    name: str
    words: bytes
    most: int
    hint: str
    begins: bytes = b""


BOOT_CODE = (
    BootFile("GRUB's boot.img", b"GRUB \0Geom\0Hard Disk\0", 512, _MBR),
    BootFile("GRUB's diskboot.img", b"loading\0.\0\r\n\0Geom\0", 512, _CORE),
    BootFile("GRUB's cdboot.img", b"no boot info\0cdrom read fails\0", 2048, _CORE),
    BootFile("GRUB's pxeboot.img", bytes(505), 1024, _CORE, b"\xb2\x7f\xea\x00\x82\0\0"),
    BootFile(
        "GRUB's loader for Windows' boot manager (g2ldr)",
        b"Missing MBR-helper.",
        16 << 10,
        "bundle the kernel that it starts",
    ),
    BootFile("SYSLINUX' boot code for an MBR", b"Missing operating system.\r\n", 512, _MBR, b"\x33\xc0\xfa\x8e\xd8"),
    BootFile("SYSLINUX' boot code for a GPT disk", b"Missing OS\r\n", 512, _MBR, b"\x33\xc0\xfa\x8e\xd8"),
    BootFile("ISOLINUX' boot code for hybrid ISOs", b"isolinux.bin missing or corrupt.", 512, _MBR),
    BootFile(
        "ISOLINUX, which starts from a CD", b"ISOLINUX ", 64 << 10, "bundle the kernel that it starts", b"\xfa\xea"
    ),
    BootFile("PXELINUX, which network cards load", b"PXELINUX ", 256 << 10, _PXE, b"\xea"),
    BootFile("an iPXE that network cards load", b"PXE->EB:", 2 << 20, _PXE, b"\xea"),
)
"""Of Debian's packages grub-pc-bin, syslinux-common, isolinux, pxelinux and ipxe."""


def boot_code(size: int, read: Callable[[int, int], bytes]) -> Kind | None:
    """Return what boot code the file of *size* bytes that *read* reads is; None if it is none that is known."""
    start = read(0, min(size, _WORDS))
    for code in BOOT_CODE:
        if size <= code.most and start.startswith(code.begins) and code.words in start:
            return Kind(code.name, "file", b"", 0, code.hint)
    return None


ZLIB = Kind("zlib-compressed", "unread", b"", 0, "unpack it with pigz -dz")


def zlib_stream(size: int, read: Callable[[int, int], bytes]) -> Kind | None:
    """Return :data:`ZLIB` if the file of *size* bytes that *read* reads begins such a stream, else None.

    That has no magic, only a header of 16 bits (RFC 1950 §2.2): it is one if its first bytes do unpack.
    """
    start = read(0, min(size, 4096))
    if start[:1] != b"\x78" or int.from_bytes(start[:2], "big") % 31:
        return None
    try:
        return ZLIB if zlib.decompressobj().decompress(start, HEAD_BYTES) else None
    except zlib.error:
        return None


_HIGH = bytes(range(0x80, 0x100))
"""Bytes of letters beyond ASCII. A text has others besides; a flash that is erased has not."""
_TEXT = bytes({7, 8, 9, 10, 12, 13, 27} | set(range(0x20, 0x7F)) | set(range(0x80, 0x100)))


def find(
    size: int, read: Callable[[int, int], bytes], kinds: tuple[Kind, ...] = KINDS, *, tail: bool = True
) -> Kind | None:
    """Return the first of *kinds* that fits the file of *size* bytes that *read* reads; its end only with *tail*."""
    head = read(0, min(size, HEAD_BYTES))
    length = min(size, TAIL_BYTES) if tail else 0
    end = read(size - length, length) if length else b""
    partitioned = has_partitions(head)
    for kind in kinds:
        if partitioned and kind.role == "archive":
            continue  # boot code may hold any word
        data, at = (head, kind.offset) if kind.offset >= 0 else (end, len(end) + kind.offset)
        if at >= 0 and data.startswith(kind.magic, at):
            return kind
    return None


def is_text(start: bytes) -> bool:
    """Return whether *start*, the first bytes of a file, are those of a text."""
    return bool(start.strip(_HIGH)) and not start.translate(None, _TEXT)


def has_partitions(head: bytes) -> bool:
    """Return whether *head* begins with an MBR: flags are set or clear, and some entry has a type and a size."""
    if head[510:512] != b"\x55\xaa":
        return False
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    return all(each[0] in (0, 0x80) for each in entries) and any(each[4] and any(each[12:]) for each in entries)
