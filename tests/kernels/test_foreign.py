from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile

import pytest
from support import synthetic
from support.synthetic import Segment

from rumpbundle.disk.content import Content
from rumpbundle.errors import KernelError
from rumpbundle.kernels import foreign, packed
from rumpbundle.kernels.unikernel import Unikernel, examine
from rumpbundle.kernels.view import View


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("kernel"))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("kernel", b"")
        archive.writestr("another", b"")
    return buffer.getvalue()


def mbr(status: int = 0x80, kind: int = 0x83) -> bytes:
    sector = bytearray(b"\xeb\x63" + bytes(510))
    sector[446:462] = bytes([status, 0, 0, 0, kind, 0, 0, 0]) + (64).to_bytes(4, "little") * 2
    sector[510:] = b"\x55\xaa"
    return bytes(sector) + bytes(512)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (tar(), "is a tar archive"),
        (tar()[:512] + bytes(1536) + b"EFI PART" + bytes(504), "is a tar archive"),
        (mbr()[:257] + b"ustar" + mbr()[262:], "is a raw disk image"),
        (zipped(), "is a zip archive"),
        (bytes(0x8001) + b"CD001", "is an ISO image"),
        (b"QFI\xfb" + bytes(100), "is a qcow2 image"),
        (b"KDMV" + bytes(100), "is a VMDK image"),
        (b"\xfd7zXZ\0" + bytes(100), "is xz-compressed"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "is zstd-compressed"),
        (b"\xcf\xfa\xed\xfe" + bytes(100), "is a Mach-O program, for macOS"),
        (b"MZ" + bytes(100), "is a DOS or Windows program"),
        (b"#!/bin/sh\n", "is a script"),
        (b"070701" + b"0" * 100, "is a cpio archive, perhaps an initrd"),
        (b"\x02\x21\x4c\x18" + bytes(100), "is lz4-compressed"),
        (b"070707" + b"0" * 100, "is a cpio archive"),
        (bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(100), "is a Linux kernel for 32-bit ARM"),
        (bytes(40) + b"_FVH" + bytes(100), "is UEFI firmware, as OVMF"),
        (b"\x27\x05\x19\x56" + bytes(100), "is a U-Boot image"),
        (b"\xd0\x0d\xfe\xed" + bytes(100), "is a device tree or FIT image"),
        (bytes(0x38) + b"ARM\x64" + bytes(100), "is a Linux kernel for aarch64"),
        (mbr(), "is a raw disk image"),
        (bytes(512) + b"EFI PART" + bytes(100), "is a raw disk image"),
        (bytes(54) + b"FAT12   " + bytes(448) + b"\x55\xaa", "is a FAT file system"),
        (bytes(82) + b"FAT32   " + bytes(420) + b"\x55\xaa", "is a FAT file system"),
        (bytes(3) + b"NTFS    " + bytes(499) + b"\x55\xaa", "is an NTFS file system"),
        (b"XFSB" + bytes(508), "is an XFS file system"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_known_for_certain(data, problem):
    error = foreign.describe(View.of_bytes(data))
    assert error is not None
    assert str(error) == problem


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello\n", "is a text file"),
        ("grüß dich\n".encode(), "is a text file"),
        (bytes(100), "holds only zeros"),
        (bytes(5000), "begins with nothing but zeros"),
        (mbr(kind=0), "is a boot sector"),
        (mbr(status=0x41), "is a boot sector"),
        (b"\x55\xaa\x40" + bytes(600), "is an option ROM"),
        ((0o407).to_bytes(4, "little") + bytes(60), "is an a.out program or kernel without a Multiboot header"),
        (b"\0\x86\x01\x0b" + bytes(60), "is an a.out program or kernel without a Multiboot header"),
        (b"\x64\x86\x01\0" + bytes(60), "is an object file (COFF), which is not linked"),
        (b"\x64\x86\x01\0" + bytes(12) + b"\xf0" + bytes(60), ""),
        (b"\x01\x02\x03", ""),
    ],
    ids=[
        "ascii",
        "utf-8",
        "zeros",
        "hole",
        "empty-table",
        "code-where-the-table-is",
        "rom",
        "omagic",
        "netbsd",
        "coff",
        "linked",
        "anything",
    ],
)
def test_what_is_a_guess(data, problem):
    view = View.of_bytes(data)
    assert foreign.describe(view) is None
    assert foreign.guess(view) == problem


