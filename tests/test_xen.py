"""What we write for Xen, shown to a real one: Debian's Xen and toolstack in QEMU (``support/xenhost.py``).

Many guests share one boot of dom0. Each is shown to ``xl create -n``, started by the commands we tell people or by
those the launcher runs, and says on its own console what reached it. On an idle core Xen and dom0 take 10 s, a PV
or PVH guest 1 s.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest
from support import kernels, xenhost
from support import linux as linux_guest

import rumpbundle
from rumpbundle.bundling.writing import ModuleFile
from rumpbundle.config import Config, Program
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File
from rumpbundle.formats.xen import XenOptions
from rumpbundle.guests import Writable
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.launcher.backend import Drive, LaunchRequest
from rumpbundle.launcher.xl import BACKEND, shutdown_reason
from rumpbundle.xen import xl

pytestmark = pytest.mark.boot

TRICKY = "a  b\\c\\\\ \"q\" 's' é $x `y` #z %s {w} ;"
"""A text with everything that xl.cfg, the shell and xenstore-write treat in a way of their own."""
CONFIG = json.dumps({"rc": [{"bin": TRICKY, "argv": ["\n\t\x41"]}], "é": "\\"}, ensure_ascii=False) + " \\x41\\"
MODULE = os.urandom(100_001)


def of_size(size):
    """Return a configuration of *size* bytes, most of them in escapes."""
    filler = size - len(CONFIG.encode())
    return CONFIG + "\\x" * (filler // 2) + "x" * (filler % 2)


@dataclass(frozen=True)
class Guest:
    """A domain to start: its files, the commands that start it, and what it should say."""

    name: str
    files: dict
    commands: str
    domain: xl.Domain | None = None
    config: bytes | None = None
    protocol: str = "xen-pv"
    cmdline: str = ""
    modules: tuple = ()


def kit(tmp_path, name, kernel, *, options=None, **recipe):
    """Return a guest that is a kit of ours, started as ``--print-commands`` says."""
    output = tmp_path / f"{name}.xen"
    result = rumpbundle.bundle(
        kernel if isinstance(kernel, Path) else kernels.build(kernel),
        "xen",
        output=output,
        name=name,
        options=XenOptions(**options or {}),
        **recipe,
    )
    files = {path.name: path for path in output.iterdir()}
    commands = [line.replace(str(output), f"/job/{name}") for line in result.commands]
    commands[-1] += f" </dev/null >/results/{name}.console"
    config = files["cfg.json"].read_bytes() if "cfg.json" in files else None
    return Guest(name, files, "\n".join(commands), config=config)


def launched(domain, files, config=None, **expected):
    """Return a guest that is started as the launcher does it."""
    name, number = domain.name, 31337
    lines = [
        f"cd /job/{name}",
        shlex.join(xl.create("xl.cfg")),
        f"D=$({shlex.join(xl.domain_id(name))})",
        f"{shlex.join(xl.console(number))} </dev/null >/results/{name}.console & console=$!",
        # What a domain says is lost if it ends before the console is attached.
        "until ls -l /proc/$console/fd | grep -q pts; do usleep 20000; done",
    ]
    if config is not None:
        lines.append(shlex.join(xl.write_config(number, config)))
    lines += [shlex.join(xl.unpause(number)), "wait $console"]
    script = "\n".join(lines).replace(str(number), "$D").replace("'/local/domain/$D/rumprun/cfg'", STORE)
    files = files | {"xl.cfg": domain.text().encode()}
    encoded = None if config is None else config.encode()
    return Guest(name, files, script, domain, encoded, cmdline=domain.cmdline, **expected)


STORE = '"/local/domain/$D/rumprun/cfg"'


def job(guests):
    """Return the files of a dom0 job that shows each guest's xl.cfg to ``xl create -n`` and then starts it."""
    files = {f"{guest.name}/{path}": data for guest in guests for path, data in guest.files.items()}
    script = ""
    for guest in guests:
        script += f"cd /job/{guest.name}; xl create -n xl.cfg >/results/{guest.name}.json\n"
        script += f"(set -e; {guest.commands}\n) || echo {guest.name}: the commands gave an error\n"
        script += f"xl destroy {guest.name} 2>/dev/null\n"
    return files | {"run": script.encode()}


