"""The answers of check, against what docs/facts says of each guest and platform."""

from __future__ import annotations

import json

import pytest
from support import kernels
from support.media import in_sectors_of
from support.tools import output_of

from rumpbundle import knowledge
from rumpbundle.cli import main
from rumpbundle.disk.content import Content
from rumpbundle.errors import UsageError
from rumpbundle.formats import find
from rumpbundle.images.detect import open_disk
from rumpbundle.images.records import vhdx
from rumpbundle.kernels.unikernel import Device, Family, Firmware, Protocol, Trouble, Unikernel
from rumpbundle.knowledge.check import check, disk_bus, warnings


def kernel(family, target="", drivers="", protocols="multiboot", **more):
    return Unikernel(
        name="app.bin",
        content=Content(()),
        family=Family(family),
        target=target,
        drivers=frozenset(drivers.split()),
        protocols=tuple(Protocol(name) for name in protocols.split()),
        **more,
    )


RUMPRUN = kernel("rumprun", "hw_virtio", "virtio-blk virtio-net")
SCSI = kernel("rumprun", "hw_virtio_scsi", "virtio-blk virtio-scsi virtio-net")
GENERIC = kernel("rumprun", "hw_generic", "virtio-blk virtio-scsi usb virtio-net e1000")
RUMPRUN_PV = kernel(
    "rumprun", "xen_pv", "xen-blk xen-net", "", machine="x86-64",
    xen_notes=(("entry", 0x1000), ("loader", "generic"), ("xen_version", "xen-3.0")),
    refusal="is a Xen PV kernel", advice="use the xen format",
)  # fmt: skip
SOLO5 = kernel("solo5", "virtio", "virtio-blk virtio-net", devices=(Device("disk", "block"), Device("n", "net")))
SOLO5_PVH = kernel("solo5", "xen", protocols="", pvh_entry=0x100000)
LINUX = kernel("linux", protocols="linux efi")
XEN = kernel("xen", protocols="multiboot2 multiboot")
PLAIN = kernel("plain")

# boots disk network console clock: y(es), n(o), ? unknown. The facts behind each are in the tables' sources.
MATRIX = {
    "qemu": {"RUMPRUN": "yyyyy", "GENERIC": "yyyyy", "SOLO5": "yyyyy", "LINUX": "y??yy", "PLAIN": "y????"},
    "virtualbox": {"RUMPRUN": "ynyyy", "GENERIC": "nnyyy", "SOLO5": "ynyyy", "LINUX": "y??yy"},
    "vmware": {"RUMPRUN": "ynnyy", "GENERIC": "ynyyy", "SOLO5": "ynnyy"},
    "hyperv": {"RUMPRUN": "ynnyy", "GENERIC": "ynnyy", "SOLO5": "ynnyy", "LINUX": "y??yy"},
    "azure": {"RUMPRUN": "ynnyy", "SOLO5": "ynnyy", "LINUX": "y??yy"},
    "ec2": {"RUMPRUN": "ynnyy", "GENERIC": "ynnyy", "SOLO5": "ynnyy", "LINUX": "y??yy"},
    "gce": {"RUMPRUN": "ynyyy", "SCSI": "yyyyy", "GENERIC": "yyyyy", "SOLO5": "ynyyy"},
    "xen-hvm": {"RUMPRUN": "ynnyy", "GENERIC": "ynyyy", "LINUX": "y??yy"},
    "xen-pvh": {"RUMPRUN": "nnnnn", "SOLO5_PVH": "yyyyy", "LINUX": "???yy"},
    "xen-pv": {"RUMPRUN": "nnnnn", "RUMPRUN_PV": "yyyyy", "LINUX": "???yy", "SOLO5": "nnnnn"},
}
ANSWERS = {"y": "yes", "n": "no", "?": "unknown"}


