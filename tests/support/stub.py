"""A bundle with stub boot images: quick to plan, and the same on every machine."""

from __future__ import annotations

from rumpbundle.bootloader.bootimages import BootImages
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Bundle

IMAGES = BootImages(
    version="stub",
    mbr=bytes(range(256)) * 2,
    bios=b"BIOS image ".ljust(16, b".") * 600,
    efi=b"MZ" + b"EFI image ".ljust(16, b".") * 2000,
)


def kernel(name: str = "app.bin", content: bytes = b"kernel " * 1000, **more) -> Unikernel:
    """Return a kernel value without a file."""
    values = {"family": Family.PLAIN, "protocols": (Protocol.MULTIBOOT,)}
    return Unikernel(name=name, content=Content.of_bytes(content), **(values | more))


def bundle(root: Directory | None = None, **more) -> Bundle:
    """Return a bundle of the stub kernel; *more* replaces its fields."""
    values = {
        "name": "app",
        "kernel": kernel(),
        "firmware": tuple(Firmware),
        "boot": dict.fromkeys(Firmware, Protocol.MULTIBOOT),
        "root": root or Directory(""),
        "epoch": 1_000_000_000,
        "grub": IMAGES.facts,
    }
    return Bundle(**(values | more))
