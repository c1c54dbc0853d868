"""EFI applications find the volume they came from, and the files beside them, whatever they are booted from."""

from __future__ import annotations

import json
import re

import pytest
from support import kernels, qemu, stub, synthetic
from support.debian import debian_file
from support.kernels import Report
from support.media import in_sectors_of
from support.tools import output_of

import rumpbundle
from rumpbundle import hybrid
from rumpbundle.bootloader import efistarter
from rumpbundle.cli import main
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File, scan
from rumpbundle.errors import InputError, KernelError, UsageError
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel

APPLICATION = {"boot": {Firmware.UEFI: Protocol.EFI}, "firmware": (Firmware.UEFI,)}


@pytest.fixture
def beside(tmp_path):
    """A directory for ``--esp``."""
    top = tmp_path / "esp"
    (top / "efi" / "boot").mkdir(parents=True)
    (top / "beside.txt").write_bytes(b"found it")
    (top / "efi" / "boot" / "hermit-app").write_bytes(b"x" * 5000)
    return top


@pytest.mark.boot
@pytest.mark.parametrize("bus", ["cd", "virtio", "usb"])
@pytest.mark.parametrize("arguments", ["", "exit=5 déjà 日本"])
def test_it_finds_its_volume_from_every_medium(tmp_path, beside, bus, arguments):
    image = tmp_path / "image.iso"
    rumpbundle.bundle(kernels.build("efi"), output=image, esp=scan(beside), cmdline=arguments or None)
    result = qemu.boot(image, firmware="uefi", bus=bus, until="end of report")
    assert kernels.field(result.serial, "volume") == b"found it"
    assert Report.parse(result.serial).arguments == arguments


@pytest.mark.boot
@pytest.mark.parametrize(
    ("base", "stripped", "starts"),
    [(0, True, False), (0x9F000, True, False), (0x800000, True, False), (0x10000, True, True), (0, False, True)],
)
def test_what_is_said_of_relocations_is_what_ovmf_does(tmp_path, base, stripped, starts):
    application = bytearray(kernels.build("efi").read_bytes())
    at = int.from_bytes(application[60:64], "little")
    header = bytes(application[: at + 64])
    application[at + 22] = application[at + 22] & ~1 | stripped
    application[at + 48 : at + 56] = base.to_bytes(8, "little")
    (tmp_path / "app.efi").write_bytes(application)
    found = Unikernel.read(tmp_path / "app.efi", disk=False)
    assert (found.protocol_for(Firmware.UEFI) is not None) == starts
    # Bundled as it was built, and changed in the image: what is refused can be seen to fail.
    rumpbundle.bundle(kernels.build("efi"), "raw", output=tmp_path / "image.raw", firmware="uefi")
    image = tmp_path / "image.raw"
    image.write_bytes(image.read_bytes().replace(header, bytes(application[: at + 64])))
    result = qemu.boot(image, firmware="uefi", until="end of report|BdsDxe: failed to load")
    assert ("end of report" in result.text) == starts


@pytest.mark.boot
@pytest.mark.parametrize(
    ("base", "entry", "size", "starts"),
    [(0, 0xA000, 10, True), (0, 0x5000, 10, False), (0x400000, 0x5000, 10, True), (0x400000, 0xA000, 4097, False)],
)
def test_what_is_said_of_broken_relocations_is_what_ovmf_does(tmp_path, base, entry, size, starts):
    plain = kernels.build("efi").read_bytes()
    unused = plain.index(bytes(64))  # of its headers, which are loaded too
    good = synthetic.relocated(plain, synthetic.relocations(0, unused))
    application = synthetic.relocated(plain, synthetic.relocations(0, entry | unused), base=base, size=size)
    (tmp_path / "app.efi").write_bytes(application)
    assert (Unikernel.read(tmp_path / "app.efi", disk=False).protocol_for(Firmware.UEFI) is not None) == starts
    # Bundled as it should be, and changed in the image: what is refused can be seen to fail.
    (tmp_path / "good.efi").write_bytes(good)
    rumpbundle.bundle(tmp_path / "good.efi", "raw", output=tmp_path / "image.raw", firmware="uefi")
    image = (tmp_path / "image.raw").read_bytes()
    assert good in image
    (tmp_path / "image.raw").write_bytes(image.replace(good, application))
    result = qemu.boot(tmp_path / "image.raw", firmware="uefi", until="end of report|BdsDxe: failed to load")
    assert ("end of report" in result.text) == starts


