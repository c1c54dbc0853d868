"""Which protocol a bundle starts by under each firmware, and what the user hears of it."""

from __future__ import annotations

import pytest
from support import synthetic

from rumpbundle.bundling.writing import Recipe, plan
from rumpbundle.errors import KernelError
from rumpbundle.events import Event, Note, Warned
from rumpbundle.kernels.unikernel import Firmware, Protocol

MACH = synthetic.kernel_with_texts(b"GNU Mach 1.8\0", bits=64)


@pytest.fixture
def choose(tmp_path):
    def choose(data: bytes, **recipe) -> tuple[dict[Firmware, Protocol], list[Event]]:
        path = tmp_path / "mach"
        path.write_bytes(data)
        heard: list[Event] = []
        planned = plan(Recipe(app=path, **recipe), report=heard.append)
        return dict(planned.bundle.boot), [e for e in heard if isinstance(e, Note | Warned)]

    return choose


def test_a_firmware_it_is_known_to_fail_under_is_left_out_and_that_is_said(choose):
    boot, heard = choose(MACH)
    assert boot == {Firmware.BIOS: Protocol.MULTIBOOT}
    text = "mach cannot start under UEFI firmware (GNU Mach resets the machine under UEFI); there the image says so"
    assert Note(text) in heard


def test_the_user_may_insist_and_is_warned(choose):
    boot, heard = choose(MACH, protocol="multiboot")
    assert boot == {Firmware.BIOS: Protocol.MULTIBOOT, Firmware.UEFI: Protocol.MULTIBOOT}
    assert Warned("mach: GNU Mach resets the machine under UEFI") in heard


def test_where_nothing_is_left_the_other_firmware_is_named(choose):
    with pytest.raises(KernelError) as caught:
        choose(MACH, firmware="uefi")
    problem = "cannot start under UEFI firmware (GNU Mach resets the machine under UEFI)"
    assert str(caught.value) == f"mach: {problem}"
    assert caught.value.hint == "bundle it with --firmware bios"


def test_a_repair_is_said(choose):
    segments = [synthetic.Segment(synthetic.multiboot1() + bytes(64)), synthetic.Segment(paddr=0x100010)]
    _, heard = choose(synthetic.elf(segments, bits=32))
    repair = "switched off the empty program header at 0x54, at which GRUB stops (overlap detected)"
    assert Note(f"mach: repaired in the bundled copy: {repair}") in heard


@pytest.mark.parametrize(("size", "warned"), [(3 << 30, False), ((3 << 30) + 1, True)])
def test_a_warning_tells_of_modules_that_no_machine_has_memory_for(choose, tmp_path, size, warned):
    with (tmp_path / "module").open("wb") as file:
        file.truncate(size)
    _, heard = choose(MACH, modules=[tmp_path / "module"])
    said = [event.text for event in heard if isinstance(event, Warned)]
    text = "boot modules of 3.0 GiB: GRUB loads them below 4 GiB, where a PC has 3 GiB of memory"
    assert said == ([text] if warned else [])
