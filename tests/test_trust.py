"""scripts/trust: its tables say what was run, what failed is no table, and docs/trust.md has all of them."""

from __future__ import annotations

import importlib.util
import re
from importlib.machinery import SourceFileLoader

import pytest
from fresh import run as fresh
from support.kernels import ROOT
from support.tools import require

from rumpbundle import formats

LOADER = SourceFileLoader("trust", str(ROOT / "scripts" / "trust"))
SPEC = importlib.util.spec_from_loader("trust", LOADER)
assert SPEC is not None
trust = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(trust)


@pytest.fixture
def report(tmp_path):
    """Return a function that writes a report as pytest does."""

    def write(*cases: str):
        path = tmp_path / "report.xml"
        path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
        return path

    return write


def test_every_part_has_its_table_in_the_page():
    text = (ROOT / "docs" / "trust.md").read_text("utf-8")
    found = re.findall(r"<!-- (\w+): made by scripts/trust -->\n\|.+?\n<!-- end -->\n", text, re.DOTALL)
    assert found == list(trust.PARTS)


def test_one_table_is_replaced():
    page = (
        "a\n<!-- x: made by scripts/trust -->\n{}<!-- end -->\n<!-- y: made by scripts/trust -->\n{}<!-- end -->\nb\n"
    )
    text = page.format("old\n", "")
    assert trust.put(trust.put(text, "x", "new"), "y", "more") == page.format("new\n", "more\n")
    with pytest.raises(SystemExit, match="no place for z"):
        trust.put(text, "z", "new")


def test_boots_are_told_by_image_firmware_and_bus(report):
    require("qemu-system-x86_64")
    names = [
        *("boots_from_every_bus[iso-bios-cd]", "boots_from_every_bus[iso-bios-usb]", "gnu_mach"),
        *("every_disk_format_boots[vhd-fixed-uefi]", "xen_by_multiboot2[bios]", "xen_by_multiboot2[uefi]"),
        "boots_from_the_controllers_of_vmware_and_virtualbox[vmdk-bios-ide]",
    ]
    made = trust.boots(trust.passed(report(*(f'<testcase name="test_{name}"/>' for name in names))))
    assert "| iso | cd, usb |  |\n| vhd:fixed |  | virtio |\n| vmdk:sparse | ide |  |\n" in made
    assert "| gnu mach |  | 1 |\n| xen by multiboot2 | bios, uefi | 2 |\n" in made


@pytest.mark.parametrize("what", ["failure", "error", "skipped"])
def test_what_did_not_pass_is_no_table(report, what):
    with pytest.raises(SystemExit, match=f"error: c test_x.a.: {what}, why"):
        trust.passed(report(f'<testcase classname="c" name="test_x[a]"><{what} message="why"/></testcase>'))


def test_flips_are_counted():
    made = trust.flips(sample=4, names=["iso"])
    assert re.fullmatch(r"\| image \|.*\n\|.*\n\| iso \| 4 \| 4 \| 8 \| 0 \| 0 \|", made)


def test_faults_are_counted():
    require("gcc")
    made = trust.faults(number=3, moments=0, kills=0, names=["iso"])
    assert made.endswith("fails or kills it, 1 formats | 3 | 0 |")


def test_the_page_tells_which_formats_fresh_systems_make_alike():
    made = {name.partition(":")[0] for name in fresh.ALIKE.split(",")}
    (left_out,) = re.findall(r"in every format but `(\w+)` on each", trust.PAGE.read_text("utf-8"))
    assert made == {*formats.names()} - {left_out}