@pytest.mark.parametrize(
    ("target", "name", "expected"),
    [(target, name, expected) for target, row in MATRIX.items() for name, expected in row.items()],
)
def test_answers(target, name, expected):
    verdict = check(globals()[name], target)
    assert [finding.question for finding in verdict.findings] == ["boots", "disk", "network", "console", "clock"]
    assert {f.question: (f.answer, f.why) for f in verdict.findings} == {
        f.question: (ANSWERS[answer], f.why) for f, answer in zip(verdict.findings, expected, strict=True)
    }
    assert all(finding.why and finding.sources for finding in verdict.findings)


def test_every_platform_answers_for_every_guest_we_know():
    for platform in knowledge.platforms():
        for family, target in knowledge.guests():
            for firmware in ((), ("bios",), ("uefi",)):
                check(kernel(family, target), platform.name, firmware=firmware)


def ways(verdict):
    return {finding.question: finding.way for finding in verdict.findings}


def test_the_way_out_is_one_that_exists_there():
    assert ways(check(RUMPRUN, "gce"))["disk"] == "bake hw_virtio_scsi or hw_generic, which drives virtio-scsi"
    assert ways(check(RUMPRUN, "vmware"))["network"] == "bake hw_generic, which drives e1000"
    assert ways(check(RUMPRUN, "xen-pv"))["disk"] == "bake xen_pv or xen_pci, which drives xen-blk"
    assert "rumpbundle component" in ways(check(RUMPRUN, "ec2"))["disk"]
    assert "bake" not in ways(check(RUMPRUN, "ec2"))["disk"]


def test_what_has_to_be_asked_for_is_said():
    assert "--nictype1 virtio" in ways(check(RUMPRUN, "virtualbox"))["network"]
    assert ways(check(RUMPRUN, "qemu"))["console"] == "-vga none"
    assert ways(check(LINUX, "hyperv", firmware=["uefi"]))["boots"].startswith("New-VM -Generation 2")


def test_a_modern_virtio_device_is_none_for_a_legacy_driver():
    """VirtualBox's virtio-scsi has no legacy registers, and rumprun's driver knows no others."""
    virtio_only = kernel("rumprun", "hw_virtio_scsi", "virtio-scsi virtio-net")
    finding = check(virtio_only, "virtualbox").findings[1]
    assert finding.answer == "no"
    assert "virtio-scsi (modern registers only)" in finding.why


@pytest.mark.parametrize(
    ("guest", "targets", "bus"),
    [
        (SCSI, ["gce"], "virtio-scsi"),
        (GENERIC, ["gce"], "virtio-scsi"),
        (RUMPRUN, ["gce"], ""),
        (GENERIC, ["vmware", "virtualbox"], ""),  # its USB disks stay away, and virtio-scsi has no legacy registers
        (GENERIC, ["qemu"], "virtio-blk"),
        (GENERIC, ["ec2"], ""),
        (GENERIC, ["xen-pv", "xen-hvm"], ""),
        (RUMPRUN_PV, ["xen-pv", "xen-hvm"], "xen-blk"),
        (LINUX, ["gce"], ""),
    ],
)
def test_where_the_disk_will_be_is_the_first_place_the_kernel_drives(guest, targets, bus):
    assert disk_bus(guest, targets) == bus


def test_solo5_is_not_booted_from_the_disk_it_would_overwrite():
    way = ways(check(SOLO5, "qemu"))["boots"]
    assert way.startswith("boot it from ahci (--bus sata), not from virtio-blk")


def test_a_manifest_that_asks_for_nothing_needs_nothing():
    hello = kernel("solo5", "virtio", "virtio-blk virtio-net")
    assert [finding.answer for finding in check(hello, "ec2").findings] == ["yes", "yes", "unknown", "yes", "yes"]


def test_a_device_the_manifest_does_not_name_ends_a_solo5_guest():
    hello = kernel("solo5", "virtio", "virtio-blk virtio-net")
    boots, _, network, *_ = check(hello, "gce").findings
    assert (boots.answer, network.answer) == ("no", "no")
    assert "virtio-net" in boots.why
    with_net = kernel("solo5", "virtio", "virtio-blk virtio-net", devices=(Device("n", "net"),))
    boots, _, network, *_ = check(with_net, "gce").findings
    assert (boots.answer, network.answer) == ("yes", "yes")


