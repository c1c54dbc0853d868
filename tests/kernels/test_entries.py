"""Kernels whose headers lead outside of the file, or of what is loaded: named, by protocol."""

from __future__ import annotations

import struct

import pytest
from support import synthetic
from support.synthetic import Segment

from rumpbundle.cli import main
from rumpbundle.disk.content import Content
from rumpbundle.errors import KernelError
from rumpbundle.kernels import linux
from rumpbundle.kernels.unikernel import Protocol, Unikernel, examine
from rumpbundle.kernels.view import View
from rumpbundle.knowledge.check import check
from rumpbundle.xen.domain import kind_of


def read(data: bytes) -> Unikernel:
    return examine("app.bin", View.of_bytes(data), Content.of_bytes(data))


def number(kind: int, value: int) -> bytes:
    return synthetic.note(b"Xen", kind, struct.pack("<Q", value & (1 << 64) - 1))


def noted(
    notes: bytes, *, header: bytes = b"", load: int = 0x100000, size: int = 0x1000, entry: int | None = None
) -> bytes:
    code = Segment(header.ljust(64, b"\x90"), paddr=load, memsz=size)
    return synthetic.elf([code, Segment(notes, synthetic.NOTE)], entry=entry)


MADE_FOR_XEN = synthetic.note(b"Xen", 6, b"linux\0") + synthetic.note(b"Xen", 5, b"xen-3.0\0")
BASE = -0x8000_0000


def pvh(entry: int) -> bytes:
    return synthetic.note(b"Xen", 18, struct.pack("<I", entry))


@pytest.mark.parametrize(
    ("entry", "fits"), [(0xFFFFF, False), (0x100000, True), (0x100FFF, True), (0x101000, False), (0, False)]
)
def test_a_pvh_entry_is_where_something_is_loaded(entry, fits):
    found = read(noted(pvh(entry)))
    answer = check(found, "xen-pvh").findings[0]
    assert answer.answer == ("yes" if fits else "no")
    if fits:
        assert kind_of(found) == "pvh"
        return
    why = f"it is entered at {entry:#x}, outside of what is loaded, 0x100000-0x100fff"
    assert (answer.why, answer.way) == (why, "link it again")
    assert found.refusal == f"is a PVH kernel that Xen does not start: {why}"
    assert ("pvh", why) in [(each.kind, each.flaw) for each in found.headers]
    with pytest.raises(KernelError, match="is a PVH kernel that Xen does not start") as refused:
        kind_of(found)
    assert "must lie in one of its segments" in str(refused.value.hint)


def test_by_multiboot_it_starts_all_the_same():
    found = read(noted(pvh(0x5000), header=synthetic.multiboot1()))
    assert found.protocols == (Protocol.MULTIBOOT,)
    assert check(found, "xen-pvh").findings[0].answer == "no"
    assert kind_of(found) == "hvm"
    with pytest.raises(KernelError, match=r"cannot start as pvh: it is entered at 0x5000, .* \(it can be hvm\)"):
        kind_of(found, "pvh")


@pytest.mark.parametrize(
    ("notes", "entry", "fits"),
    [
        (number(1, 0x100010), None, True),
        (number(1, 0x1000), None, False),
        (number(2, 0), 0x100020, True),
        (number(2, 0), 0x200000, False),
        (number(1, BASE + 0x100010) + number(3, BASE), None, True),
        (number(1, 0x100010) + number(3, BASE), None, False),
        (number(1, BASE + 0x100010) + number(3, BASE) + number(4, BASE), None, False),
        (number(1, BASE + 0x101010) + number(3, BASE), None, False),
        (number(1, BASE + 0x101010) + number(3, BASE) + synthetic.note(b"Xen", 11, b"yes\0"), None, True),
        (number(1, BASE + 0x101010) + number(3, BASE) + synthetic.note(b"Xen", 11, b"no\0"), None, False),
    ],
)
def test_a_pv_entry_is_where_something_is_loaded(notes, entry, fits):
    found = read(noted(MADE_FOR_XEN + notes, entry=entry))
    assert check(found, "xen-pv").findings[0].answer == ("yes" if fits else "no")
    assert ("Xen does not start" in found.refusal) != fits


def test_a_section_of_old_counts_addresses_from_its_base():
    text = b"GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=0xc0000000,VIRT_ENTRY=0xc0100000\0"
    code = Segment(b"\x90" * 64, paddr=0xC0100000, memsz=0x1000)
    section = synthetic.Section("__xen_guest", text)
    assert check(read(synthetic.elf([code], [section])), "xen-pv").findings[0].answer == "yes"
    of_gnu_mach = Segment(synthetic.note(b"name", 1, bytes(8)), synthetic.NOTE)
    assert check(read(synthetic.elf([code, of_gnu_mach], [section])), "xen-pv").findings[0].answer == "yes"


