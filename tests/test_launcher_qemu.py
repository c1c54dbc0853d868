"""The QEMU command line, as a value."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from support.tools import require

from rumpbundle import knowledge
from rumpbundle.dev_launch import Options
from rumpbundle.errors import UsageError
from rumpbundle.kernels.unikernel import Device, Family, Firmware
from rumpbundle.launcher import backend, qemu, registry, requests
from rumpbundle.launcher.backend import Drive, Forward, LaunchRequest, forwards
from rumpbundle.launcher.qemu import Machine, command

PLAIN = Machine(
    type="pc",
    accel="tcg",
    memory=64 << 20,
    display="none",
    disk=Drive(path="a.raw"),
    attach=("ide-hd,drive={drive}",),
)
REQUEST = LaunchRequest(name="app", disk=Drive(path="app.raw"), accel="tcg")


def options(argv: tuple[str, ...], name: str) -> list[str]:
    """Return the values of every *name* in *argv*."""
    return [value for option, value in pairwise(argv) if option == name]


def test_the_whole_command():
    assert " ".join(command(PLAIN)) == (
        "qemu-system-x86_64 -nodefaults -no-user-config -machine pc -accel tcg -m 64M -display none -vga none"
        " -no-reboot -boot menu=off,strict=on,reboot-timeout=0 -serial mon:stdio"
        " -drive if=none,id=disk0,snapshot=on,driver=raw,file.driver=file,file.filename=a.raw"
        " -device ide-hd,drive=disk0"
        " -device isa-debug-exit,iobase=0xf4,iosize=4 -device isa-debug-exit,iobase=0x501,iosize=4 -device pvpanic"
    )


def test_commas_in_names_are_doubled():
    argv = command(replace(PLAIN, disk=Drive(path="/a,b,snapshot=off,file=/etc/passwd")))
    assert options(argv, "-drive") == [
        "if=none,id=disk0,snapshot=on,driver=raw,file.driver=file,file.filename=/a,,b,,snapshot=off,,file=/etc/passwd"
    ]


def test_the_image_is_written_only_on_request():
    assert "snapshot=on" in options(command(PLAIN), "-drive")[0]
    assert "snapshot" not in options(command(replace(PLAIN, disk=Drive(path="a", persist=True))), "-drive")[0]


def test_a_disk_inside_a_file():
    disk = Drive(path="a.ova", format="vmdk", offset=1024, length=4096)
    (drive,) = options(command(replace(PLAIN, disk=disk)), "-drive")
    before, _, node = drive.partition("file=json:")
    assert before == "if=none,id=disk0,snapshot=on,"
    assert json.loads(node.replace(",,", ",")) == {
        "driver": "vmdk",
        "backing": None,
        "file": {
            "driver": "raw",
            "offset": 1024,
            "size": 4096,
            "file": {"driver": "file", "filename": "a.ova"},
        },
    }
    raw = replace(disk, path="a,b.vhd", format="raw", offset=0, persist=True)
    (drive,) = options(command(replace(PLAIN, disk=raw)), "-drive")
    assert drive == "if=none,id=disk0,driver=raw,offset=0,size=4096,file.driver=file,file.filename=a,,b.vhd"


def test_a_hypervisor_of_ours_opens_the_file_we_have_opened():
    machine = replace(PLAIN, disk=Drive(path="a.raw", fd=7), further=(Drive(path="b.raw", fd=8),))
    assert [drive.partition("filename=")[2] for drive in options(command(machine), "-drive")] == ["a.raw", "b.raw"]
    opened = options(command(machine, inherited=True), "-drive")
    assert [drive.partition("filename=")[2] for drive in opened] == ["/dev/fd/7", "/dev/fd/8"]


def test_uefi_gets_a_variable_store_that_forgets():
    argv = command(replace(PLAIN, uefi=("/CODE.fd", "/VARS.fd")))
    assert options(argv, "-drive")[:2] == [
        "if=pflash,unit=0,format=raw,readonly=on,file=/CODE.fd",
        "if=pflash,unit=1,format=raw,snapshot=on,file=/VARS.fd",
    ]


@pytest.mark.parametrize("place", ["/opt/homebrew/share/qemu", "/usr/local/share/qemu"])
def test_uefi_is_found_where_homebrew_has_it(monkeypatch, place):
    there = {f"{place}/edk2-x86_64-code.fd", f"{place}/edk2-i386-vars.fd"}
    monkeypatch.setattr(qemu.os.path, "exists", there.__contains__)
    assert set(qemu.find_uefi()) == there


def test_published_ports_listen_on_loopback_only():
    machine = replace(PLAIN, card="e1000,netdev={netdev}", publish=(Forward(8080, 80), Forward(53, 53, "udp")))
    argv = command(machine)
    assert options(argv, "-netdev") == ["user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80,hostfwd=udp:127.0.0.1:53-:53"]
    assert "e1000,netdev=net0,romfile=" in options(argv, "-device")


def test_a_debugger_is_waited_for():
    argv = command(replace(PLAIN, gdb=1234))
    assert options(argv, "-gdb") == ["tcp:127.0.0.1:1234"]
    assert "-S" in argv


def test_the_users_own_arguments_come_last_and_untouched():
    assert command(replace(PLAIN, args=("-m", "1G", "a b,c")))[-3:] == ("-m", "1G", "a b,c")


def test_rumprun_gets_a_machine_it_can_drive():
    machine = qemu.machine_for(replace(REQUEST, family=Family.RUMPRUN))
    assert (machine.type, machine.display, machine.settings) == ("pc", "none", ())
    assert machine.attach[0].startswith("virtio-blk-pci,")
    assert "disable-legacy=off" in machine.attach[0]
    uefi = qemu.machine_for(replace(REQUEST, family=Family.RUMPRUN, firmware=Firmware.UEFI))
    assert uefi.settings == ("ICH9-LPC.disable_s3=1",)
    pc = replace(REQUEST, family=Family.RUMPRUN, firmware=Firmware.UEFI, bus="ide")
    assert qemu.machine_for(pc).settings == ("PIIX4_PM.disable_s3=1",)


def test_a_large_kernel_gets_a_machine_with_much_memory_below_4_gib():
    uefi = replace(REQUEST, firmware=Firmware.UEFI)
    types = [qemu.machine_for(replace(uefi, footprint=size << 20)).type for size in (64, 2048, 2049, 3072, 3073)]
    assert types == ["q35", "q35", "pc", "pc", "q35"]


def test_solo5_never_boots_from_the_disk_it_would_overwrite():
    machine = qemu.machine_for(replace(REQUEST, family=Family.SOLO5))
    assert not any("virtio-blk" in device for device in machine.attach)


def solo5(*devices: Device) -> LaunchRequest:
    return replace(REQUEST, family=Family.SOLO5, devices=devices)


def test_solo5_gets_what_its_manifest_asks_for():
    """It stops at a virtio device its manifest does not name, and at one that it names and does not find."""
    assert qemu.machine_for(solo5()).card is None
    assert qemu.machine_for(solo5(Device("service", "net"))).card is not None
    with pytest.raises(UsageError, match="--publish: its manifest asks for no network device"):
        qemu.machine_for(replace(solo5(Device("storage", "block")), publish=(Forward(8080, 80),)))
    storage = solo5(Device("storage", "block"))
    assert "block devices it will not find (storage)" in qemu.BACKEND.plan(storage).notes[0]
    assert not qemu.BACKEND.plan(replace(storage, args=("-drive", "if=virtio,file=x"))).notes
    assert not qemu.BACKEND.plan(replace(storage, further=(Drive(path="x"),))).notes


def test_solo5_gets_as_many_cards_as_its_manifest_names():
    wanted = solo5(Device("front", "net"), Device("disk", "block"), Device("back", "net"))
    argv = command(qemu.machine_for(replace(wanted, further=(Drive(path="1"),), publish=(Forward(8080, 80),))))
    assert options(argv, "-netdev") == ["user,id=net0,hostfwd=tcp:127.0.0.1:8080-:80", "user,id=net1"]
    found = [device.split(",")[0] for device in options(argv, "-device") if device.startswith("virtio")]
    assert found == ["virtio-net-pci", "virtio-blk-pci", "virtio-net-pci"]


@pytest.mark.boot
def test_a_pc_has_so_many_devices(tmp_path: Path):
    """QEMU starts with all we allow, and not with many more."""
    require(qemu.PROGRAM)
    (tmp_path / "x").write_bytes(bytes(4096))
    disks = tuple(Drive(path=str(tmp_path / "x")) for _ in range(qemu.SLOTS - 1))
    for machine in ("ide", "sata"):
        full = replace(REQUEST, further=disks, bus=machine, screen="text", disk=disks[0])
        argv = [*command(qemu.machine_for(full)), "-S", "-monitor", "stdio", "-serial", "none"]
        argv = [word if word != "mon:stdio" else "none" for word in argv]
        done = subprocess.run(argv, input=b"quit\n", capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")
    with pytest.raises(UsageError, match="a PC has room for 27 disks and network cards besides its own, not for 28"):
        qemu.machine_for(replace(REQUEST, further=(*disks, disks[0])))


def test_solo5_finds_its_devices_in_the_order_of_its_manifest():
    wanted = solo5(Device("a", "block"), Device("service", "net"), Device("b", "block"))
    machine = qemu.machine_for(replace(wanted, further=(Drive(path="1"), Drive(path="2"), Drive(path="3"))))
    found = [device.split(",")[0] for device in options(command(machine), "-device") if device.startswith("virtio")]
    assert found == ["virtio-blk-pci", "virtio-net-pci", "virtio-blk-pci", "virtio-blk-pci"]
    drives = [device.split(",")[1] for device in options(command(machine), "-device") if "virtio-blk" in device]
    assert drives == ["drive=disk1", "drive=disk2", "drive=disk3"]


@pytest.mark.parametrize("bus", backend.BUSES)
def test_every_bus_can_be_asked_for(bus: str):
    facts = {facts.option: facts for facts in knowledge.qemu().buses.values()}[bus]
    assert qemu.machine_for(replace(REQUEST, bus=bus)).attach == facts.device


def test_memory_is_what_the_guest_needs_or_the_user_says():
    assert qemu.machine_for(replace(REQUEST, family=Family.LINUX)).memory == 256 << 20
    large = replace(REQUEST, footprint=200 << 20)
    assert qemu.machine_for(large).memory == 232 << 20
    assert qemu.machine_for(replace(large, firmware=Firmware.UEFI)).memory == 437 << 20
    assert qemu.machine_for(replace(large, footprint=1 << 20)).memory == 128 << 20
    assert "-m 12M" in " ".join(command(qemu.machine_for(replace(REQUEST, memory=12 << 20))))
    assert "-m 1000B" in " ".join(command(qemu.machine_for(replace(REQUEST, memory=1000))))


def test_a_kernel_that_draws_gets_a_display_and_is_announced():
    assert qemu.machine_for(REQUEST).display == "none"
    for screen, word in (
        ("framebuffer", "asks for a framebuffer"),
        ("text", "writes to the VGA text screen"),
        ("console", "asks for a VGA text screen"),
        ("terminal", "--cmdline console=ttyS0"),
    ):
        drawing = replace(REQUEST, screen=screen)
        assert qemu.machine_for(drawing).display == "std"
        assert word in qemu.BACKEND.plan(drawing).notes[0]
    told = replace(REQUEST, screen="terminal", cmdline="console=ttyS0,115200")
    assert (qemu.machine_for(told).display, qemu.BACKEND.plan(told).notes) == ("std", ())
    # rumprun would print there and not on the serial port.
    assert qemu.machine_for(replace(REQUEST, family=Family.RUMPRUN, screen="text")).display == "none"


def test_a_guest_that_would_be_silent_is_announced():
    linux = replace(REQUEST, family=Family.LINUX)
    assert qemu.BACKEND.plan(linux).notes == (
        "Linux speaks here only with console=ttyS0 on its command line: --cmdline console=ttyS0",
    )
    assert not qemu.BACKEND.plan(replace(linux, cmdline="quiet console=ttyS0,115200")).notes
    further = replace(REQUEST, family=Family.RUMPRUN, further=(Drive(path="x.ext2"),))
    assert "nothing mounts these disks" in qemu.BACKEND.plan(further).notes[0]


def test_own_network_arguments_replace_ours():
    assert qemu.machine_for(REQUEST).card is not None
    assert qemu.machine_for(replace(REQUEST, args=("-nic", "none"))).card is None
    both = replace(REQUEST, args=("-nic", "none"), publish=(Forward(8080, 80),))
    assert qemu.machine_for(both).card is not None


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="no such bus: scuzzi"):
        qemu.machine_for(replace(REQUEST, bus="scuzzi"))
    with pytest.raises(UsageError, match="no such backend: qemo") as caught:
        registry.find("qemo")
    assert caught.value.hint == "did you mean qemu?"


def test_ports():
    assert Forward.parse("8080:80") == Forward(8080, 80)
    assert Forward.parse("53:5353/udp") == Forward(53, 5353, "udp")
    for text in ("80", "0:80", "80:65536", "80:80/sctp", "80:80/", "a:b", "1:2:3", "80:-:80", "٨:80", "8080:80,x"):
        with pytest.raises(UsageError, match=r"--publish"):
            Forward.parse(text)


def test_a_port_of_the_host_leads_to_one():
    given = ("80:80", "80:80", "81:80", "80:53/udp")
    assert forwards(given) == (Forward(80, 80), Forward(81, 80), Forward(80, 53, "udp"))
    with pytest.raises(UsageError, match="--publish: the port 80/tcp leads to two"):
        Options(publish=("80:80", "80:81"))


def test_the_plan_can_be_pasted():
    plan = qemu.BACKEND.plan(replace(REQUEST, disk=Drive(path="my disk.raw")))
    assert plan.commands[0].startswith("qemu-system-x86_64 ")
    assert "'if=none,id=disk0,snapshot=on,driver=raw,file.driver=file,file.filename=my disk.raw'" in plan.commands[0]


# --- the backends that only tell their commands ---


def test_bhyve_commands():
    further = (Drive(path="x.iso"), Drive(path="y.ext2", persist=True))
    request = replace(
        REQUEST, family=Family.RUMPRUN, publish=(Forward(8080, 80),), gdb=1234, args=("-w",), further=further
    )
    plan = registry.find("bhyve").plan(request)
    assert not plan.tested
    assert plan.commands == (
        (
            "bhyve -A -H -P -m 64M -s 0,hostbridge -s 31,lpc -l com1,stdio"
            " -l bootrom,/usr/local/share/uefi-firmware/BHYVE_UEFI_CSM.fd -s 2,virtio-blk,app.raw,ro"
            " -s 3,virtio-net,slirp,hostfwd=tcp:127.0.0.1:8080-:80 -s 4,virtio-blk,x.iso,ro -s 5,virtio-blk,y.ext2"
            " -G w127.0.0.1:1234 -w app"
        ),
        "bhyvectl --vm=app --destroy",
    )
    persist = Drive(path="app.raw", persist=True)
    solo5 = registry.find("bhyve").plan(replace(REQUEST, family=Family.SOLO5, firmware=Firmware.UEFI, disk=persist))
    assert "-s 2,ahci-hd,app.raw " in solo5.commands[0]
    assert "BHYVE_UEFI.fd" in solo5.commands[0]


def test_virtualbox_commands():
    plan = registry.find("vbox").plan(replace(REQUEST, family=Family.SOLO5, publish=(Forward(8080, 80),)))
    assert not plan.tested
    assert plan.commands == (
        "VBoxManage convertfromraw app.raw app.vdi --format VDI",
        "VBoxManage createvm --name app --ostype Other_64 --register",
        (
            "VBoxManage modifyvm app --memory 128 --firmware bios --ioapic on --boot1 disk --boot2 none --boot3 none"
            " --boot4 none --nic1 nat --nictype1 virtio --natpf1 rule0,tcp,127.0.0.1,8080,,80"
            " --uart1 0x3f8 4 --uartmode1 file /tmp/app.console"
        ),
        "VBoxManage storagectl app --name disk --add sata --bootable on",
        "VBoxManage storageattach app --storagectl disk --port 0 --device 0 --type hdd --medium app.vdi",
        "VBoxManage startvm app --type headless",
        "tail -F /tmp/app.console",
        "VBoxManage controlvm app poweroff",
        "VBoxManage storageattach app --storagectl disk --port 0 --device 0 --medium none",
        "VBoxManage unregistervm app --delete",
    )


def test_virtualbox_forgets_what_shall_not_persist():
    vbox, vdi = registry.find("vbox"), Drive(path="a.vdi", format="vdi")
    lines = vbox.plan(replace(REQUEST, disk=vdi, further=(Drive(path="x.iso"),))).commands
    assert lines[0] == "VBoxManage convertfromraw x.iso app1.vdi --format VDI"
    attach = "VBoxManage storageattach app --storagectl disk --port"
    assert [line.removeprefix(attach) for line in lines if "storageattach" in line] == [
        " 0 --device 0 --type hdd --mtype immutable --medium a.vdi",
        " 1 --device 0 --type hdd --medium app1.vdi",
        " 0 --device 0 --medium none",
        " 1 --device 0 --medium none",
    ]
    kept = vbox.plan(replace(REQUEST, disk=replace(vdi, persist=True))).commands
    assert not any("immutable" in line for line in kept)


def test_what_bhyve_cannot_be_told_is_refused():
    with pytest.raises(UsageError, match=r"a,b\.raw: bhyve takes no file with a comma in its name"):
        registry.find("bhyve").plan(replace(REQUEST, disk=Drive(path="a,b.raw")))


def test_no_machines_name_is_an_option(tmp_path):
    image = tmp_path / "-rf.raw"
    image.write_bytes(bytes(1 << 20))
    with contextlib.ExitStack() as stack:
        assert requests.of_image(image, stack).name == "rf.raw"


@pytest.mark.parametrize("name", ["bhyve", "vbox"])
def test_they_start_nothing_and_refuse_what_they_lack(name: str):
    chosen = registry.find(name)
    with pytest.raises(UsageError, match="only tells its commands"):
        chosen.start(chosen.plan(REQUEST), lambda event: None)
    with pytest.raises(UsageError, match="has no bus"):
        chosen.plan(replace(REQUEST, bus="ide" if name == "bhyve" else "virtio"))
    with pytest.raises(UsageError, match="disks"):
        chosen.plan(replace(REQUEST, disk=Drive(path="a.qcow2", format="qcow2")))
