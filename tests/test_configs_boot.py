"""Each machine gets its own configuration: on both firmwares, through every channel a guest has."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess

import pytest
from support import images, kernels, linux, qemu, rumprun
from support.kernels import Module, Report
from support.tools import output_of

import rumpbundle
from rumpbundle.bundling.writing import ModuleFile
from rumpbundle.cli import main
from rumpbundle.config import Config, Program
from rumpbundle.kernels.unikernel import Family, Unikernel

pytestmark = pytest.mark.boot

UUID = "8c4f1e2a-0000-1111-2222-333344445555"
MACHINES = {
    f"uuid:{UUID.upper()}": ["-uuid", UUID, "-smbios", "type=1,serial=web7"],
    "serial:web7": ["-smbios", "type=1,serial=web7"],
    "a b=c\\$`*?[": ["-smbios", "type=11,value=web7", "-smbios", "type=11,value=a b=c\\$`*?["],
    "": ["-smbios", "type=1,serial=../serial:web7", "-smbios", "type=3,asset=="],
}
"""What firmware says of a machine, by the KEY that fits it; the last one has none."""


def settings(key):
    """Return the configuration for *key*: it tells its key in letters every channel carries."""
    return Config(rc=(Program(bin="app", argv=(f"for-{key.encode().hex()}",)),))


@pytest.fixture(
    params=[
        (Family.RUMPRUN, "hw_virtio", frozenset({"virtio-blk"})),
        (Family.SOLO5, "virtio", frozenset()),
        (Family.UNIKRAFT, "", frozenset()),
    ],
    ids=lambda family: str(family[0]),
)
def family(request, monkeypatch):
    """Make every kernel pass for one of a family, one after another; return the family."""
    real = Unikernel.read
    family, target, drivers = request.param

    def read(path, **options):
        return dataclasses.replace(real(path, **options), family=family, target=target, drivers=drivers)

    monkeypatch.setattr(Unikernel, "read", read)
    return family


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_each_machine_gets_its_own(family, firmware, tmp_path):
    configs = {key: settings(key) for key in MACHINES if key}
    image = images.make(tmp_path, kernels.build("multiboot"), config=settings(""), configs=configs)
    # OVMF is slow, and GRUB's choice has nothing to do with the family: one of them has all machines there.
    machines = (
        MACHINES if firmware == "bios" or family is Family.RUMPRUN else {"serial:web7": MACHINES["serial:web7"]}
    )
    for key, words in machines.items():
        report = Report.parse(qemu.boot(image, firmware=firmware, bus="ahci", extra=words).serial)
        argument = f"for-{key.encode().hex()}"
        if family is Family.RUMPRUN:
            assert report.modules == (Module.of(f'{{"rc":[{{"bin":"app","argv":["{argument}"]}}]}}'.encode()),)
        else:
            assert report.cmdline.decode().split() == ["multiboot", *(["--"] * (family == "unikraft")), argument]


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_where_none_is_for_it_the_machine_says_what_it_is(firmware, tmp_path):
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0")
    image = images.make(tmp_path, tmp_path / "web.bin", configs={"serial:web7": settings("x")})
    words = ["-uuid", UUID, "-smbios", 'type=1,serial=x"; echo no', "-smbios", "type=11,value=that is all"]
    words += ["-smbios", "type=3,asset=../serial:web7"]
    result = qemu.boot(image, firmware=firmware, extra=words, until="oem:that is all")
    assert "The machine is:" in result.text
    said = dict(re.findall(r"^  (\w+):(.*?)(?:  \1:.*)?$", result.text, re.MULTILINE))
    product = said.pop("product")
    assert product.startswith("Standard PC")
    assert said == {"uuid": UUID, "serial": 'x"; echo no', "asset": "../serial:web7", "oem": "that is all"}
    assert "magic" not in result.text


def test_a_long_one_is_a_file_of_its_own(tmp_path):
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0")
    long = Config(env={f"V{n}": "x" * 100 for n in range(100)})
    image = images.make(tmp_path, tmp_path / "web.bin", config=settings("x"), configs={"k" * 200: long})
    machine = ["-smbios", f"type=11,value={'k' * 200}"]
    report = Report.parse(qemu.boot(image, extra=machine).serial)
    assert report.modules == ()
    name = report.cmdline.decode().partition("_RUMPRUN_ROOTFSCFG=")[2]
    text = output_of("isoinfo", "-R", "-x", name, "-i", str(image)).encode()
    assert rumprun.boot(report.cmdline.decode(), [], {name.lstrip("/"): text}).env == long.env


def test_ten_thousand_are_no_slower_than_two(tmp_path):
    """A chain of ten thousand questions takes GRUB minutes, and so would the boot."""
    kernel = kernels.build("multiboot")
    (tmp_path / "web.bin").write_bytes(kernel.read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0")
    configs = {f"machine-{number}": settings(str(number)) for number in range(10_000)}
    image = images.make(tmp_path, tmp_path / "web.bin", configs=configs)
    assert image.stat().st_size < 60 << 20
    result = qemu.boot(image, extra=["-smbios", "type=1,serial=machine-9999"], timeout=20)
    wanted = f'{{"rc":[{{"bin":"app","argv":["for-{b"9999".hex()}"]}}]}}'
    assert Report.parse(result.serial).modules == (Module.of(wanted.encode()),)


@pytest.mark.parametrize("firmware", qemu.FIRMWARES)
def test_a_linux_gets_its_command_line_and_the_initrds(firmware, tmp_path):
    initrd = linux.initrd(tmp_path / "initrd", 'echo "I am $WHO, data $(cat /srv/f)"', modules=())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "f").write_text("for all")
    rumpbundle.bundle(
        linux.kernel(),
        "raw",
        output=tmp_path / "linux.raw",
        cmdline="console=ttyS0 quiet panic=-1",
        modules=(ModuleFile(initrd),),
        data=(f"{tmp_path / 'data'}:/srv",),
        config=Config(env={"WHO": "nobody"}),
        configs={"serial:web7": Config(env={"WHO": "seven"}), UUID: Config(env={"WHO": "eight"})},
    )
    machines = {"seven": MACHINES["serial:web7"], "eight": ["-uuid", UUID], "nobody": []}
    for who in machines if firmware == "bios" else ["seven"]:
        said = qemu.boot(
            tmp_path / "linux.raw", firmware=firmware, memory="512M", timeout=120, until="I am .*for all",
            extra=machines[who],
        )  # fmt: skip
        assert f"I am {who}, data for all" in said.text


def test_run_gives_the_machine_an_identity(tmp_path, capfd):
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0")
    (tmp_path / "a.json").write_text(json.dumps({"env": {"WHO": "a"}}))
    argv = ["raw", str(tmp_path / "web.bin"), "-q", "-o", str(tmp_path / "a.raw")]
    assert main([*argv, "--config-for", f"oem:x,y=z={tmp_path / 'a.json'}"]) == 0
    run = ["run", str(tmp_path / "a.raw"), "--accel", "tcg", "--timeout", "60"]
    assert main([*run, "--as", "oem:x,y=z", "--expect", "end of report"]) == 0
    assert main([*run, "--as", "nobody", "--expect", "serial:nobody"]) == 0
    capfd.readouterr()
    assert main([*run, "--as", "a/b"]) == 2
    assert "--as: a KEY has no slash" in capfd.readouterr().err


def told(variable):
    """Return the module by which the kernel below learns of *variable* alone."""
    return (Module.of(f'{{"env":"{variable}",\n"rc":[{{"bin":"web","argv":[]}}]}}'.encode()),)


def test_run_boots_a_copy_with_another_configuration(tmp_path, capfd, monkeypatch):
    (tmp_path / "web.bin").write_bytes(kernels.build("multiboot").read_bytes() + b"_RUMPRUN_ROOTFSCFG=\0ld_virtio\0")
    (tmp_path / "a.json").write_text(json.dumps({"env": {"WHO": "a"}}))
    monkeypatch.chdir(tmp_path)
    assert main(["vmdk", "web.bin", "-q", "-e", "WHO=b"]) == 0
    image = (tmp_path / "web.vmdk").read_bytes()
    run = ["run", "web.vmdk", "--accel", "tcg", "--timeout", "120"]
    for words, wanted in (
        ([], "WHO=b"),
        (["-c", "a.json"], "WHO=a"),
        (["-e", "WHO=c"], "WHO=c"),
        (["--config-for", "web7=a.json", "--as", "web7"], "WHO=a"),
    ):
        capfd.readouterr()
        assert main([*run, *words, "--expect", "end of report"]) == 0
        report = Report.parse(capfd.readouterr().out.encode())
        assert report.modules == told(wanted)
    assert (tmp_path / "web.vmdk").read_bytes() == image
    assert main([*run, "-e", "WHO=c", "--persist"]) == 2
    capfd.readouterr()
    assert main([*run, "-c", "a.json", "--expect", "end of report", "--dry-run"]) == 0
    for line in capfd.readouterr().out.splitlines():
        command = shlex.split(line)
        assert (main(command[1:]) if command[0] == "rumpbundle" else subprocess.run(command).returncode) == 0
    report = Report.parse(capfd.readouterr().out.encode())
    assert report.modules == told("WHO=a")
    assert sorted(os.listdir()) == ["a.json", "web.bin", "web.vmdk"]
    assert main(["raw", str(kernels.build("multiboot")), "-q", "-o", "plain.raw"]) == 0
    assert main(["run", "plain.raw", *run[2:], "--cmdline", "of its own", "--expect", "multiboot of its own"]) == 0
