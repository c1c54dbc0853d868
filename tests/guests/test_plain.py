"""Kernels of no known family, and the contract every family shares."""

from __future__ import annotations

import dataclasses

import pytest

from rumpbundle.config import Config
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory
from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests import Data, Request, Writable, deliver
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Module

KERNEL = Unikernel(
    name="app.bin", content=Content.of_bytes(b"k"), family=Family.PLAIN, protocols=(Protocol.MULTIBOOT,)
)


def request(protocol: Protocol = Protocol.MULTIBOOT, **changes) -> Request:
    boot = {Firmware.BIOS: protocol, Firmware.UEFI: protocol}
    return dataclasses.replace(Request(kernel=KERNEL, boot=boot, epoch=0), **changes)


@pytest.mark.parametrize(
    ("protocol", "text", "argv0", "received"),
    [
        (Protocol.MULTIBOOT, None, True, "app.bin"),
        (Protocol.MULTIBOOT, "a b", True, "app.bin a b"),
        (Protocol.MULTIBOOT2, "a", True, "app.bin a"),
        (Protocol.MULTIBOOT, "a", False, "a"),
        (Protocol.MULTIBOOT, None, False, ""),
        (Protocol.LINUX, "quiet", True, "quiet"),
        (Protocol.EFI, "x", True, "x"),
    ],
)
def test_multiboot_kernels_get_their_name_first(protocol, text, argv0, received):
    assert deliver(request(protocol, cmdline=text, argv0=argv0)).cmdline == received


def test_a_name_stays_one_word():
    kernel = dataclasses.replace(KERNEL, name='my "app" {1}\\.bin')
    assert deliver(request(kernel=kernel, cmdline="x")).cmdline == "my__app___1__.bin x"


def test_modules_pass_in_order():
    modules = (Module("b", Content.of_bytes(b"1"), "text"), Module("a", Content.of_bytes(b"2")))
    assert deliver(request(modules=modules)).modules == modules


def test_what_it_cannot_mount_is_refused():
    with pytest.raises(UsageError, match="mount"):
        deliver(request(data=(Data(Directory(""), "/data"),)))
    with pytest.raises(UsageError, match="mount"):
        deliver(request(volumes=(Writable(Directory(""), "/data"),)))


def test_a_configuration_is_refused():
    with pytest.raises(ConfigError, match="configuration"):
        deliver(request(config=Config(hostname="web")))
    assert deliver(request(config=Config())) == deliver(request())


def test_xen_needs_dom0():
    xen = dataclasses.replace(KERNEL, name="xen.gz", family=Family.XEN)
    with pytest.raises(UsageError, match="dom0"):
        deliver(request(Protocol.MULTIBOOT2, kernel=xen))
    dom0 = (Module("vmlinuz", Content.of_bytes(b"1"), "console=hvc0"),)
    found = deliver(request(Protocol.MULTIBOOT2, kernel=xen, modules=dom0, cmdline="dom0_mem=256M"))
    assert (found.cmdline, found.modules) == ("xen.gz dom0_mem=256M", dom0)


@pytest.mark.parametrize("mount", ["", "data", "/a/../b", "/a//b", "/./a", "/a/", "/a\nb"])
def test_mount_points_are_absolute_and_plain(mount):
    with pytest.raises(UsageError):
        Data(Directory(""), mount)


@pytest.mark.parametrize("mount", ["/", "/data", "/var/lib/x y"])
def test_good_mount_points(mount):
    assert Data(Directory(""), mount).mount == mount
