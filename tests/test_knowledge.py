"""The tables: every row is complete, names only what it may name, and says where it is from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support import tables as markdown

from rumpbundle import knowledge
from rumpbundle.errors import UsageError
from rumpbundle.formats import formats, names
from rumpbundle.kernels.unikernel import Family, Protocol
from rumpbundle.knowledge import drivers

KNOWN = {
    "disk": {"virtio-blk", "virtio-scsi", "ide", "ahci", "nvme", "usb", "cd"}
    | {"pvscsi", "lsilogic", "xen-blk", "hv-storvsc"},
    "nic": {
        "virtio-net",
        "e1000",
        "e1000e",
        "rtl8139",
        "vmxnet3",
        "ena",
        "gvnic",
        "hv-netvsc",
        "mlx5",
        "mana",
        "xen-net",
    },
    "console": {"serial", "vga", "framebuffer", "xen"},
    "clock": {"pit", "rtc", "kvmclock", "hv-clock", "xen-clock"},
    "firmware": {"bios", "uefi", "pv", "pvh"},
}
TARGETS = ["qemu", "virtualbox", "vmware", "hyperv", "azure", "ec2", "gce", "xen-hvm", "xen-pv", "xen-pvh"]


def test_the_targets_are_those_the_command_line_promises():
    assert sorted(platform.name for platform in knowledge.platforms()) == sorted(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_a_platform_is_complete(name):
    platform = knowledge.platform(name)
    for kind, allowed in KNOWN.items():
        offers = platform.offers[kind]
        assert offers, kind
        assert {offer.name for offer in offers} <= allowed
        assert all(offer.on in ("", *platform.firmwares) for offer in offers)
        assert all(offer.source and offer.basis in ("seen", "read", "told") for offer in offers)
    for firmware in platform.firmwares:
        assert all(platform.having(kind, firmware) for kind in KNOWN)
    assert (platform.display == "choice") == bool(platform.no_display)


@pytest.mark.parametrize(("family", "target"), knowledge.guests())
def test_a_guest_is_complete(family, target):
    guest = knowledge.guest(family, target)
    assert family in set(Family)
    assert set(guest.disk.drives or ()) | set(guest.disk.not_boot) <= KNOWN["disk"]
    assert set(guest.nic.drives or ()) <= KNOWN["nic"]
    assert {use.name for use in guest.console.uses or ()} <= KNOWN["console"]
    assert set(guest.clock.all) | set(guest.clock.any) <= KNOWN["clock"]
    assert set(guest.memory) <= KNOWN["firmware"]
    for rule in guest.boot:
        assert rule.answer in ("yes", "no", "unknown")
        assert rule.why
        assert rule.firmware in ("", *KNOWN["firmware"])
        assert rule.protocol in ("", *Protocol)
        assert rule.fix or rule.answer == "yes"
    for ability in (guest.disk, guest.nic, guest.console, guest.clock):
        assert ability.why
        assert ability.source
    assert set(guest.launch.buses) <= set(knowledge.qemu().buses)
    assert not set(guest.launch.buses) & set(guest.disk.not_boot)
    assert set(guest.launch.nics) <= set(knowledge.qemu().cards)


def test_every_family_is_known():
    assert {family for family, _ in knowledge.guests()} == set(Family)


def test_qemu_can_be_told_to_offer_what_the_table_says():
    qemu, platform = knowledge.qemu(), knowledge.platform("qemu")
    assert set(qemu.buses) == {offer.name for offer in platform.offers["disk"]}
    assert set(qemu.cards) == {offer.name for offer in platform.offers["nic"]}
    assert len({bus.option for bus in qemu.buses.values()}) == len(qemu.buses)
    assert {bus.machine for bus in qemu.buses.values()} <= {"", *qemu.machines}


def test_platforms_and_formats_know_each_other():
    for platform in knowledge.platforms():
        assert set(platform.formats) <= set(names()) | {"xen"}
    for format in formats():
        for target in format.targets:
            assert format.name in knowledge.platform(target).formats


def test_a_build_overrides_single_fields_of_its_family():
    hw, generic = knowledge.guest("rumprun"), knowledge.guest("rumprun", "hw_generic")
    assert hw.nic.drives is None
    assert generic.nic.drives == ("virtio-net", "e1000")
    assert generic.nic.virtio == hw.nic.virtio == "legacy"
    assert knowledge.guest("rumprun", "a build nobody heard of") == hw


def test_an_unknown_target_is_an_error_that_helps():
    with pytest.raises(UsageError) as caught:
        knowledge.platform("virtulbox")
    assert caught.value.hint == "did you mean virtualbox?"


def test_the_page_shows_the_tables():
    page = markdown.PAGE.read_text("utf-8")
    shown = page.partition(markdown.BEGIN)[2].partition(markdown.END)[0]
    assert shown == markdown.rendered(), "run: PYTHONPATH=.:tests python tests/support/tables.py"


def test_a_row_read_alone_is_the_row_of_the_table():
    for name in ("platforms", "guests"):
        for key, row in knowledge._table(name).items():
            assert knowledge._row(name, key) == row


@pytest.mark.parametrize(
    ("family", "target", "file", "expected"),
    [
        ("plain", "", "ena virtio-net", "ena virtio-net"),
        ("plain", "", "", ""),
        ("rumprun", "hw_generic", "", None),
        # Its file shows usb, and no controller of a PC lets it find a disk there.
        ("rumprun", "hw_generic", "usb e1000 virtio-blk", "e1000 virtio-blk"),
    ],
)
def test_the_drivers_an_image_may_count_on(family, target, file, expected):
    kernel = SimpleNamespace(family=Family(family), target=target, drivers=frozenset(file.split()))
    guest = knowledge.guest(family, target)
    if expected is None:
        assert drivers.of(kernel) == {*guest.disk.drives, *guest.nic.drives}
    else:
        assert drivers.of(kernel) == frozenset(expected.split())
    disk = drivers.of_kind(kernel, "disk", guest.disk, frozenset({"nvme", "no such"}))
    assert disk == (drivers.of(kernel) & drivers.known("disk")) | {"nvme"}