def understood(results, name):
    """Return what xl understood of the ``xl.cfg`` of *name*."""
    text = results.files[f"{name}.json"].decode()
    return json.loads(text[text.index("{") :])


def check_understood(results, domain):
    """Assert that xl understood exactly what *domain* means."""
    got = understood(results, domain.name)
    info = got["b_info"]
    assert got["c_info"]["name"] == domain.name
    assert got["c_info"]["type"] == domain.kind
    assert info["max_memkb"] == domain.memory * 1024
    assert (info.get("kernel"), info.get("ramdisk")) == (domain.kernel, domain.ramdisk)
    assert info.get("cmdline", "") == domain.cmdline
    disks = [(d["pdev_path"], d["vdev"], d["format"], bool(d.get("readwrite"))) for d in got.get("disks", [])]
    assert disks == [(d.path, d.vdev, "raw", d.writable) for d in domain.disks]
    # destroy is xl's default and not printed.
    assert got.get("on_reboot", "destroy") == ("restart" if domain.restarts else "destroy")
    assert got.get("on_poweroff", "destroy") == got.get("on_crash", "destroy") == "destroy"


def check_said(results, guest):
    """Assert that the test kernel of *guest* got everything, byte for byte."""
    console = results.files.get(f"{guest.name}.console", b"")
    said = kernels.Report.parse(console)
    log = results.files[f"xen/console/guest-{guest.name}.log"]
    assert kernels.Report.parse(log) == said, "the attached console missed a part of what the guest said"
    assert said.protocol == guest.protocol
    assert said.cmdline == guest.cmdline.encode()
    assert said.modules == tuple(kernels.Module.of(module) for module in guest.modules)
    assert kernels.field(console, "config") == guest.config


def test_pv_and_pvh_guests_get_what_was_meant(tmp_path):
    pv = {"kernel": "k", "memory": 32, "kind": xl.DomainKind.PV}
    pvh = pv | {"kind": xl.DomainKind.PVH}
    files = {"k": kernels.build("xen-pv")}
    disks = (
        xl.DomainDisk(path="disk.raw", vdev="xvda"),
        xl.DomainDisk(path="/job/disks/ü,'\"#%s=.raw", vdev="xvdb", writable=False),
    )
    guests = [
        launched(
            xl.Domain(name="tricky", **pv, cmdline=TRICKY, ramdisk="r d"),
            files | {"r d": MODULE},
            CONFIG,
            modules=(MODULE,),
        ),
        launched(xl.Domain(name="most", **pv, cmdline="x" * xl.PV_CMDLINE_MAX), files, of_size(xl.CONFIG_MAX)),
        launched(
            xl.Domain(name="disks", **pv, disks=disks, restarts=False),
            files | {"disk.raw": bytes(1 << 20), "ü,'\"#%s=.raw": bytes(4096)},
        ),
        launched(
            xl.Domain(name="pvh", **pvh, cmdline=TRICKY + "x" * 4000, ramdisk="initrd"),
            {"k": kernels.build("xen-pvh"), "initrd": MODULE},
            of_size(4000),
            protocol="xen-pvh",
            modules=(MODULE,),
        ),
        # Started as it would be without our refusal.
        launched(xl.Domain(name="cut", **pvh, cmdline="x" * 1100), files),
    ]
    cut = guests[-1]
    cut.files["xl.cfg"] = cut.files["xl.cfg"].replace(b'"pvh"', b'"pv"')
    results = xenhost.run(job(guests), memory=448, dom0_memory=224, timeout=300)
    assert b"commands gave an error" not in results.files["log"], results.files["log"].decode()
    for guest in guests[:-1]:
        check_understood(results, guest.domain)
        check_said(results, guest)
    assert understood(results, "cut")["b_info"]["cmdline"] == "x" * 1100
    assert kernels.Report.parse(results.files["cut.console"]).cmdline == b"x" * 1023


