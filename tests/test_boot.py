"""Images boot: every firmware, bus, format and protocol, asserted by the guest's own words and its exit code."""

from __future__ import annotations

import itertools

import pytest
from support import images, kernels, qemu
from support.kernels import Module, Report

import rumpbundle
from rumpbundle import formats

pytestmark = pytest.mark.boot

CONTENT = bytes(range(256)) * 5000 + b"an odd end"
ODD = 5
"""An exit code no crash gives: QEMU makes 2 n + 1 of what the guest writes."""


def boots(image, *, arguments, modules=(), protocol="multiboot", **where):
    """Boot *image* and check what its kernel reports."""
    result = qemu.boot(image, **where)
    report = Report.parse(result.serial)
    assert (report.protocol, report.arguments, report.modules) == (protocol, arguments, tuple(modules))
    assert result.status == 2 * ODD + 1
    return result


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Return a function that gives the image of a format: the Multiboot kernel with a module."""
    made = {}

    def make(format, subformat=""):
        if (format, subformat) not in made:
            made[format, subformat] = images.make(
                tmp_path_factory.mktemp("image"),
                kernels.build("multiboot"),
                format,
                subformat=subformat,
                cmdline=f"exit={ODD} words",
                modules=[("module", CONTENT, "its text")],
            )
        return made[format, subformat]

    return make


WORDS = {"arguments": f"multiboot exit={ODD} words", "modules": [Module.of(CONTENT, b"its text")]}


@pytest.mark.parametrize("bus", ["cd", "ahci", "virtio", "scsi", "nvme", "usb"])
@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
@pytest.mark.parametrize("format", ["iso", "raw"])
def test_boots_from_every_bus(image, format, firmware, bus):
    boots(image(format), firmware=firmware, bus=bus, **WORDS)


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
@pytest.mark.parametrize(
    ("format", "subformat"),
    [pytest.param(*f, id="-".join(filter(None, f))) for f in images.disk_formats() if f[0] not in ("iso", "raw")],
)
def test_every_disk_format_boots(image, format, subformat, firmware):
    boots(image(format, subformat), firmware=firmware, fmt=images.DISK_DRIVERS[format], **WORDS)


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
@pytest.mark.parametrize("format", sorted({*formats.names()} - {*images.DISK_DRIVERS}))
def test_every_kit_boots(tmp_path, format, firmware):
    app = kernels.build("multiboot")
    output = tmp_path / f"app{formats.find(format).suffix}"
    (path, *_) = rumpbundle.bundle(app, format, output=output, cmdline=f"exit={ODD} words").paths
    with rumpbundle.run(path, accel="tcg", firmware=firmware) as guest:
        ending = guest.wait(180)
    assert Report.parse(guest.console.text.encode()).arguments == f"{app.name} exit={ODD} words"
    assert ending.status == ODD


@pytest.mark.parametrize(
    ("firmware", "bus"),
    [
        *itertools.product(["bios"], ["ide", "ahci", "lsilogic", "lsisas", "pvscsi"]),
        *itertools.product(["uefi"], ["ide", "ahci"]),  # Debian's OVMF has no driver for the others
    ],
)
@pytest.mark.parametrize("format", ["vmdk", "vdi", "vhd", "ova"])
def test_boots_from_the_controllers_of_vmware_and_virtualbox(image, format, firmware, bus):
    boots(image(format), firmware=firmware, bus=bus, fmt=images.DISK_DRIVERS[format], **WORDS)


@pytest.mark.parametrize(
    ("kernel", "protocol", "firmware", "says"),
    [
        ("multiboot2-services", "auto", "uefi", "this kernel cannot start under UEFI firmware; use BIOS"),
        ("multiboot2-services-long", "auto", "uefi", "this kernel cannot start under UEFI firmware; use BIOS"),
        ("multiboot2-services-long", "multiboot2", "uefi", "64-bit mode\n"),
        ("multiboot2-services-64", "multiboot2", "uefi", "64-bit mode\n"),
        ("multiboot2-services", "auto", "bios", "testkernel multiboot2\n"),
        ("multiboot2-services-both", "auto", "uefi", "testkernel multiboot\n"),
    ],
    ids=["uefi", "long-uefi", "long-insisted-uefi", "64-insisted-uefi", "bios", "both-uefi"],
)
def test_boot_services_without_an_entry_for_them(tmp_path, kernel, protocol, firmware, says):
    """What is judged is what GRUB does: it enters in 64-bit mode then."""
    image = images.make(tmp_path, kernels.build(kernel), protocol=protocol)
    qemu.boot(image, firmware=firmware, until=says.replace("\n", r"\r?\n"))


@pytest.mark.parametrize(
    ("kernel", "firmware"),
    [
        *itertools.product(["multiboot2", "multiboot-both", "linux"], qemu.FIRMWARES),
        ("linux16", "bios"),
        ("efi", "uefi"),
    ],
)
def test_every_protocol_boots(tmp_path, kernel, firmware):
    protocol = {"multiboot-both": "multiboot2", "linux16": "linux"}.get(kernel, kernel)
    text = "its text" if protocol == "multiboot2" else ""
    modules = [] if kernel == "efi" else [("module", CONTENT, text)]
    image = images.make(tmp_path, kernels.build(kernel), cmdline=f"exit={ODD} words", modules=modules)
    boots(
        image,
        firmware=firmware,
        protocol=protocol,
        arguments=f"{kernel} exit={ODD} words" if protocol == "multiboot2" else f"exit={ODD} words",
        modules=[Module.of(content, text.encode()) for _, content, text in modules],
    )


@pytest.mark.parametrize(
    "kernel",
    ["multiboot-gz", "multiboot-kludge", "multiboot-elf64", "multiboot-late", "multiboot-overlap", "multiboot2-late"],
)
def test_every_kind_of_kernel_file_boots(tmp_path, kernel):
    made = images.make(tmp_path, kernels.build(kernel), cmdline=f"exit={ODD}")
    boots(made, arguments=f"{kernel} exit={ODD}", protocol=kernel.split("-")[0])


def test_the_wrong_firmware_is_told_so(tmp_path):
    made = images.make(tmp_path, kernels.build("efi"))
    result = qemu.boot(made, until="Halting")
    assert "rumpbundle: this kernel cannot start under BIOS firmware; use UEFI." in result.text


def test_a_machine_without_serial_port_boots(tmp_path):
    """GRUB must not stop at a COM1 that is not there; the screen then shows why a kernel does not start."""
    made = images.make(tmp_path, kernels.build("multiboot"), cmdline=f"exit={ODD}")
    result = qemu.boot(made, extra=["-vga", "std"], serial=False)
    assert result.status == 2 * ODD + 1
