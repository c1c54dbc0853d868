"""The Xen hypervisor as the kernel that is bundled."""

from __future__ import annotations

import pytest

from rumpbundle.disk.content import Content
from rumpbundle.errors import UsageError
from rumpbundle.guests import Request, deliver
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Module

DOM0 = (Module("vmlinuz", Content.of_bytes(b"k"), "console=hvc0"),)


def request(protocol: Protocol, modules: tuple[Module, ...]) -> Request:
    kernel = Unikernel(name="xen", content=Content.of_bytes(b"k"), family=Family.XEN, protocols=(protocol,))
    return Request(kernel=kernel, boot={Firmware.UEFI: protocol}, modules=modules, cmdline="console=com1", epoch=0)


def test_its_name_comes_first_and_dom0_is_its_first_module():
    delivery = deliver(request(Protocol.MULTIBOOT2, DOM0))
    assert (delivery.cmdline, delivery.modules) == ("xen console=com1", DOM0)


@pytest.mark.parametrize(
    ("protocol", "modules", "problem"),
    [
        (Protocol.MULTIBOOT2, (), "Xen needs dom0's kernel as its first module"),
        (Protocol.EFI, DOM0, "Xen as an EFI application reads dom0 and its options from a configuration file"),
        (Protocol.EFI, (), "Xen as an EFI application reads dom0 and its options from a configuration file"),
    ],
    ids=["no-dom0", "efi", "efi-without-dom0"],
)
def test_what_could_only_panic_is_refused(protocol, modules, problem):
    with pytest.raises(UsageError) as caught:
        deliver(request(protocol, modules))
    assert caught.value.problem.startswith(problem)
    assert caught.value.hint