def finished(tmp_path, name, format, driver):
    """Return a finished image, whose format QEMU calls *driver*, as ``run --boot xl --persist`` starts it.

    Under UEFI: each guest that calls SeaBIOS for its disk may stall the emulated host (``xenhost.RESTARTS``).
    """
    image = f"app.{format}"
    rumpbundle.bundle(kernels.build("multiboot"), format, output=tmp_path / image, cmdline="halt")
    disk = Drive(path=image, format=driver, persist=True)
    plan = BACKEND.plan(
        LaunchRequest(name=name, disk=disk, firmware=Firmware.UEFI, memory=128 << 20, args=("vga='none'", "vnc=0"))
    )
    create, console, _ = plan.commands
    return Guest(name, {image: tmp_path / image}, f"{create}\n{console} </dev/null >/results/{name}.console")


@pytest.mark.timeout(1800)
def test_hvm_guests_boot_the_disk(tmp_path):
    guests = [
        kit(
            *(tmp_path, firmware, "multiboot"),
            firmware=firmware,
            cmdline="halt",
            # A screen costs a second a line: each character is a trap to the device model in dom0.
            options={"set": ("vga='none'", "vnc=0"), "memory": 128 << 20},
        )
        for firmware in ("bios", "uefi")
    ]
    guests.append(finished(tmp_path, "image", "qcow2", "qcow2"))
    files = job(guests)
    script = ""
    for guest in guests:
        console = f"/results/{guest.name}.console"
        parse = next(line for line in guest.commands.splitlines() if line.startswith("xl create -p "))
        script += f"cd /job/{guest.name}; {parse.replace(' -p ', ' -n ')} >/results/{guest.name}.json\n"
        script += f"({guest.commands}) &\n"
        script += f"until grep -q 'end of report' {console}; do sleep 1; done; xl destroy {guest.name}; wait\n"
    results = xenhost.run(files | {"run": script.encode()}, hvm=True, memory=900, dom0_memory=400, timeout=300)
    for guest in guests:
        # SeaBIOS is xl's default and not printed.
        assert understood(results, guest.name)["b_info"]["type.hvm"].get("bios", "bios") == BIOS[guest.name]
        console = results.files.get(f"{guest.name}.console", b"")
        device_model = results.files.get(f"xen/qemu-dm-{guest.name}.log", b"")
        assert b"end of report" in console, (results.files["log"] + device_model).decode()
        assert kernels.Report.parse(console).cmdline == b"multiboot halt"
    assert understood(results, "image")["disks"] == [
        {"pdev_path": "app.qcow2", "vdev": "xvda", "format": "qcow2", "readwrite": 1}
    ]


def test_a_host_that_stands_still_is_started_once_more(monkeypatch):
    monkeypatch.setattr(xenhost, "STILL", 0.5)
    monkeypatch.setattr(xenhost, "base", lambda hvm: b"no archive, so dom0's Linux stops and says nothing any more")
    with pytest.raises(xenhost.HostStalled), pytest.warns(UserWarning, match="stalled and is started once more"):
        xenhost.run({"run": b""}, memory=448, dom0_memory=224, timeout=1)


def test_a_guest_without_end_is_noticed(monkeypatch):
    monkeypatch.setattr(xenhost, "RESTARTS", 0)
    with pytest.raises(xenhost.HostStalled, match="a guest had no end"):
        xenhost.run({"run": b"echo begun; sleep 9999 & sleep 9999"}, memory=448, dom0_memory=224, timeout=2)


BIOS = {"bios": "bios", "uefi": "ovmf", "image": "ovmf"}
"""What xl calls them."""

MISUNDERSTOOD = {
    "comma": "disk=['format=raw, vdev=xvda, access=rw, target=/a,']",
    "typo": "memroy=4711",
}
"""Lines of an xl.cfg that xl takes with status 0 and understands otherwise: why `rumpbundle.xen.xl` refuses them."""


AS_LAUNCHED = """cd /job/crashing
{create}
xl console renamed </dev/null >/results/crashing.console & sleep 1
xl unpause renamed
sleep 1
xl list -v renamed >/results/ended
xl destroy renamed
"""
"""A domain that the launcher names and keeps after its end, to ask why."""

LINUX_SAYS = """
echo "linux was told: $(cat /proc/cmdline)"
echo "second initrd: $(cat /second)"
mkdir /data
mount -t ext4 /dev/xvda /data
echo "the volume holds: $(sha256sum </data/file)"
echo kept >/data/new
umount /data && mount -t ext4 /dev/xvda /data && echo "what was written: $(cat /data/new)"
umount /data
"""


