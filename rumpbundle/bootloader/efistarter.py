"""A small EFI application that starts another one with arguments: what firmware itself has no way to say.

A firmware starts ``EFI/BOOT/BOOTX64.EFI`` without arguments. GRUB's ``chainloader`` can give some, but names the
device of its own root as the one the application comes from: from a CD that is the whole disc, on which no
application finds its files. This one loads the other from the very volume that it came from itself, be that on a
disk, a stick or a CD, and the firmware fills in the rest.

Microsoft "PE Format"; UEFI Specification 2.10, §4.3 (system table), §4.4 (boot services), §7.4 (image services),
§9.1 (EFI_LOADED_IMAGE_PROTOCOL), §10.3.5.4 (file paths).
"""

from __future__ import annotations

import struct

from rumpbundle.errors import InputError

_CODE = bytes.fromhex(
    "53 56 57 4154 4155 4883ec40"  # push rbx, rsi, rdi, r12, r13; sub rsp, 0x40
    "4889cb 4989d4 488b7260"  # rbx = our handle; r12 = system table; rsi = boot services
    "488d1524010000 4c8d442430 ff9698000000"  # HandleProtocol(our handle, loaded image, &[rsp+0x30])
    "4885c0 0f85e3000000"  # an error: fail
    "488b4c2430 488b4918"  # rcx = the device it came from
    "488d1510010000 4c8d442430 ff9698000000"  # HandleProtocol(device, device path, &[rsp+0x30])
    "4885c0 0f85bf000000"
    "4c8b6c2430 4c89ef"  # r13 = rdi = the device path
    "803f7f 7409 0fb74702 4801c7 ebf2 4c29ef"  # rdi = its length up to the end node
    "b902000000 8b15e8000000 4801fa 4c8d442438 ff5640"  # AllocatePool(data, rdi + size of the node, &[rsp+0x38])
    "4885c0 0f8587000000"
    "4889f9 488b7c2438 4c87ee f3a4"  # copy the device path; r13 keeps the boot services
    "488d3548010000 8b0dba000000 f3a4"  # and the node of the other's path behind it
    "4c87ee"  # rsi = boot services; r13 = the arguments, which follow the node
    "31c9 4889da 4c8b442438 4531c9 4c894c2420 488d442430 4889442428 ff96c8000000"  # LoadImage(path, &[rsp+0x30])
    "4885c0 7541"
    "488b7c2430 4889f9 488d155f000000 4c8d442430 ff9698000000"  # HandleProtocol(the other, loaded image, …)
    "4885c0 7522"
    "488b442430 8b0d68000000 894830 4c896838"  # its LoadOptionsSize and LoadOptions
    "4889f9 31d2 4531c0 ff96d0000000 eb15"  # StartImage(the other); done
    "4889c3 498b4c2440 488d1546000000 ff5108 4889d8"  # fail: ConOut->OutputString(message), keep the status
    "4883c440 415d 415c 5f 5e 5b c3"  # done: return the status
).ljust(0x140, b"\xcc")
"""Written by hand; the tests compare it with what objdump reads. The data it refers to follows it at once."""

_LOADED_IMAGE = bytes.fromhex("a1311b5b6295d2118e3f00a0c969723b")
_DEVICE_PATH = bytes.fromhex("916e57093f6dd2118e3900a0c969723b")
_MESSAGE = "rumpbundle: the firmware does not start this application\r\n"
_MESSAGE_BYTES = 128
_PAGE, _FILE_ALIGN = 4096, 512
_READ_EXECUTE = 0x60000020


def starter(path: str, arguments: str) -> bytes:
    r"""Return the PE file that starts the application at *path* (``\EFI\…``) of its own volume with *arguments*.

    Raises:
        InputError: *arguments* is no text, which EFI applications are given.
    """
    try:
        options = f"{arguments}\0".encode("utf-16-le")
    except UnicodeEncodeError:
        raise InputError("an EFI application is given text, and this is not UTF-8", where=repr(arguments)) from None
    if "\0" in arguments:
        raise InputError("a NUL byte ends an EFI application's arguments", where=repr(arguments))
    name = f"{path}\0".encode("utf-16-le", "surrogatepass")
    # A file path and the end of the device path.
    node = struct.pack("<BBH", 4, 4, 4 + len(name)) + name + struct.pack("<BBH", 0x7F, 0xFF, 4)
    sizes = struct.pack("<II", len(node), len(options))
    message = f"{_MESSAGE}\0".encode("utf-16-le").ljust(_MESSAGE_BYTES, b"\0")
    return _pe(b"".join((_CODE, _LOADED_IMAGE, _DEVICE_PATH, sizes, message, node, options)))


def _pe(section: bytes) -> bytes:
    """Return an EFI application of one section, which begins with its entry point and needs no relocation."""
    raw = -(-len(section) // _FILE_ALIGN) * _FILE_ALIGN
    image = _PAGE + -(-len(section) // _PAGE) * _PAGE
    dos = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", 0x8664, 1, 0, 0, 0, 240, 0x22)
    optional = struct.pack("<HBBIIIII", 0x20B, 0, 0, raw, 0, 0, _PAGE, _PAGE)
    optional += struct.pack(
        "<QIIHHHHHHIIIIHH", 0, _PAGE, _FILE_ALIGN, 0, 0, 0, 0, 1, 0, 0, image, _FILE_ALIGN, 0, 10, 0x100
    )
    optional += struct.pack("<QQQQII", 0, 0, 0, 0, 0, 16) + bytes(16 * 8)
    header = struct.pack("<8sIIIIIIHHI", b".text", len(section), _PAGE, raw, _FILE_ALIGN, 0, 0, 0, 0, _READ_EXECUTE)
    return (dos + coff + optional + header).ljust(_FILE_ALIGN, b"\0") + section.ljust(raw, b"\0")