@pytest.mark.parametrize(
    ("kind", "count", "target", "answer"),
    [
        ("net", 2, "qemu", "yes"),
        ("net", 8, "virtualbox", "yes"),
        ("net", 9, "virtualbox", "no"),
        ("block", 2, "qemu", "yes"),
        ("net", 27, "qemu", "yes"),
        ("block", 26, "qemu", "yes"),
        ("block", 27, "qemu", "no"),
        ("block", 63, "qemu", "no"),
    ],
)
def test_the_devices_of_a_manifest_are_counted(kind, count, target, answer):
    devices = tuple(Device(f"d{n}", kind) for n in range(count))
    guest = kernel("solo5", "virtio", "virtio-blk virtio-net", devices=devices)
    finding = {f.question: f for f in check(guest, target).findings}["disk" if kind == "block" else "network"]
    assert (finding.answer, str(count) in finding.why) == (answer, answer == "no")


def test_a_usb_controller_that_panics_the_guest_is_a_no_with_the_way_out():
    boots = check(GENERIC, "virtualbox").findings[0]
    assert "usbdi.c" in boots.why
    assert "--usb" in boots.way
    assert check(RUMPRUN, "virtualbox").findings[0].answer == "yes"


def test_uefi_is_chosen_where_only_uefi_will_do():
    efi = kernel("plain", protocols="efi")
    assert check(efi, "qemu").firmware == "uefi"
    verdict = check(efi, "qemu", firmware=["bios"])
    assert verdict.findings[0].answer == "no"
    assert verdict.findings[0].way == "use UEFI firmware"


def test_generation_2_has_no_timer_for_rumprun():
    verdict = check(RUMPRUN, "hyperv", firmware=["uefi"])
    assert {f.question: f.answer for f in verdict.findings}["clock"] == "no"
    assert check(RUMPRUN, "hyperv").firmware == "bios"


def test_rumprun_is_silent_under_uefi():
    assert {f.question: f.answer for f in check(RUMPRUN, "qemu", firmware=["uefi"]).findings}["console"] == "no"


def test_a_known_trouble_is_a_no():
    trouble = Trouble(Protocol.MULTIBOOT, Firmware.UEFI, "GNU Mach resets the machine under UEFI")
    mach = kernel("plain", troubles=(trouble,))
    finding = check(mach, "qemu", firmware=["uefi"]).findings[0]
    assert (finding.answer, finding.why) == ("no", trouble.reason)
    assert check(XEN, "qemu", firmware=["uefi"], protocol=Protocol.MULTIBOOT).findings[0].answer == "no"
    assert check(XEN, "qemu", firmware=["uefi"]).findings[0].answer == "yes"


def test_solo5_cannot_get_more_devices_than_it_drives():
    devices = (Device("one", "block"), Device("two", "block"))
    verdict = check(kernel("solo5", "virtio", "virtio-blk virtio-net", devices=devices, undriven=devices[1:]), "qemu")
    disk, network = verdict.findings[1:3]
    assert (disk.answer, network.answer) == ("no", "unknown")
    assert disk.why == "its manifest asks for several block devices, and the Solo5 it was built with drives one"
    both = check(kernel("solo5", "virtio", "virtio-blk virtio-net", devices=devices), "qemu")
    assert both.findings[1].answer == "yes"


def test_a_kernel_no_disk_boots_gives_its_own_reason():
    hvt = kernel("solo5", "hvt", protocols="", refusal="needs the solo5-hvt tender", advice="build it for virtio")
    finding = check(hvt, "qemu").findings[0]
    assert (finding.answer, finding.why, finding.way) == ("no", "needs the solo5-hvt tender", "build it for virtio")


def test_a_protocol_it_does_not_carry_is_a_no():
    assert check(LINUX, "qemu", protocol=Protocol.MULTIBOOT).findings[0].answer == "no"


def test_a_firmware_the_platform_lacks_is_a_usage_error():
    with pytest.raises(UsageError):
        check(LINUX, "qemu", firmware=["coreboot"])