def linux(tmp_path, disk):
    """Return a kit of Debian's kernel, to be started as PVH, with two initrds of odd lengths; it reads *disk* too."""
    first = linux_guest.initrd(tmp_path / "first", LINUX_SAYS, ("xen_blkfront", "ext4", "crc32c_generic"))
    second = xenhost.cpio([xenhost.Entry("second", 0o100644, b"here")])
    modules = []
    for number, data in enumerate((first.read_bytes(), second)):
        path = tmp_path / f"initrd{number}"
        path.write_bytes(gzip.compress(data, 1))
        modules.append(ModuleFile(path))
    options = {"type": "pvh", "memory": 128 << 20}
    guest = kit(
        *(tmp_path, "linux", linux_guest.kernel()),
        modules=tuple(modules),
        cmdline="console=hvc0 quiet",
        options=options,
    )
    cfg = guest.files["xl.cfg"].read_text() + f"disk = ['{disk},raw,xvda,rw']\n"
    return replace(guest, files=guest.files | {"xl.cfg": cfg.encode()})


def test_kits_start_by_the_commands_we_print(tmp_path):
    module = tmp_path / "initrd.img"
    module.write_bytes(MODULE)
    config = Config(rc=(Program(bin="httpd", argv=("it's", "$x", "`y`", "é", "z" * 3900)),))
    volume = Writable(Directory.of("", [File("file", Content.of_bytes(MODULE))]), "/data", 8 << 20)
    guests = [
        kit(tmp_path, "rumprun", "xen-pv-rumprun", config=config, volumes=(volume,)),
        kit(tmp_path, "absolute", "xen-pv", cmdline=TRICKY, options={"host_directory": "/job/absolute"}),
        kit(tmp_path, "module", "xen-pvh", modules=(ModuleFile(module),)),
        linux(tmp_path, "/job/rumprun/xvda.raw"),
        kit(tmp_path, "again", "xen-pv", cmdline="exit=1", options={"host_directory": "/job/again"}),
    ]
    crashing = kit(tmp_path, "crashing", "xen-pv", cmdline="exit=3")
    plan = BACKEND.plan(LaunchRequest(name="renamed", kit="/job/crashing", memory=40 << 20))
    files = job([*guests, replace(crashing, commands=AS_LAUNCHED.format(create=plan.commands[1]))])
    script = files["run"].decode().replace("xl destroy again", "sleep 8; xl destroy again")
    for name, line in MISUNDERSTOOD.items():
        files[name] = f"name='x'\ntype='pv'\nkernel='/k'\n{line}\n".encode()
        script += f"cd /job; xl create -n {name} >/results/{name}.json || echo {name}: the commands gave an error\n"
    results = xenhost.run(files | {"run": script.encode()}, memory=680, dom0_memory=360, timeout=300)
    assert b"commands gave an error" not in results.files["log"], results.files["log"].decode()
    rumprun, absolute, with_module, *_ = guests
    check_said(results, rumprun)
    assert len(rumprun.config) > 3900
    assert understood(results, "rumprun")["disks"] == [
        {"pdev_path": "xvda.raw", "vdev": "xvda", "format": "raw", "readwrite": 1}
    ]
    check_said(results, replace(absolute, cmdline=TRICKY))
    check_said(results, replace(with_module, protocol="xen-pvh", modules=(MODULE,)))
    ended = results.files["ended"].decode()
    (domid,) = (int(line.split()[1]) for line in ended.splitlines() if line.startswith("renamed "))
    assert shutdown_reason(ended, domid) == 3, ended
    said = results.files["linux.console"]
    assert b"linux was told: console=hvc0 quiet" in said
    assert b"second initrd: here" in said
    assert f"the volume holds: {sha256(MODULE).hexdigest()}".encode() in said, said.decode("utf-8", "replace")
    assert b"what was written: kept" in said
    assert results.files["xen/console/guest-again.log"].count(b"end of report") > 1, "a reboot does not restart it"
    assert understood(results, "comma")["disks"][0]["pdev_path"] == "/a"
    assert b"4711" not in results.files["typo.json"]