def test_an_application_with_broken_relocations_is_called_so(tmp_path, capfd):
    plain = kernels.build("efi").read_bytes()
    broken = synthetic.relocations(0x1000, 0x5000)
    (tmp_path / "app.efi").write_bytes(synthetic.relocated(plain, broken))
    with pytest.raises(KernelError, match="has relocations that firmware cannot carry out") as refused:
        rumpbundle.bundle(tmp_path / "app.efi", "raw", output=tmp_path / "app.raw")
    assert "link it again" in refused.value.hint
    (tmp_path / "app.efi").write_bytes(synthetic.relocated(plain, broken, base=0x400000))
    assert main(["raw", str(tmp_path / "app.efi"), "-o", str(tmp_path / "app.raw")]) == 0
    assert "it starts only where its image base 0x400000 is free" in capfd.readouterr().err


@pytest.mark.boot
def test_a_disk_of_4096_byte_sectors_is_attached_as_one(tmp_path, capfd):
    esp, image = tmp_path / "esp", tmp_path / "disk.raw"
    for path, size in ((esp, 40), (image, 48)):
        with path.open("wb") as file:
            file.truncate(size << 20)
    output_of("mkfs.fat", "-S", "4096", "-F", "16", "-s", "1", str(esp))
    output_of("mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT")
    output_of("mcopy", "-i", str(esp), str(kernels.build("efi")), "::/EFI/BOOT/BOOTX64.EFI")
    output_of("sgdisk", "-n", "1:2048:+40M", "-t", "1:ef00", str(image))
    data = bytearray(image.read_bytes())
    data[1 << 20 : 41 << 20] = esp.read_bytes()
    image.write_bytes(in_sectors_of(4096, bytes(data)))
    argv = [
        "run",
        str(image),
        "--firmware",
        "uefi",
        "--accel",
        "tcg",
        "--timeout",
        "120",
        "--expect",
        "end of report",
    ]
    assert main(argv) == 0, capfd.readouterr()


def test_an_application_in_the_way_of_the_firmware_is_for_who_insists(tmp_path, capfd):
    application = bytearray(kernels.build("efi").read_bytes())
    at = int.from_bytes(application[60:64], "little")
    application[at + 22] |= 1
    application[at + 48 : at + 56] = (0x900000).to_bytes(8, "little")
    (tmp_path / "app.efi").write_bytes(application)
    with pytest.raises(KernelError, match=r"must load it at 0x900000-.*, and OVMF has data of its own") as refused:
        rumpbundle.bundle(tmp_path / "app.efi", "raw", output=tmp_path / "app.raw")
    assert refused.value.hint == "--protocol efi insists"
    assert main(["check", str(tmp_path / "app.efi"), "--target", "qemu"]) != 0
    assert "link it with relocations" in capfd.readouterr().out
    rumpbundle.bundle(tmp_path / "app.efi", "raw", output=tmp_path / "app.raw", protocol="efi")


@pytest.mark.boot
@pytest.mark.parametrize("bus", ["cd", "ahci"])
def test_systemd_boot_starts(tmp_path, bus):
    loader = debian_file("systemd-boot-efi", "usr/lib/systemd/boot/efi/systemd-bootx64.efi")
    rumpbundle.bundle(loader, output=tmp_path / "image.iso")
    qemu.boot(tmp_path / "image.iso", firmware="uefi", bus=bus, until="Reboot Into Firmware")


def test_the_starter_is_the_code_it_says(tmp_path):
    (tmp_path / "code").write_bytes(efistarter._CODE)
    listing = output_of("objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", str(tmp_path / "code"))
    found = re.findall(r"^ +[0-9a-f]+:\t[0-9a-f ]+\t(.+?) *(?:#.*)?$", listing, re.MULTILINE)
    code = [" ".join(text.split()) for text in found if text != "int3"]
    assert code[:7] == ["push rbx", "push rsi", "push rdi", "push r12", "push r13", "sub rsp,0x40", "mov rbx,rcx"]
    assert [text for text in code if text.startswith("call")] == [
        "call QWORD PTR [rsi+0x98]",
        "call QWORD PTR [rsi+0x98]",
        "call QWORD PTR [rsi+0x40]",
        "call QWORD PTR [rsi+0xc8]",
        "call QWORD PTR [rsi+0x98]",
        "call QWORD PTR [rsi+0xd0]",
        "call QWORD PTR [rcx+0x8]",
    ]
    assert code[-7:] == ["add rsp,0x40", "pop r13", "pop r12", "pop rdi", "pop rsi", "pop rbx", "ret"]
    assert not any("bad" in text for text in code)