def test_a_driver_the_user_vouches_for_counts():
    def answers(kernel, target, *drivers):
        return "".join(f.answer[0] for f in check(kernel, target, drivers=drivers).findings[1:3])

    assert answers(LINUX, "ec2") == "uu"
    assert answers(LINUX, "ec2", "nvme") == "yu"
    assert answers(LINUX, "ec2", "nvme", "ena") == "yy"
    assert answers(LINUX, "ec2", "virtio-blk", "ena") == "ny"
    assert answers(RUMPRUN, "gce", "virtio-scsi") == "yy"
    with pytest.raises(UsageError, match="no such driver") as caught:
        check(LINUX, "ec2", drivers=["nvm"])
    assert caught.value.hint == "did you mean nvme?"
    assert warnings(RUMPRUN, ["gce"], drivers=["virtio-scsi"]) == ()


def test_a_rumprun_kernel_that_shows_no_driver_is_not_judged_by_one():
    assert [f.answer for f in check(kernel("rumprun", "hw"), "qemu").findings[1:3]] == ["unknown", "unknown"]


def test_bundling_hears_of_the_best_target_only():
    assert warnings(GENERIC, ["qemu"]) == ()
    assert warnings(RUMPRUN, []) == ()
    assert warnings(RUMPRUN, ["vmware", "qemu"]) == ()
    (said,) = warnings(RUMPRUN, ["gce"])
    assert said.startswith("on Google Compute Engine, app.bin will not see its disk: ")
    assert warnings(SCSI, ["gce"]) == ()


def test_bundling_hears_that_the_others_will_not_do_either():
    assert find("vmdk").targets == ("vmware", "virtualbox")
    first, *_, last = warnings(RUMPRUN, find("vmdk").targets)
    assert first.startswith("on VirtualBox, app.bin will not see its disk: ")
    assert last.startswith(
        "it will not work on VMware (ESXi, Workstation, Fusion) either: rumpbundle check app.bin --target vmware "
    )


@pytest.fixture(scope="module")
def app():
    return str(kernels.build("multiboot"))


def test_the_command_prints_a_table_and_says_no_by_its_status(app, capfd):
    assert main(["check", app, "--target", "qemu"]) == 0
    out = capfd.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:] if not line.startswith("   ")] == [
        "boots", "disk", "network", "console", "clock",
    ]  # fmt: skip
    assert "\x1b" not in out
    assert main(["check", app, "--target", "xen-pv", "--json"]) == 5
    said = capfd.readouterr()
    assert json.loads(said.out)["answers"]["boots"]["answer"] == "no"
    assert said.err.startswith("error: ")
    assert main(["check", app, "--target", "quemu"]) == 2
    assert "did you mean qemu?" in capfd.readouterr().err


@pytest.fixture
def hw_virtio(tmp_path):
    """A test kernel that passes for a rumprun one with virtio-blk only."""
    path = tmp_path / "app.bin"
    path.write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0vioif\0")
    return str(path)


def test_bundling_for_a_platform_warns_and_strict_fails(hw_virtio, tmp_path, capfd):
    assert main(["gce", hw_virtio, "--arg", "x", "--dry-run"]) == 0
    warning = "warning: on Google Compute Engine, app.bin will not see its disk: it drives virtio-blk only"
    assert warning in capfd.readouterr().err
    for mode in (["--dry-run"], ["-o", str(tmp_path / "app.gce.tar.gz")]):
        assert main(["gce", hw_virtio, "--arg", "x", "--strict", *mode]) == 5
        assert "error: on Google Compute Engine, app.bin will not see its disk" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["app.bin"]
    assert main(["iso", hw_virtio, "--arg", "x", "--dry-run", "--strict"]) == 0