GENERIC, VERSION = synthetic.note(b"Xen", 8, b"generic\0"), synthetic.note(b"Xen", 5, b"xen-3.0\0")


def features(text: bytes) -> bytes:
    return synthetic.note(b"Xen", 10, text + b"\0")


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        (GENERIC + VERSION, ""),
        (GENERIC + synthetic.note(b"Xen", 5, b"xen-3.0-x86_64\0"), ""),
        (GENERIC + VERSION + features(b"odd|!writable_page_tables|pae_pgdir_above_4gb"), ""),
        (GENERIC + VERSION + number(15, 0x8000000000), ""),
        (VERSION, "a LOADER note"),
        (VERSION + pvh(0x100000), "a LOADER note"),
        (GENERIC, "a XEN_VERSION note"),
        (GENERIC + synthetic.note(b"Xen", 5, b"xen-3.1\0"), "a XEN_VERSION note"),
        (GENERIC + VERSION + features(b"dom0|!odd"), "a feature that Xen does not know, odd"),
        (GENERIC + VERSION + features(b"!dom0"), "as Xen's first domain only"),
        (GENERIC + VERSION + features(b"!auto_translated_physmap"), "which PV domains do not have"),
        (GENERIC + VERSION + number(3, 0x180000) + number(4, 0x180000), "its VIRT_BASE, 0x180000, lies above"),
        (GENERIC + VERSION + number(4, 0), "says PADDR_OFFSET to Xen, and no VIRT_BASE"),
        (GENERIC + VERSION + number(15, 0x100800), "lies inside of it"),
        (GENERIC + VERSION + synthetic.note(b"Xen", 1, b"\0\x10"), "it is entered at 0x1000,"),
        (GENERIC + VERSION + synthetic.note(b"Xen", 1, bytes(16)), "it is entered at 0x0,"),
    ],
)
def test_who_says_what_xen_does_not_take_is_no_pv_kernel(notes, why):
    """As ``xl create`` of Xen 4.17 did with each."""
    found = read(noted(number(1, 0x100000) + notes))
    answer = check(found, "xen-pv").findings[0]
    assert answer.answer == ("no" if why else "yes")
    assert why in answer.why
    if why and found.pvh_entry is None:
        assert found.refusal == f"is a Xen PV kernel that Xen does not start: {found.pv_flaw}"
        with pytest.raises(KernelError, match="that Xen does not start"):
            kind_of(found)
    else:
        assert kind_of(found) == ("pvh" if why else "pv")


@pytest.mark.parametrize(
    ("notes", "flawed"),
    [
        (pvh(0x100000), False),
        (synthetic.note(b"Xen", 18, struct.pack("<Q", 0x500100000)), False),
        (
            pvh(0x100000) + VERSION + synthetic.note(b"Xen", 8, b"odd\0") + features(b"!auto_translated_physmap"),
            False,
        ),
        (pvh(0x100000) + number(3, 0x180000) + number(4, 0x180000), False),
        (pvh(0x100000) + features(b"!odd"), True),
        (pvh(0x100000) + features(b"!dom0"), True),
        (pvh(0x100000) + number(4, 0), True),
        (pvh(0x100000) + number(15, 0x100800), True),
        (synthetic.note(b"Xen", 18, b"\0\x10"), True),
    ],
)
def test_who_says_what_xen_does_not_take_is_no_pvh_kernel(notes, flawed):
    """As ``xl create`` of Xen 4.17 did with each."""
    found = read(noted(notes))
    assert found.pvh_entry is not None
    assert check(found, "xen-pvh").findings[0].answer == ("no" if flawed else "yes")
    assert bool(found.pvh_flaw) == flawed


@pytest.mark.parametrize("notes", [pvh(0xFFFFFFFF), pvh(0x100000).replace(b"Xen", b"nam")])
def test_what_xen_takes_for_no_pvh_entry(notes):
    with pytest.raises(KernelError, match="without a boot header"):
        read(noted(notes))


@pytest.mark.parametrize(
    ("pae", "answer"), [(b"", "no"), (b"no\0", "no"), (b"yes\0", "unknown"), (b"yes,bimodal\0", "unknown")]
)
def test_a_pv_kernel_of_32_bits_has_pae_and_needs_a_xen_that_starts_such(pae, answer):
    notes = MADE_FOR_XEN + number(1, 0x100000) + (synthetic.note(b"Xen", 9, pae) if pae else b"")
    segments = [Segment(b"\x90" * 64), Segment(notes, synthetic.NOTE)]
    assert check(read(synthetic.elf(segments, bits=32)), "xen-pv").findings[0].answer == answer


