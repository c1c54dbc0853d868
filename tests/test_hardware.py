"""The knowledge tables against QEMU: a kernel looks at the machine each row describes and says what is there."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from support import kernels
from support.images import make
from support.qemu import boot

from rumpbundle import knowledge

pytestmark = pytest.mark.boot

DISK_CLASSES = {"ide": "0101", "ahci": "0106", "nvme": "0108", "usb": "0c03"}
VIRTIO = {"virtio-net": "0001", "virtio-blk": "0002", "virtio-scsi": "0008"}
"""PCI subsystem ids: virtio 0.9.5 (legacy), §2.1."""
CARDS = {"e1000": "8086:100e", "e1000e": "8086:10d3", "vmxnet3": "15ad:07b0", "rtl8139": "10ec:8139"}


GUESTS = [
    knowledge.guest(family, target)
    for family, target in knowledge.guests()
    if family in ("rumprun", "solo5")
    and knowledge.guest(family, target).disk.virtio == "legacy"
    and knowledge.guest(family, target).disk.drives
]
"""Those that drive virtio's legacy registers, and nothing but virtio."""


@dataclass(frozen=True)
class Device:
    id: str
    kind: str
    subsystem: str
    ports: bool
    """Whether its first base address is in I/O space: where legacy virtio has its registers."""
    sectors: int
    """The size a virtio disk tells through them."""

    def legacy_virtio(self, name: str) -> bool:
        return self.id.startswith("1af4:") and self.subsystem == VIRTIO[name] and self.ports


@dataclass(frozen=True)
class Machine:
    numbers: dict[str, int]
    devices: tuple[Device, ...]

    @classmethod
    def look(cls, image, *arguments, firmware="bios") -> Machine:
        """Boot *image*, attached by *arguments*, and return what its kernel reports."""
        drive = ("-drive", f"if=none,id=boot,format=raw,snapshot=on,file={image}")
        run = boot(None, firmware=firmware, extra=(*drive, *arguments), timeout=120)
        assert run.status == kernels.SUCCESS, run.text
        numbers = {m[1]: int(m[2], 16) for m in re.finditer(r"^([a-z0-9-]+) ([0-9a-f]{8})$", run.text, re.MULTILINE)}
        devices = [line.split() for line in re.findall(r'^pci "(.*)"$', run.text, re.MULTILINE)]
        return cls(numbers, tuple(Device(i, k, s, io == "i", int(n, 16)) for i, k, s, io, n in devices))

    def disks(self) -> set[str]:
        """The buses a disk can hang on here, beyond what the machine always has."""
        found = {name for name, kind in DISK_CLASSES.items() if any(d.kind == kind for d in self.devices)}
        return found | {n for n in ("virtio-blk", "virtio-scsi") if any(d.legacy_virtio(n) for d in self.devices)}


def attached(bus: knowledge.Bus) -> list[str]:
    machine = ["-machine", bus.machine] if bus.machine else []
    return machine + [word for each in bus.device for word in ("-device", each.format(drive="boot"))]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return make(tmp_path_factory.mktemp("hardware"), kernels.build("hardware"), "raw")


@pytest.mark.parametrize("name", knowledge.qemu().buses)
def test_each_bus_boots_and_is_what_the_guest_finds(image, name):
    machine = Machine.look(image, *attached(knowledge.qemu().buses[name]))
    # A pc has an IDE controller whatever else it has; the CD hangs on AHCI.
    assert machine.disks() == {"ide", "ahci" if name == "cd" else name}
    for guest in GUESTS:
        assert bool(set(guest.disk.drives) & machine.disks()) == (name in guest.disk.drives)
    sizes = {device.sectors for device in machine.devices if device.legacy_virtio("virtio-blk")}
    assert sizes == ({image.stat().st_size // 512} if name == "virtio-blk" else set())


def test_a_pc_has_the_clocks_rumprun_and_solo5_need_and_no_display_unless_asked(image):
    bus = attached(knowledge.qemu().buses["ide"])
    for extra, display in ((), 0), (("-vga", "std"), 0x3D4):
        machine = Machine.look(image, *bus, *extra)
        assert machine.numbers["bda-com1"] == 0x3F8
        assert machine.numbers["bda-display"] == display
        assert machine.numbers["timer-changes"] > 100
        assert 1 <= machine.numbers["rtc-month"] <= 0x12


def test_a_machine_without_the_timer_is_told_by_it(image):
    """As Hyper-V's generation 2 is: the counter stands still, and a guest that sleeps by it never wakes."""
    arguments = ["-machine", "pc,pit=off", *attached(knowledge.qemu().buses["ahci"])]
    assert Machine.look(image, *arguments).numbers["timer-changes"] == 0


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_each_network_card_is_what_the_guest_finds(image, firmware):
    """And under UEFI, which sets the machine up in its own way, all buses beside them, in one boot."""
    cards = knowledge.qemu().cards
    buses = knowledge.qemu().buses
    arguments = attached(buses["ahci"])
    for name, device in cards.items():
        arguments += ["-netdev", f"user,id={name},restrict=on", "-device", device.format(netdev=name)]
    others = ("virtio-blk", "virtio-scsi", "nvme", "usb") if firmware == "uefi" else ()
    for name in others:
        arguments += ["-blockdev", f"null-co,read-zeroes=on,node-name={name}"]
        for device in buses[name].device:
            arguments += ["-device", device.format(drive=name).replace(",bootindex=0", "")]
    machine = Machine.look(image, *arguments, firmware=firmware)
    assert machine.disks() == {"ide", "ahci", *others}
    ids = {device.id for device in machine.devices}
    assert all("virtio-net" in guest.nic.drives for guest in GUESTS)
    assert set(cards) == {"virtio-net", *CARDS}
    assert set(CARDS.values()) <= ids
    assert any(device.legacy_virtio("virtio-net") for device in machine.devices)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-device", "virtio-blk-pci,drive=boot,disable-legacy=on"),
        ("-machine", "q35", "-device", "pcie-root-port,id=rp0", "-device", "virtio-blk-pci,drive=boot,bus=rp0"),
    ],
    ids=["modern", "root-port"],
)
def test_a_modern_virtio_disk_is_none_for_a_legacy_driver(image, arguments):
    machine = Machine.look(image, *arguments)
    assert any(device.id in ("1af4:1042", "1af4:1001") for device in machine.devices)
    assert "virtio-blk" not in machine.disks()


@pytest.mark.parametrize(("kind", "s3"), [("q35", True), ("q35", False), ("pc", False)])
def test_under_uefi_memory_at_1_mib_ends_early_unless_s3_is_off(image, kind, s3):
    """docs/facts/guests.md#rumprun-under-uefi: stock OVMF ends the region rumprun uses at 0x806000."""
    facts = knowledge.qemu()
    arguments = ["-machine", kind, *attached(facts.buses["virtio-blk"])]
    if not s3:
        arguments += ["-global", facts.machines[kind].s3_off]
    machine = Machine.look(image, *arguments, firmware="uefi")
    assert (machine.numbers["memory-end"] < 0x900000) == s3
    assert "virtio-blk" in machine.disks()
    # No BIOS data area: rumprun takes that for "no serial port", and writes to a VGA text screen that is not there.
    assert machine.numbers["bda-com1"] == 0
