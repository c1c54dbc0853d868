"""The names everything else speaks of kernels by."""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """A way to start a kernel that an image of ours can use; the name is GRUB's command."""

    MULTIBOOT = "multiboot"
    MULTIBOOT2 = "multiboot2"
    LINUX = "linux"
    LINUX16 = "linux16"
    EFI = "efi"
    DISK = "disk"
    """Whatever the disk itself starts: of a finished image that is not ours, nobody knows more."""


class Firmware(StrEnum):
    BIOS = "bios"
    UEFI = "uefi"


class Family(StrEnum):
    """Who wrote the kernel, as far as the file tells; it decides how configuration reaches the guest."""

    RUMPRUN = "rumprun"
    SOLO5 = "solo5"
    UNIKRAFT = "unikraft"
    LINUX = "linux"
    XEN = "xen"
    HERMIT = "hermit"
    PLAIN = "plain"