@pytest.mark.parametrize("name", foreign._HINTS)
def test_what_is_told_to_do_something_is_of_a_known_kind(name):
    assert name in {kind.name for kind in (*foreign.signatures.KINDS, *foreign._ONLY_HERE)}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("FreeBSD", [Segment(synthetic.note(b"Xen", 6, b"FreeBSD\0") + synthetic.note(b"Xen", 18, bytes(8)), 4)]),
        ("FreeBSD", [Segment(b"/red/herring\0", synthetic.INTERP)]),
        ("OpenBSD", [Segment(synthetic.note(b"OpenBSD", 1, bytes(4)), 4)]),
        ("NetBSD", [Segment(synthetic.note(b"NetBSD", 1, bytes(4)), 4)]),
    ],
)
def test_the_kernel_of_a_bsd_is_its_own_loaders(tmp_path, name, more):
    path = tmp_path / "kernel"
    high = Segment(b"\x90" * 64, vaddr=0xFFFFFFFF80200000, paddr=0x200000)
    path.write_bytes(synthetic.elf([high, *more]))
    with pytest.raises(
        KernelError, match=f"is the kernel of {name}, which only its own boot loader starts"
    ) as caught:
        Unikernel.read(path)
    assert f"an image of {name} itself" in caught.value.hint


REQUEST = struct.pack("<QQ", 0xC7B1DD30DF4C8B88, 0x0A82E883A194F07B)


@pytest.mark.parametrize(
    ("name", "code", "section"),
    [
        ("Limine", bytes(100) + REQUEST, ".limine_requests"),
        (r"Limine \(stivale2\)", bytes(64), ".stivale2hdr"),
        ("the Rust crate bootloader", bytes(64), ".bootloader-config"),
    ],
)
def test_the_kernel_of_another_loader(tmp_path, name, code, section):
    path = tmp_path / "kernel"
    high = Segment(code, vaddr=0xFFFFFFFF80200000, paddr=0x200000)
    path.write_bytes(synthetic.elf([high], [synthetic.Section(section, b"12345678")]))
    with pytest.raises(KernelError, match=f"only the boot loader it is made for starts: {name}$") as caught:
        Unikernel.read(path)
    assert "Multiboot 2" in caught.value.hint
    path.write_bytes(synthetic.elf([high, Segment(b"/lib/ld.so\0", synthetic.INTERP)]))
    with pytest.raises(KernelError, match="is an ordinary dynamically linked program"):
        Unikernel.read(path)


LARGE = bytes(packed.LIMIT)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"070701" + bytes(104), "is a cpio archive, perhaps an initrd (after gunzip)"),
        (mbr(), "is a raw disk image (after gunzip)"),
        (b"\x7fELF" + bytes(600), None),
        (b"MZ" + bytes(600), None),
    ],
    ids=["initrd", "disk", "kernel", "application"],
)
@pytest.mark.parametrize(
    ("compressed", "otherwise"),
    [
        (lambda content: gzip.compress(content + LARGE, 1), "is a gzip file that unpacks to more than 48 MiB"),
        (
            lambda content: gzip.compress(content) + gzip.compress(b"more"),
            "is damaged, or a gzip file of several parts",
        ),
        (lambda content: gzip.compress(content) + gzip.compress(bytes(700)), "is a gzip file with more behind its"),
    ],
    ids=["large", "members", "larger-members"],
)
def test_the_content_of_a_gzip_file_that_is_not_unpacked_is_told(content, problem, compressed, otherwise):
    """Who follows the advice to unpack an initrd, or a disk, has no kernel."""
    view = View.of_bytes(compressed(content))
    with pytest.raises(KernelError) as caught:
        examine("file.gz", view, Content.of_bytes(b""))
    assert caught.value.problem.startswith(problem or otherwise)
    assert ("gunzip and bundle" in caught.value.hint) == (problem is None)


@pytest.mark.parametrize(
    "start", [b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"BZh9", b"\x5d\0\0\x80", b"\x89LZO\0\r\n\x1a\n"]
)
def test_an_initrd_is_known_by_its_name(start):
    for name in ("initrd.img-6.1.0-9-amd64", "initramfs-linux.img"):
        error = foreign.describe(View.of_bytes(start + bytes(600)), name)
        assert str(error).endswith("-compressed, and by its name an initrd")
        assert error.hint == foreign._INITRD
    assert "initrd" not in str(foreign.describe(View.of_bytes(start + bytes(600)), "vmlinux.z"))