def bzimage(at: int, layout: str, *values: int, **more: int) -> bytes:
    image = bytearray(synthetic.bzimage(**more))
    struct.pack_into(layout, image, at, *values)
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "flaw"),
    [
        (
            synthetic.bzimage(0x0206, loadflags=0, payload=0x80010),
            "is a zImage of 524304 bytes, and GRUB takes 524288 at most: build it as a bzImage",
        ),
        (bzimage(0x1FE, "<H", 0), "its boot sector does not end with 55 AA"),
        (bzimage(0x1F1, "<B", 65, payload=80000), "65 sectors of real-mode code (setup_sects), GRUB takes 64"),
        (
            bzimage(0x260, "<I", 4095, payload=8191),
            "it wants 4095 bytes of memory (init_size), and is 8191 bytes long",
        ),
        (bzimage(0x260, "<I", 0xBFF00001), "more than a PC has below its devices"),
        (bzimage(0x214, "<I", 0xFFFFF), "it is entered at 0xfffff (code32_start), outside of 0x100000-0x100fff"),
        (bzimage(0x214, "<I", 0x101000), "it is entered at 0x101000 (code32_start), outside of 0x100000-0x100fff"),
    ],
)
def test_a_bzimage_that_leads_elsewhere(tmp_path, capfd, image, flaw):
    if b"55 AA" not in flaw.encode():
        image = image[:0x1F4] + struct.pack("<I", 16) + image[0x1F8:]
    assert flaw in read(image).refusal
    (tmp_path / "vmlinuz").write_bytes(image)
    assert main(["iso", str(tmp_path / "vmlinuz"), "-o", str(tmp_path / "a.iso")]) == 2
    assert flaw in capfd.readouterr().err


@pytest.mark.parametrize(
    "image",
    [
        bzimage(0x260, "<I", 1),
        bzimage(0x260, "<I", 0, version=0x0209),
        bzimage(0x258, "<Q", 1 << 60),
        bzimage(0x214, "<I", 0x100FFF),
        bzimage(0x214, "<I", 0),
        bzimage(0x214, "<I", 0x90000, version=0x0203),
    ],
)
def test_a_bzimage_that_does_not(image):
    assert read(image).refusal == ""


@pytest.mark.parametrize(
    ("image", "answer", "why"),
    [
        (bzimage(1024, "<I", 0xFD377A58, payload=64)[:-64] + b"\xfd7zXZ\0" + bytes(58), "unknown", "to Xen only"),
        (
            bzimage(0x248, "<II", 0, 65, payload=64),
            "no",
            "its compressed kernel is said to end at byte 1089, the file has 1088",
        ),
        (bzimage(0x248, "<II", 1 << 31, 8), "no", "is said to end at byte"),
        (synthetic.bzimage(), "no", "no compressed kernel that Xen can unpack stands at byte 1024"),
        (synthetic.bzimage(0x0207), "no", "from boot protocol 2.08 on, this one has 2.07"),
    ],
)
@pytest.mark.parametrize("target", ["xen-pv", "xen-pvh"])
def test_what_xen_unpacks_of_a_bzimage(image, answer, why, target):
    found = check(read(image), target).findings[0]
    assert found.answer == answer
    assert why in found.why
    assert linux.read(View.of_bytes(image)).flaw == ""


@pytest.mark.parametrize(
    ("target", "notes"), [("xen-pv", MADE_FOR_XEN + number(1, 0x100000)), ("xen-pvh", pvh(0x100000))]
)
def test_xen_on_a_pc_starts_nothing_for_another_processor(target, notes):
    segments = [Segment(bytes(64)), Segment(notes, synthetic.NOTE)]
    found = read(synthetic.elf(segments, machine=synthetic.RISCV))
    answer = check(found, target).findings[0]
    assert (answer.answer, answer.why) == ("no", "it is a kernel for riscv")
    with pytest.raises(KernelError, match="is a kernel for riscv"):
        kind_of(found)


def test_a_disk_is_a_way_out_for_what_boots_from_one_alone():
    """Not for a program for another processor, or one that only Xen starts."""
    bootable = read(synthetic.elf([Segment(synthetic.multiboot1() + bytes(64))], bits=32))
    assert check(bootable, "xen-pv").findings[0].way == check(bootable, "xen-pvh").findings[0].way == "use xen-hvm"
    only = read(noted(pvh(0x100000)))
    assert check(only, "xen-pv").findings[0].way == only.advice != ""
    assert (
        check(read(noted(MADE_FOR_XEN + number(1, 0x100000))), "xen-pvh").findings[0].way.startswith("make a Xen kit")
    )
