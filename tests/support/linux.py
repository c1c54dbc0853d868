"""A real Linux guest: Debian's kernel, and an initrd of busybox and the modules it needs, packed by our own cpio."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rumpbundle.disk.content import Content
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.tree import Directory, File
from rumpbundle.filesystems import cpio
from support.debian import debian_file, debian_tree

PACKAGE = "linux-image-amd64"
MODULES = ("virtio_pci", "virtio_blk", "ahci", "sd_mod", "ext4", "isofs", "crc32c_generic")
"""What a disk on virtio or AHCI with ext2 or ISO 9660 takes; Debian builds all of it as modules."""


def kernel() -> Path:
    """Return Debian's generic kernel."""
    return debian_file(PACKAGE, "boot/vmlinuz-*")


def initrd(path: Path, script: str, modules: Sequence[str] = MODULES) -> Path:
    """Write an initrd to *path* that loads *modules*, runs *script* with busybox's shell, and powers off."""
    busybox = Content.of_file(InputFile(debian_file("busybox-static", "bin/busybox")))
    init = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
{script}
sync
poweroff -f
"""
    files = [
        File(f"{number:02}.ko", Content.of_file(InputFile(module)))
        for number, module in enumerate(_load_order(modules))
    ]
    root = Directory.of(
        "",
        [
            Directory.of("bin", [File("busybox", busybox, 0o755)]),
            Directory.of("modules", files),
            File("init", Content.of_bytes(init.encode()), 0o755),
        ],
    )
    path.write_bytes(cpio.archive(root, mount="/", epoch=0).read())
    return path


def _load_order(modules: Sequence[str]) -> list[Path]:
    """Return the files of *modules* and of all they depend on, in the order in which they load."""
    files = {path.stem.replace("-", "_"): path for path in debian_tree(PACKAGE).glob("lib/modules/*/kernel/**/*.ko")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        path = files[name]
        if path in ordered:
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for other in filter(None, (depends[1] if depends else b"").decode().split(",")):
            add(other.replace("-", "_"))
        ordered.append(path)

    for name in modules:
        add(name)
    return ordered
