"""The paravirtual disk as GRUB Legacy reads it, of which PV-GRUB is the Xen build."""

from __future__ import annotations

import dataclasses
import random

import pytest
from support.debian import debian_file
from support.kernels import SUCCESS, Module, Report, build
from support.qemu import boot
from support.tools import output_of

from rumpbundle import hybrid
from rumpbundle.disk.content import Content
from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.layout import MIB
from rumpbundle.kernels.unikernel import Unikernel
from rumpbundle.manifest import Bundle
from rumpbundle.manifest import Module as BootModule
from rumpbundle.xen import pvgrub


@pytest.mark.boot
def test_grub_legacy_follows_the_menu(tmp_path):
    """A Multiboot kernel stands in for the PV kernel: GRUB Legacy on a PC starts that, from the same tree."""
    kernel = dataclasses.replace(
        Unikernel.read(build("multiboot")), protocols=(), refusal="for this test", xen_notes=(("entry", 0),)
    )
    payload = random.Random(1).randbytes(3 * MIB + 1234)
    bundle = Bundle(
        name="app",
        kernel=kernel,
        firmware=(),
        boot={},
        cmdline="one two",
        modules=(BootModule("data", Content.of_bytes(payload)),),
        epoch=0,
        grub={},
    )
    assert pvgrub.starts(bundle)
    pvgrub.check(bundle)
    disk = tmp_path / "disk.raw"
    with disk.open("w+b") as out:
        write_flat(hybrid.plan(bundle, None).padded(align=MIB), out.fileno())

    # On a PC a Multiboot kernel gets its modules by another word than a Linux gets its initrd.
    text = disk.read_bytes()
    assert text.count(b"\n  initrd /boot/modules/0/data\n") == 1
    disk.write_bytes(text.replace(b"\n  initrd /boot/modules/0/data\n", b"\n  module /boot/modules/0/data\n"))

    tree = tmp_path / "cd"
    (tree / "boot/grub").mkdir(parents=True)
    stage2 = debian_file("grub-legacy", "usr/lib/grub/*/stage2_eltorito")
    (tree / "boot/grub/stage2_eltorito").write_bytes(stage2.read_bytes())
    (tree / "boot/grub/menu.lst").write_text("timeout 0\ntitle x\nconfigfile (hd0)/boot/grub/menu.lst\n")
    cd = tmp_path / "cd.iso"
    flags = ["-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-b", "boot/grub/stage2_eltorito"]
    output_of("genisoimage", "-quiet", "-R", *flags, "-o", str(cd), str(tree))

    drives = ["-drive", f"if=none,id=hd,format=raw,snapshot=on,file={disk}", "-device", "ide-hd,drive=hd"]
    drives += ["-drive", f"if=none,id=cd,media=cdrom,file={cd}", "-device", "ide-cd,bus=ide.1,drive=cd,bootindex=0"]
    result = boot(None, extra=drives)
    assert result.status == SUCCESS
    report = Report.parse(result.serial)
    assert report.cmdline == b"/boot/kernel/multiboot one two"
    assert report.modules == (Module.of(payload, b"/boot/modules/0/data"),)