def test_a_starter_that_cannot_start_says_so(tmp_path):
    starter = efistarter.starter("\\nowhere", "x")
    (tmp_path / "BOOTX64.EFI").write_bytes(starter)
    rumpbundle.bundle(tmp_path / "BOOTX64.EFI", output=tmp_path / "image.iso")
    qemu.boot(tmp_path / "image.iso", firmware="uefi", until="rumpbundle: the firmware does not start this")


@pytest.mark.parametrize(("arguments", "why"), [("a\0b", "NUL"), ("\udcff", "not UTF-8")])
def test_what_is_no_text_is_refused(arguments, why):
    with pytest.raises(InputError, match=why):
        efistarter.starter("\\a", arguments)


def test_names_that_differ_by_case_are_one_directory(tmp_path, beside, capfd):
    rumpbundle.bundle(kernels.build("efi"), "raw", output=tmp_path / "image.raw", esp=scan(beside), cmdline="x")
    for directory, expected in {"fat:/": "beside.txt", "fat:/EFI/BOOT": "hermit-app"}.items():
        assert main(["ls", str(tmp_path / "image.raw"), directory]) == 0
        assert expected in capfd.readouterr().out


def test_the_manifest_names_the_files(tmp_path, beside, capfd):
    rumpbundle.bundle(kernels.build("efi"), output=tmp_path / "image.iso", esp=scan(beside))
    assert main(["cat", str(tmp_path / "image.iso"), "/rumpbundle.json"]) == 0
    manifest = json.loads(capfd.readouterr().out)
    assert [(entry["path"], entry.get("size")) for entry in manifest["esp"]] == [
        ("/beside.txt", 8),
        ("/efi", None),
        ("/efi/boot", None),
        ("/efi/boot/hermit-app", 5000),
    ]


@pytest.mark.parametrize("name", ["BOOTX64.EFI", "bootx64.efi"])
def test_a_name_the_image_needs_is_refused(name):
    inside = Directory.of("EFI", [Directory.of("Boot", [File(name, Content.of_bytes(b"x"))])])
    bundle = stub.bundle(esp=Directory.of("", [inside]), **APPLICATION)
    with pytest.raises(InputError, match=f"/EFI/BOOT/{name}: the image needs this name itself"):
        hybrid.plan(bundle, stub.IMAGES)


def test_a_tree_fat_cannot_hold_is_refused(tmp_path, beside):
    (beside / "BESIDE.TXT").write_text("")
    with pytest.raises(InputError, match="but for its case, which FAT ignores"):
        rumpbundle.bundle(kernels.build("efi"), output=tmp_path / "image.iso", esp=scan(beside))
    (beside / "BESIDE.TXT").unlink()
    (beside / "link").symlink_to("beside.txt")
    with pytest.raises(InputError, match="FAT has no symbolic links"):
        rumpbundle.bundle(kernels.build("efi"), output=tmp_path / "image.iso", esp=scan(beside))


def test_an_output_never_falls_into_it(beside, capfd):
    application = str(kernels.build("efi"))
    assert main(["iso", application, "--esp", str(beside), "-o", str(beside / "beside.txt"), "--force"]) == 2
    assert (beside / "beside.txt").read_bytes() == b"found it"
    assert "would lie in a directory that is an input" in capfd.readouterr().err


def test_only_an_efi_application_is_given_files(tmp_path, beside):
    with pytest.raises(UsageError, match="this kernel starts with the multiboot protocol under UEFI"):
        rumpbundle.bundle(kernels.build("multiboot"), output=tmp_path / "image.iso", esp=scan(beside))
    with pytest.raises(UsageError, match="does not start under UEFI"):
        rumpbundle.bundle(kernels.build("linux"), output=tmp_path / "image.iso", esp=scan(beside), firmware="bios")


@pytest.mark.parametrize("option", ["--data", "--module"])
def test_the_hints_lead_to_esp(beside, option, capfd):
    value = f"{beside}:/data" if option == "--data" else str(beside / "beside.txt")
    assert main(["iso", str(kernels.build("efi")), option, value, "--dry-run"]) == 2
    hint = capfd.readouterr().err.partition("hint: ")[2]
    assert hint == "put its files beside it on its EFI system partition: --esp DIR\n"
