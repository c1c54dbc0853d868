"""What the tables call seen is shown by a boot test of this repository, and each row names it here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rumpbundle import knowledge

TESTS = Path(__file__).parent

PLATFORMS = {
    ("qemu", "firmware"): ("test_boot.py", "test_boots_from_every_bus"),
    ("qemu", "disk"): ("test_hardware.py", "disk"),
    ("qemu", "nic"): ("test_hardware.py", "card"),
    ("qemu", "console"): ("test_hardware.py", "serial"),
    ("qemu", "clock"): ("test_hardware.py", "pit"),
    ("xen-hvm", "firmware"): ("test_xen.py", "hvm"),
    ("xen-hvm", "disk"): ("test_xen.py", "hvm"),
    ("xen-hvm", "console"): ("test_xen.py", "hvm"),
    ("xen-pv", "firmware"): ("test_xen.py", "xen-pv"),
    ("xen-pv", "disk"): ("test_xen.py", "xen-pv"),
    ("xen-pv", "console"): ("test_xen.py", "xen-pv"),
    ("xen-pv", "clock"): ("test_xen.py", "xen-pv"),
    ("xen-pvh", "firmware"): ("test_xen.py", "xen-pvh"),
    ("xen-pvh", "disk"): ("test_xen.py", "xen-pv"),
    ("xen-pvh", "console"): ("test_xen.py", "xen-pvh"),
    ("xen-pvh", "clock"): ("test_xen.py", "xen-pv"),
}
GUESTS = {
    "linux": ("test_linux_guest.py", "boot"),
    "xen": ("test_real_kernels.py", "xen"),
    "plain": ("test_boot.py", "test_every_protocol_boots"),
}


@pytest.mark.parametrize("platform", knowledge.platforms(), ids=lambda platform: platform.name)
def test_what_a_platform_was_seen_to_have_has_its_test(platform):
    seen = {
        (platform.name, kind) for kind, offers in platform.offers.items() if any(o.basis == "seen" for o in offers)
    }
    assert seen == {key for key in PLATFORMS if key[0] == platform.name}


@pytest.mark.parametrize("family", sorted({family for family, _ in knowledge.guests()}))
def test_what_a_guest_was_seen_to_do_has_its_test(family):
    guest = knowledge.guest(family)
    seen = any(a.basis == "seen" for a in (guest.disk, guest.nic, guest.console, guest.clock))
    assert seen is (family in GUESTS)


@pytest.mark.parametrize(("file", "word"), sorted({*PLATFORMS.values(), *GUESTS.values()}))
def test_the_test_is_there_and_boots(file, word):
    text = (TESTS / file).read_text("utf-8")
    assert "mark.boot" in text
    assert re.search(re.escape(word), text, re.IGNORECASE)