def test_without_a_target_there_is_one_matrix(app, capfd):
    assert main(["check", app]) == 0
    head, *rows, last = capfd.readouterr().out.splitlines()
    assert head.split() == ["target", "firmware", "boots", "disk", "network", "console", "clock"]
    assert [row.split()[0] for row in rows] == [platform.name for platform in knowledge.platforms()]
    assert all(len(row.split()) == 7 and row == row.rstrip() for row in rows)
    assert "--target TARGET" in last
    assert main(["check", app, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert len(said["targets"]) == len(rows)


@pytest.mark.parametrize("format", ["iso", "vmdk", "ova"])
def test_a_finished_image_is_judged_by_the_kernel_in_it(app, tmp_path, capfd, format):
    output = tmp_path / f"app.{format}"
    assert main([format, app, "--firmware", "bios", "-q", "-o", str(output)]) == 0
    capfd.readouterr()
    assert main(["check", str(output), "--target", "qemu"]) == 0
    assert "GRUB starts it with the multiboot protocol" in capfd.readouterr().out
    assert main(["check", str(output), "--target", "qemu", "--firmware", "uefi"]) == 5
    assert "the image has no boot code for UEFI" in capfd.readouterr().out


def test_a_foreign_image_is_judged_by_its_boot_code(tmp_path, capfd):
    path = tmp_path / "disk.raw"
    table = bytes([0x80, 0, 0, 0, 0x83, 0, 0, 0]) + (64).to_bytes(4, "little") * 2
    path.write_bytes((b"\xeb\x63" + bytes(444) + table).ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    assert main(["check", str(path), "--target", "qemu"]) == 0
    assert "the image has boot code for BIOS" in capfd.readouterr().out


def test_a_damaged_fat_does_not_hide_the_loader_on_the_next(tmp_path, capfd):
    volume, disk = tmp_path / "fat", tmp_path / "disk.raw"
    output_of("mkfs.fat", "-C", str(volume), "4096")
    (tmp_path / "BOOTX64.EFI").write_bytes(b"MZ")
    output_of("mmd", "-i", str(volume), "::/EFI", "::/EFI/BOOT")
    output_of("mcopy", "-i", str(volume), str(tmp_path / "BOOTX64.EFI"), "::/EFI/BOOT")
    sound = volume.read_bytes()
    efi, boot = (sound.index(b"%-11s\x10" % name) + 26 for name in (b"EFI", b"BOOT"))
    damaged = sound[:boot] + sound[efi : efi + 2] + sound[boot + 2 :]  # a directory that holds itself
    disk.write_bytes(bytes(1 << 20) + damaged + sound)
    output_of("sfdisk", "-q", str(disk), input="2048,8192,ef\n10240,8192,ef\n")
    assert main(["ls", str(disk)]) == 2
    capfd.readouterr()
    assert main(["check", str(disk), "--target", "qemu", "--firmware", "uefi"]) == 0
    assert "the image has boot code for UEFI" in capfd.readouterr().out


def cd(tmp_path):
    """A CD whose first sector is empty: a BIOS starts it by El Torito, from a CD drive alone."""
    (tmp_path / "tree").mkdir()
    loop = b"\xba\xf8\x03" + b"".join(b"\xb0%c\xee" % byte for byte in b"from the CD\n") + b"\xf4\xeb\xfd"
    (tmp_path / "tree/boot").write_bytes(loop.ljust(2048, b"\0"))
    image = tmp_path / "cd.iso"
    output_of("genisoimage", "-quiet", "-R", "-b", "boot", "-no-emul-boot", "-c", "boot.cat", "-o", str(image),
              str(tmp_path / "tree"))  # fmt: skip
    return image


def test_a_cd_starts_where_there_is_a_drive(tmp_path, capfd):
    image = cd(tmp_path)
    assert main(["check", str(image), "--target", "qemu"]) == 0
    assert "the image starts from a CD drive" in (told := capfd.readouterr().out)
    assert "attach it as a CD, as rumpbundle run does" in told
    assert main(["check", str(image), "--target", "ec2"]) == 5
    assert "the image starts only from a CD drive, and there is none" in capfd.readouterr().out
    assert main(["run", str(image), "--accel", "tcg", "--dry-run"]) == 0
    assert "ide-cd,bus=ahci0.0,drive=disk0" in capfd.readouterr().out
    assert main(["run", str(image), "--accel", "tcg", "--dry-run", "--bus", "virtio"]) == 0
    assert "virtio-blk-pci,drive=disk0" in capfd.readouterr().out


@pytest.mark.boot
def test_a_cd_starts_as_one(tmp_path):
    assert main(["run", str(cd(tmp_path)), "--accel", "tcg", "--expect", "from the CD", "--timeout", "60", "-q"]) == 0


@pytest.mark.parametrize(
    "command",
    ["mkfs.fat -F 12", "mkfs.fat -F 32", "mkntfs -q -F", "mkfs.exfat", ""],
)
def test_what_only_says_that_it_is_no_boot_disk_is_none(tmp_path, capfd, command):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(60 << 20)
    if command:
        output_of(*command.split(), str(path))
    else:  # as parted labels a disk for a PC-98
        with path.open("r+b") as file:
            file.write(b"\xcb\0\0\0IPL1".ljust(510, b"\0") + b"\x55\xaa")
    assert main(["check", str(path), "--target", "qemu", "--firmware", "bios"]) == 5
    assert "the image has no boot code for BIOS" in capfd.readouterr().out
    assert main(["convert", str(path), "-f", "vdi", "-o", str(tmp_path / "a.vdi")]) == 0
    assert "does not boot" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["ext4", "iso"])
def test_firmware_reads_a_loader_from_a_fat_alone(tmp_path, capfd, kind):
    path, tree = tmp_path / "disk.img", tmp_path / "tree"
    (tree / "EFI/BOOT").mkdir(parents=True)
    (tree / "EFI/BOOT/BOOTX64.EFI").write_bytes(b"MZ" + bytes(1000))
    made = ["mkfs.ext4", "-q", "-d", tree, path, "8M"] if kind == "ext4" else ["genisoimage", "-R", "-o", path, tree]
    output_of(*map(str, made))
    assert main(["check", str(path), "--target", "qemu", "--firmware", "uefi"]) == 5
    assert "the image has no boot code for UEFI" in capfd.readouterr().out


@pytest.fixture(scope="module")
def efi(tmp_path_factory):
    """A GPT disk that starts under UEFI, once in sectors of 512 bytes and once of 4096."""
    top = tmp_path_factory.mktemp("efi")
    raw, esp, loader = top / "512.raw", top / "esp", top / "BOOTX64.EFI"
    with raw.open("wb") as file:
        file.truncate(40 << 20)
    output_of("sfdisk", "-q", str(raw), input="label: gpt\nstart=2048, size=16384, type=U\n")
    output_of("mkfs.fat", "-C", "-F", "12", str(esp), "8192")
    loader.write_bytes(b"MZ" + bytes(50_000))
    output_of("mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT")
    output_of("mcopy", "-i", str(esp), str(loader), "::/EFI/BOOT/BOOTX64.EFI")
    with raw.open("r+b") as file:
        file.seek(1 << 20)
        file.write(esp.read_bytes())
    (top / "4096.raw").write_bytes(in_sectors_of(4096, raw.read_bytes()))
    return top


@pytest.mark.parametrize("target", ["virtualbox", "vmware", "azure", "ec2", "gce", "xen-hvm"])
def test_an_esp_that_only_a_table_of_other_sectors_names_is_not_found(efi, capfd, target):
    assert main(["check", str(efi / "512.raw"), "--target", target, "--firmware", "uefi", "--json"]) in (0, 5)
    assert json.loads(capfd.readouterr().out)["answers"]["boots"]["answer"] == "yes"
    assert main(["check", str(efi / "4096.raw"), "--target", target, "--firmware", "uefi"]) == 5
    said = " ".join(capfd.readouterr().out.split())
    assert "counts in sectors of 4096 bytes, and a disk has those of 512: firmware finds no partition" in said


def test_a_vmdk_of_several_files_is_judged_like_any(efi, tmp_path, capfd):
    image = tmp_path / "a.vmdk"
    flat = ["-o", "subformat=monolithicFlat"]
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vmdk", *flat, str(efi / "512.raw"), str(image))
    assert main(["check", str(image), "--target", "vmware", "--firmware", "uefi", "--json"]) in (0, 5)
    assert json.loads(capfd.readouterr().out)["answers"]["boots"]["answer"] == "yes"


def test_qemu_has_the_sectors_it_is_told(efi, capfd):
    assert main(["check", str(efi / "4096.raw"), "--target", "qemu", "--firmware", "uefi"]) in (0, 5)
    assert "logical_block_size=4096" in capfd.readouterr().out


@pytest.mark.parametrize(("said", "counted"), [(512, 512), (512, 4096), (4096, 512), (4096, 4096)])
def test_hyperv_has_the_sectors_a_vhdx_says(efi, tmp_path, capfd, said, counted):
    image = tmp_path / "a.vhdx"
    output_of("qemu-img", "convert", "-f", "raw", "-O", "vhdx", str(efi / f"{counted}.raw"), str(image))
    with open_disk(image) as disk:
        at = disk.items[vhdx.SECTOR_SIZE]
    with image.open("r+b") as file:
        file.seek(at)
        file.write(said.to_bytes(4, "little"))
    main(["check", str(image), "--target", "hyperv", "--firmware", "uefi", "--json"])
    boots = json.loads(capfd.readouterr().out)["answers"]["boots"]["answer"]
    assert boots == ("yes" if said == counted else "no")


def test_what_writes_vga_text_is_seen_under_bios_only():
    vga = kernel("plain", vga_text=True)
    assert [check(vga, "virtualbox", firmware=[f]).findings[3].answer for f in ("bios", "uefi")] == ["yes", "no"]
    assert check(vga, "gce").findings[3].answer == "no"


def test_seen_is_only_what_a_test_boots():
    assert check(PLAIN, "qemu").findings[0].basis == "seen"
    assert check(RUMPRUN, "qemu").findings[0].basis == "read"
    assert check(PLAIN, "vmware").findings[0].basis == "told"


def test_a_header_is_answered_for_by_firmware():
    trouble = Trouble(Protocol.MULTIBOOT2, Firmware.UEFI, "its Multiboot 2 header requires a console")
    guest = kernel("plain", protocols="multiboot2", troubles=(trouble,))
    assert [check(guest, "qemu", firmware=[f]).findings[0].answer for f in ("bios", "uefi")] == ["yes", "no"]


def test_a_unified_kernel_image_is_for_firmware_alone():
    uki = kernel("linux", protocols="efi")
    boots = check(uki, "qemu").findings[0]
    assert (boots.answer, boots.why) == ("yes", "firmware starts it, from EFI/BOOT/BOOTX64.EFI")
    assert [check(uki, target).findings[0].answer for target in ("xen-pv", "xen-pvh")] == ["no", "no"]


def test_what_is_neither_kernel_nor_image_is_told_so(tmp_path, capfd):
    noise = tmp_path / "noise"
    noise.write_bytes(bytes(range(1, 256)) * 1000)
    assert main(["check", str(noise), "--target", "qemu"]) == 2
    said = (
        f"error: {noise}: is no kernel of any known kind, and is no disk image\nhint: give a kernel or a disk image\n"
    )
    assert capfd.readouterr().err == said
    loops = tmp_path / "loops"
    loops.write_bytes(b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 16))
    assert main(["check", str(loops), "--target", "qemu"]) == 0
    assert "the image has boot code for BIOS" in capfd.readouterr().out


def test_a_driver_there_is_not_is_told_without_a_target_too(capsys):
    app = str(kernels.build("multiboot"))
    said = [main(["check", app, "--driver", "nvmee", *more]) for more in ([], ["--target", "ec2"])]
    assert said == [2, 2]
    assert capsys.readouterr().err == "error: --driver: no such driver: nvmee\nhint: did you mean nvme?\n" * 2


def test_what_bundling_warns_of_is_noted_where_the_kernel_boots():
    high = kernel("plain", warnings=("loads to 0x90000000",))
    assert "it loads to 0x90000000" in check(high, "qemu").notes
    assert check(high, "xen-pv").notes == check(PLAIN, "xen-pv").notes
